"""Many idle credentials in one process: CPU, memory for each, and whether a refresh costs more among many."""

import time
from dataclasses import dataclass
from typing import Final

from benchmarks import stub
from benchmarks.deployment import deployed, names, settled, until
from benchmarks.measure import Figure, cpu_seconds, resident_bytes
from benchmarks.memory import of_daemon

_DUE: Final = 1000
"""So many are refreshed at the end."""
_STARTS_PER_SECOND: Final = 1000
"""A careful guess of how many credentials are taken up in a second after the start."""
_IDLE_TARGET: Final = 1.0
_MEMORY_TARGET: Final = 3.0
_COST_TARGET: Final = 1.2
_MARGIN: Final = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class Fleet:
    """What was seen of one fleet."""

    idle_share: float
    """Of one core."""
    resident_bytes: int
    cpu_per_refresh: float
    """Seconds."""


def run(*, sizes: tuple[int, ...] = (10_000, 100_000), idle: float = 65.0, due: int = _DUE) -> list[Figure]:
    """Measure a fleet of 1,000, then those of `sizes`; each is watched for `idle` seconds after its start."""
    figures = []
    with stub.running(36_000) as server:
        alone = of_daemon(server)
        few = watched(server, due, 1.0, due)
        for size in sizes:
            fleet = watched(server, size, idle, due)
            own = (fleet.resident_bytes - alone) / size - 2 * (stub.ACCESS_BYTES + stub.REFRESH_BYTES)
            figures += [
                Figure(f"fleet of {size}: idle, CPU of one core", 100 * fleet.idle_share, _IDLE_TARGET, unit="%"),
                Figure(f"fleet of {size}: memory for each beyond its tokens", own / 1024, _MEMORY_TARGET, unit="KiB"),
                Figure(
                    f"fleet of {size}: cost of a refresh / in a fleet of {due}",
                    fleet.cpu_per_refresh / few.cpu_per_refresh,
                    _COST_TARGET,
                    detail=f"{1e3 * fleet.cpu_per_refresh:.3f} ms against {1e3 * few.cpu_per_refresh:.3f} ms",
                ),
            ]
    return figures


def watched(server: stub.Stub, size: int, idle: float, due: int) -> Fleet:
    """Start a fleet, let it come to rest, watch it idle, then watch `due` refreshes."""
    laid_out = size / 3000
    due_at = time.time() + laid_out + 10 + size / _STARTS_PER_SECOND + idle
    with deployed(server, size, valid=True, due_at=due_at, due=due) as deployment, deployment.running() as daemon:
        settled(daemon.pid, deployment.output(names(size)[-1]), patience=due_at - time.time())
        began, cpu = time.time(), cpu_seconds(daemon.pid)
        time.sleep(max(0.0, due_at - _MARGIN - began))
        spent, cpu = time.time() - began, cpu_seconds(daemon.pid) - cpu
        if spent < idle:
            raise TimeoutError(f"only {spent:.0f} s were left to watch {size} credentials idle")
        resident, before, cpu_before = resident_bytes(daemon.pid), server.granted(), cpu_seconds(daemon.pid)
        until(lambda: server.granted() >= before + due, 60 + due / 50)
        return Fleet(cpu / spent, resident, (cpu_seconds(daemon.pid) - cpu_before) / due)
