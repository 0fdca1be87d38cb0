"""The path of an event: ingest it, measure what is due, and record the run."""
