"""Measurements: run one as ``python -m benchmarks.NAME`` in the root of a checkout; see README.md in this folder."""
