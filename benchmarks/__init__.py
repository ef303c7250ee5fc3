"""What a renewal costs, as ratios of things measured side by side in one run.

``python -m benchmarks`` runs all of it and writes docs/benchmarks.md;
``python -m benchmarks NAME ...`` runs some and only prints.
"""
