"""The killing test: real workers, a real broker and a real database, killed with -9 at random while events are sent.

`make fire` runs it whole (`python -m tests.fire`), `tests/acceptance/test_fire.py` in a shorter form.
"""
