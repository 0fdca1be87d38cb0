"""The killing test: real workers, a real broker and a real database, killed with -9 at random while events are sent.

`make chaos` runs it whole (`python -m tests.chaos`), `tests/acceptance/test_chaos.py` in a shorter form.
"""
