"""Write what happened and why as sentences, the same in the terminal, on the dashboard and in the API."""
