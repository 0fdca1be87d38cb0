"""Measure trees of files."""
