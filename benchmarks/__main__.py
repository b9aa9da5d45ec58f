"""`python -m benchmarks [NAME ...] [--quick]`: measure, print, exit with 1 if a target is missed."""

import argparse
import sys
from collections.abc import Callable
from typing import Final

from benchmarks import durable, fleet, memory, refresh, start
from benchmarks.measure import Figure

BENCHMARKS: Final[dict[str, Callable[[bool], list[Figure]]]] = {
    "refresh": lambda quick: refresh.run(rounds=2 if quick else 5),
    "durable": lambda quick: durable.run(count=100 if quick else 500),
    "memory": lambda quick: memory.run(rounds=1 if quick else 3),
    "start": lambda quick: start.run(rounds=3 if quick else 7),
    "fleet": lambda quick: fleet.run(sizes=(10_000,) if quick else (10_000, 100_000)),
}


def main() -> int:
    """Run what was named, or everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*BENCHMARKS, []], help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller fleets")
    options = parser.parse_args()
    good = True
    for name in options.names or BENCHMARKS:
        for figure in BENCHMARKS[name](options.quick):
            print(figure, flush=True)
            good = good and figure.ok
    return 0 if good else 1


sys.exit(main())
