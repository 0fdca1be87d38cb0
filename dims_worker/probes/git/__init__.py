"""Measure git repositories."""
