"""The workflow `file-inventory`: every file of a tree with its purpose."""
