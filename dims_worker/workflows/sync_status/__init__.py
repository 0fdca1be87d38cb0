"""The workflow `sync-status`: compare local folders with the lake, and name every difference."""
