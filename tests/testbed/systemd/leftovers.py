"""Control groups of machines: freed at the end, or by the next tests if the ones before were killed."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

from tests.process.rig import wait_until

PREFIX: Final = f"rotator-testbed-{Path('/proc/self/ns/pid').stat().st_ino}-"
"""Of a machine's name; what follows is the id of the tests' process, and a number.

Containers may share a host's control groups: which processes of another one live cannot be told from here.
"""
_CGROUPS: Final = Path("/sys/fs/cgroup")
_HIERARCHIES: Final = ("", "unified", "systemd")


def free(name: str) -> None:
    """End what still runs on a machine, and remove its control groups."""
    for hierarchy in _HIERARCHIES:
        group = _CGROUPS / hierarchy / name
        wait_until(lambda group=group: _removed(group), f"nothing is in {group}")  # type: ignore[misc]


def _removed(group: Path) -> bool:
    """Kill what is in a control group or one below, and remove them; False while that is not done."""
    for processes in group.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):  # it has gone by itself
            for pid in processes.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
    try:
        for each in (*sorted(group.rglob("*/"), reverse=True), group):
            with contextlib.suppress(FileNotFoundError):  # somebody else does the same
                each.rmdir()
    except OSError:
        return False
    return True


def reap() -> None:
    """Free the machines whose tests were killed: no process of that id is left."""
    for hierarchy in _HIERARCHIES:
        for group in (_CGROUPS / hierarchy).glob(f"{PREFIX}*-*"):
            pid = group.name.removeprefix(PREFIX).partition("-")[0]
            if pid.isdecimal() and int(pid) != os.getpid() and not Path("/proc", pid).exists():
                free(group.name)
