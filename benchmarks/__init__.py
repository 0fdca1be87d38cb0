"""Benchmarks. Each measures two things in turns and prints their ratio, which depends little on the machine."""
