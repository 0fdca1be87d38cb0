"""Approval requests: how they open and close, and how people decide on them."""
