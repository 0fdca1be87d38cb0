"""Producers: small programs that tell DIMS that something changed."""
