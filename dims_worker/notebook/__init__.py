"""The explorer notebook: its data frames, its charts, and the code that runs it."""
