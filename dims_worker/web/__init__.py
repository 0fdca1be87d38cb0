"""One page to look at and one button to press, and a JSON API beside it."""
