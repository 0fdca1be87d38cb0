"""What happened and why, in sentences: the same on a terminal and on a page."""
