"""`python -m benchmarks [NAME ...] [--quick]`: measure, print, exit with 1 if a target is missed."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Final

from benchmarks import disk, durable, fleet, memory, refresh, scrape, start
from benchmarks.deployment import DISK, DISK_VARIABLE
from benchmarks.measure import Figure

BENCHMARKS: Final[dict[str, Callable[[bool], list[Figure]]]] = {
    "refresh": lambda quick: refresh.run(rounds=2 if quick else 7),
    "durable": lambda quick: durable.run(count=100 if quick else 500),
    "memory": lambda quick: memory.run(rounds=1 if quick else 3),
    "start": lambda quick: start.run(rounds=3 if quick else 9),
    "scrape": lambda quick: scrape.run(rounds=2 if quick else 7),
    "fleet": lambda quick: fleet.run(sizes=(10_000,) if quick else (10_000, 100_000)),
}


def main() -> int:
    """Run what was named, or everything."""
    known = ", ".join(BENCHMARKS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=f"Measure rotator: {known}.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; all if none is named")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and no fleet of 100,000")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are: {known}")
    DISK.mkdir(exist_ok=True)
    if DISK_VARIABLE not in os.environ and disk.lacks_journal(DISK):
        code = disk.run_on_image(sys.argv[1:])
        if code is not None:
            return code
        print(f"{DISK} is on ext4 without a journal, where saves cost far more: name another by {DISK_VARIABLE}")
    good = True
    for name in options.names or BENCHMARKS:
        for figure in BENCHMARKS[name](options.quick):
            print(figure, flush=True)
            good = good and figure.ok
    return 0 if good else 1


sys.exit(main())
