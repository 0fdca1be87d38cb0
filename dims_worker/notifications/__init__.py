"""Notify people: which alerts exist, what they say, and how they are sent."""
