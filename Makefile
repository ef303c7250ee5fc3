# make demo   sets everything up and runs the data lake hub on this machine
# make test   sets everything up and runs every test tier (make test-unit, ... for one)
PYTHON ?= python3

.PHONY: demo test fuzz bench lock clean help
help:
	@sed -n 's/^# //p' Makefile

demo:
	@$(PYTHON) tools/setup.py demo
	@exec .venv/bin/python -m escape_hub.demo

test:
	@$(PYTHON) tools/run_tests.py

# test-lint test-unit test-fuzz test-upstream test-hub test-hub55 test-root test-browser test-soak
test-%:
	@$(PYTHON) tools/run_tests.py $*

# make fuzz   a million spoilt inputs; ESCAPE_HUB_FUZZ_SEED=N begins elsewhere
fuzz:
	@ESCAPE_HUB_FUZZ_EXAMPLES=1000000 $(PYTHON) tools/run_tests.py fuzz

# Ratios side by side; results go to docs/benchmarks.md
bench:
	@$(PYTHON) tools/setup.py demo
	@.venv/bin/python -m benchmarks

# Renew both locks (needs uv); they record hashes and no host.
lock:
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
	  --extra test pyproject.toml requirements/build.in -o requirements/lock.txt
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
	  --extra demo pyproject.toml requirements/build.in requirements/hub55.in -o requirements/lock-hub55.txt

clean:
	rm -rf .venv test-output .pytest_cache .mypy_cache .ruff_cache .coverage
