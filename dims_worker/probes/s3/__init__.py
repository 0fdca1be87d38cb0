"""Measure S3 buckets."""
