"""The workflow `local-inventory`: local folders compared with the lake and the database."""
