"""Producers: small programs that send an event to DIMS when something has changed."""
