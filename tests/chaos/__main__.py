"""`python -m tests.chaos [--seed N] [--faults N] [--only PATTERN] [--report FILE]`: exit code 1 if a bar was missed."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.chaos.chaos_run import WHOLE, ChaosRun
from tests.chaos.faults import FAULTS
from tests.chaos.plan import chosen_faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--faults", type=int, default=WHOLE.faults, help="the number of faults; 0: each kind once")
    parser.add_argument("--events", type=int, default=WHOLE.events)
    parser.add_argument("--gap", type=float, default=WHOLE.gap, help="seconds between two faults, on average")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="only faults with such a name")
    parser.add_argument("--without", action="append", default=[], metavar="PATTERN", help="no faults with such a name")
    parser.add_argument("--no-root", action="store_true", help="use no namespace and no mounts")
    parser.add_argument("--no-status", action="store_true", help="do not check `dims status` during the faults")
    parser.add_argument("--report", type=Path, help="write the report to this file, as Markdown")
    parser.add_argument("--list", action="store_true", help="list the faults")
    options = parser.parse_args()
    if options.list:
        print("\n".join(fault.name for fault in FAULTS))
        return 0
    try:
        faults = chosen_faults(options.only, options.without)
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the child processes are stopped, too
    print(f"chaos: seed {options.seed}. To repeat it: make chaos SEED={options.seed}", flush=True)
    size = replace(
        WHOLE,
        faults=options.faults,
        events=options.events,
        gap=options.gap,
        isolated=not options.no_root,
        with_status=not options.no_status,
    )
    with tempfile.TemporaryDirectory(prefix="dims-chaos-") as folder:
        report = ChaosRun(Path(folder), options.seed, size, faults, lambda line: print(line, flush=True)).run()
    print(report)
    if options.report:
        options.report.write_text(report.markdown(), encoding="utf-8")
    verdict = "LOST" if report.problems else "MISSED BARS" if report.weaknesses else "ok"
    print(f"chaos: {verdict} seed={report.seed}")
    return 1 if report.problems or report.weaknesses else 0


if __name__ == "__main__":
    sys.exit(main())
