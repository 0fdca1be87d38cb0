"""Measure with a program and read what it prints."""
