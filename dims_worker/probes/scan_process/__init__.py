"""Scans run in a process of their own, so that another process can stop them whatever they do."""
