"""The chaos test: faults hit real workers, a real broker and a real database while events are sent.

`make chaos` runs the long form (`python -m tests.chaos`), `tests/acceptance/test_chaos.py` a short form without root.

- `cluster` starts the servers and two hosts: one whose programs restart like containers, behind TCP proxies, and one
  that runs `dims up` in a network namespace, with a clock of its own and small disks.
- `faults` has a class for each fault. `plan` chooses them by the seed, and `runner` injects one at a time.
- `probe` measures how soon fast sources of every host are recorded, `status_check` what `dims status` says.
- `checker` reads both servers at the end: nothing is lost, nothing is stored twice, each value is true.
"""
