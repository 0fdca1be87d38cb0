"""Explain values: evidence, health, comparisons between two points in time, and policy suggestions."""
