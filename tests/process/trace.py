"""strace on one thread of a running daemon: what it calls, in order, and what happens to it at a call.

Attached to the worker thread alone, because strace counts the calls of each thread by themselves: "the third fsync"
is then the third of the rotation, whatever other threads did before.
"""

import ast
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.process.rig import PATIENCE

_CALL: Final = re.compile(r"(\d+\.\d+) (\w+)\((.*)\)\s+= (\?|-?\d+|0x[0-9a-f]+)(.*?)(?: <(\d+\.\d+)>)?")
_FD: Final = re.compile(r"(?:\d+|AT_FDCWD)<([^>]*)>")
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One system call."""

    name: str
    nth: int
    """Which call of this name, from 1: how strace counts."""
    at: float
    """Seconds since the epoch."""
    over_at: float
    arguments: str
    result: str
    """`?` if the process was killed at its entry: it was not carried out."""
    note: str
    """What strace adds to the result."""

    @property
    def path(self) -> str:
        """The path of the first file descriptor in the arguments, or an empty text."""
        found = _FD.match(self.arguments)
        return found[1] if found else ""

    @property
    def strings(self) -> list[bytes]:
        """The strings among the arguments."""
        return [ast.literal_eval(f'b"{text}"') for text in _STRING.findall(self.arguments)]

    @property
    def succeeded(self) -> bool:
        """Whether it was carried out, and without an error."""
        return not self.result.startswith(("?", "-"))

    @property
    def was_made_to_fail(self) -> bool:
        """Whether its error was injected."""
        return self.note.endswith("(INJECTED)")

    @property
    def point(self) -> str:
        """How to name it: `fsync-2`."""
        return f"{self.name}-{self.nth}"


def read_trace(path: Path) -> list[Call]:
    """Return the calls in a trace file, in order."""
    calls: list[Call] = []
    seen: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        found = _CALL.fullmatch(line)
        if found:
            at, name, arguments, result, note, seconds = found.groups()
            seen[name] += 1
            calls.append(
                Call(name, seen[name], float(at), float(at) + float(seconds or 0.0), arguments, result, note.strip())
            )
    return calls


@contextmanager
def traced(
    thread: int,
    output: Path,
    *inject: str,
    calls: str = "%file,%desc,%network",
    path: Path | None = None,
    others: bool = False,
) -> Generator[subprocess.Popen[str]]:
    """Trace one thread until the end of the block; `inject` as in strace(1), e.g. `fsync:error=EIO:when=2`.

    With `others` all threads of the process are traced that nobody traces yet, those to come included.
    With `path` only calls that name it, by path or descriptor, are seen, counted and struck.
    """
    command = ["strace", "-y", "-ttt", "-T", "-s", "1000000", "-o", str(output), "-e", f"trace={calls}"]
    command += [f"--inject={each}" for each in inject]
    command += ["-P", str(path)] if path else []
    command += ["-f"] if others else []
    with subprocess.Popen([*command, "-p", str(thread)], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "attached" in line, line
            yield process
        finally:
            process.send_signal(signal.SIGINT)  # lets the thread go on
            process.communicate(timeout=PATIENCE)


def worker_of(pid: int) -> int:
    """Return the thread that rotates: the first that the daemon made, after the main thread."""
    return [int(thread) for thread in os.listdir(f"/proc/{pid}/task")][1]  # noqa: PTH208 - the kernel's own order
