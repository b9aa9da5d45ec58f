"""Reading what a process costs, and saying how a figure stands against its target."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ALL_THREADS: Final = 2
"""How clock_getcpuclockid(3) makes a clock of a process id: exact, where /proc counts hundredths of a second."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number and the bound it should keep."""

    what: str
    measured: float
    target: float
    at_least: bool = False
    """The target is a lower bound."""
    unit: str = ""
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether the target is met."""
        return self.measured >= self.target if self.at_least else self.measured <= self.target

    def __str__(self) -> str:
        """Return one line for people."""
        bound = f"{'>=' if self.at_least else '<='} {self.target:g}{self.unit}"
        line = f"{'ok' if self.ok else 'MISSED':6}  {self.what:58} {self.measured:8.3g}{self.unit:4} (target {bound})"
        return f"{line}\n        {self.detail}" if self.detail else line


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used in all its threads, user and system, in seconds."""
    return time.clock_gettime((~pid << 3) | _ALL_THREADS)


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process in bytes, as the kernel counts it page by page."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"process {pid} has no resident memory")


def in_turn(rounds: int, *measures: Callable[[], float]) -> list[tuple[float, ...]]:
    """Take each measure in turn, `rounds` times: what else the machine does then falls on all of them alike."""
    return [tuple(measure() for measure in measures) for _ in range(rounds)]


def median_ratio(pairs: Iterable[tuple[float, ...]]) -> float:
    """Return the median of first divided by second."""
    return statistics.median(first / second for first, second in pairs)
