"""The explorer notebook: data frames, charts, and what runs it."""
