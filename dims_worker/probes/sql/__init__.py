"""Measure databases with SQL queries."""
