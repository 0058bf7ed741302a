"""Benchmarks: every figure beside its yardstick, measured in the same run on the same machine."""
