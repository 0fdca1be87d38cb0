"""The dashboard, its approval buttons, and the JSON API."""
