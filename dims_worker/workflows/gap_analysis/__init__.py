"""The workflow `gap-analysis`: which games are missing, by name."""
