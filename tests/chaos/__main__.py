"""`python -m tests.chaos [--seed N] [--events N] [--kills N]`: exit code 1 if anything was lost."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.chaos.chaos_run import WHOLE, ChaosRun


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--events", type=int, default=WHOLE.events)
    parser.add_argument("--kills", type=int, default=WHOLE.kills)
    parser.add_argument("--gap", type=float, default=WHOLE.gap, help="seconds between two kills, on average")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the child processes are stopped, too
    print(f"chaos: seed {options.seed}. To repeat it: make chaos SEED={options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="dims-chaos-") as folder:
        size = replace(WHOLE, events=options.events, kills=options.kills, gap=options.gap)
        report = ChaosRun(Path(folder), options.seed, size, say=lambda line: print(line, flush=True)).run()
    print(report)
    print(f"chaos: {'LOST' if report.problems else 'ok'} seed={report.seed}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
