"""The chaos test: real workers, a real broker and a real database are killed with -9 at random while events are sent.

`make chaos` runs the long form (`python -m tests.chaos`), `tests/acceptance/test_chaos.py` a short form.
"""
