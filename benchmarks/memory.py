"""Resident memory with one credential, against an interpreter that merely imports the same libraries."""

from typing import Final

from benchmarks import interpreter, stub
from benchmarks.deployment import deployed, names, settled
from benchmarks.measure import Figure, in_turn, median_ratio, resident_bytes

_TARGET: Final = 1.25


def run(*, rounds: int = 3) -> list[Figure]:
    """Start both in turn and look at each once it is at rest."""
    with stub.running(3600) as server:
        pairs = in_turn(rounds, lambda: of_daemon(server), of_interpreter)
    ours, bare = (side / 2**20 for side in pairs[-1])
    detail = f"{ours:.1f} MiB against {bare:.1f} MiB"
    return [
        Figure("memory: one credential / an interpreter with the imports", median_ratio(pairs), _TARGET, detail=detail)
    ]


def of_daemon(server: stub.Stub) -> float:
    """Return the resident memory of a daemon that has refreshed and published its only credential, in bytes."""
    with deployed(server, 1) as deployment, deployment.running() as daemon:
        settled(daemon.pid, deployment.output(names(1)[0]))
        return resident_bytes(daemon.pid)


def of_interpreter() -> float:
    """Return the resident memory of the interpreter, in bytes."""
    with interpreter.idle() as pid:
        return resident_bytes(pid)
