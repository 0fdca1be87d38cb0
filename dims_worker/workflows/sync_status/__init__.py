"""The workflow `sync-status`: local folders against the lake, every difference by name."""
