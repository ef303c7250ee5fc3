"""Nothing but our own errors comes out of anything that reads what others send.

Mutations of good input, the same in every run: ``ESCAPE_HUB_FUZZ_EXAMPLES`` says how many
in all (``make fuzz``: a million), ``ESCAPE_HUB_FUZZ_SEED`` another beginning.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escape_hub.errors import EscapeHubError
from tests.fakes.fuzz import JSON, fuzz
from tests.fuzz.mutate import Mutator
from tests.fuzz.targets import TARGETS, Target

EXAMPLES = int(os.environ.get("ESCAPE_HUB_FUZZ_EXAMPLES", "100000"))
SEED = int(os.environ.get("ESCAPE_HUB_FUZZ_SEED", "20"))
#: Of one example: seconds of this thread, and bytes above what there was before.
SLOWEST, LARGEST, HOPELESS = 0.050, 10 * 1024 * 1024, 5.0
#: tracemalloc makes everything slower: it looks at one example in so many, and at the long ones.
WEIGHED_EVERY, LONG = 50, 20_000

COUNTED: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def _a_small_heap() -> Iterator[None]:
    """What pytest and its plugins hold is not the code's to look through at each collection."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def _no_example_for_ever() -> Iterator[None]:
    """A regular expression that would take hours is a failure after `HOPELESS`."""

    def stop(_number: int, _frame: object) -> None:
        raise TimeoutError(f"still running after {HOPELESS} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    yield
    signal.signal(signal.SIGVTALRM, before)


def seconds_of(run: Callable[[bytes], object], raw: bytes) -> float:
    """Of processor time; errors of ours are what is expected."""
    signal.setitimer(signal.ITIMER_VIRTUAL, HOPELESS)
    begun = time.thread_time()
    try:
        run(raw)
    except EscapeHubError:
        pass
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return time.thread_time() - begun


def bytes_of(run: Callable[[bytes], object], raw: bytes) -> int:
    """The most that was in use at once."""
    tracemalloc.start()
    try:
        seconds_of(run, raw)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def try_one(target: Target, raw: bytes, number: int) -> None:
    """One example with its limits; a slow one is slow three times or it was the machine."""
    where = f"{target.name}, example {number} of seed {SEED}: {raw[:300]!r} ({len(raw)} bytes)"
    try:
        if seconds_of(target.run, raw) > SLOWEST:
            slow = min(seconds_of(target.run, raw) for _ in range(3))
            assert slow <= SLOWEST, f"{slow:.3f} s"
        if number % WEIGHED_EVERY == 0 or len(raw) > LONG:
            weight = bytes_of(target.run, raw)
            assert weight <= LARGEST, f"{weight} bytes"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}\n{where}") from error


def inputs(target: Target, count: int) -> Iterator[bytes]:
    yield from target.seeds
    mutator = Mutator(SEED * 1_000_003 + zlib.crc32(target.name.encode()))
    for _ in range(count):
        yield mutator.mutate(target.seeds)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_spoilt_input_gives_our_own_errors(target: Target) -> None:
    share = target.share / sum(t.share for t in TARGETS)
    for number, raw in enumerate(inputs(target, int(EXAMPLES * share) + 1)):
        try_one(target, raw, number)
        COUNTED[target.name] += 1


@pytest.mark.parametrize(
    "target",
    [t for t in TARGETS if t.seeds[0].startswith(b"{")],
    ids=lambda target: target.name,
)
def test_any_json_gives_our_own_errors(target: Target) -> None:
    """Hypothesis finds the smallest document, where mutation finds the odd one."""
    good = json.loads(target.seeds[0])

    @settings(fuzz, max_examples=60)
    @given(st.dictionaries(st.sampled_from([*good]), JSON) | st.none(), JSON)
    def look(changed: dict[str, object] | None, other: object) -> None:
        document = other if changed is None else {**good, **changed}
        seconds_of(target.run, json.dumps(document).encode())
        COUNTED[f"{target.name}, hypothesis"] += 1

    look()


def test_every_good_example_is_let_through() -> None:
    """A target that refuses its own seeds would fuzz nothing but the first line."""
    refused = {"metadata": 1, "token": 2, "token header": 1, "exchange reply": 1, "callback": 2,
               "hub reply": 1}  # fmt: skip
    for target in TARGETS:
        found = 0
        for raw in target.seeds:
            try:
                target.run(raw)
            except EscapeHubError:
                found += 1
        assert found == refused.get(target.name, 0), target.name


def test_as_many_as_were_promised() -> None:
    """Runs last; alone, without the others, it says that nothing was tried."""
    print(f"{sum(COUNTED.values())} examples: {dict(COUNTED)}")
    assert sum(COUNTED.values()) >= EXAMPLES
