"""The workflow `local-inventory`: local folders beside the lake and the database."""
