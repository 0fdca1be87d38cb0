"""Benchmarks: each prints ratios of two things measured in turns within one run, never bare seconds."""
