"""`python -m tests.mutation [--seed N] [--mutants N] [--only PATH]`: list the changes that no test notices."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from tests.mutation.mutation_run import TESTS, FailingBaseline, choose, run

REPO = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--mutants", type=int, default=20, help="how many mutants to run (default: 20)")
    parser.add_argument("--only", default="", metavar="PATH", help="only files whose path begins so")
    options = parser.parse_args()
    samples = choose(REPO, TESTS, options.seed, options.mutants, options.only)
    if not samples:
        print(f"no mutant in {options.only}; paths begin with {', '.join(TESTS)}", file=sys.stderr)
        return 2
    print(f"{len(samples)} mutants, seed {options.seed}", flush=True)
    try:
        survivors = run(REPO, samples, lambda line: print(line, flush=True))
    except FailingBaseline as error:
        print(error, file=sys.stderr)
        return 2
    killed = len(samples) - len(survivors)
    print(f"\nkilled {killed} of {len(samples)} ({killed / len(samples):.0%}), seed {options.seed}. Survivors:")
    print("\n".join(f"  {sample}" for sample in survivors) or "  none")
    return 0


if __name__ == "__main__":
    sys.exit(main())
