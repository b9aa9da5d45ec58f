"""From the start to the first published token, against an interpreter that imports the same and sends one POST."""

import statistics
import time
from pathlib import Path
from typing import Final

from benchmarks import interpreter, stub
from benchmarks.deployment import deployed, names, until
from benchmarks.measure import Figure, in_turn, median_ratio

_TARGET: Final = 2.0


def run(*, rounds: int = 7) -> list[Figure]:
    """Start both in turn. The state is there, the access token is over, the output is missing."""
    with stub.running(3600) as server:
        pairs = in_turn(rounds + 1, lambda: of_daemon(server), lambda: of_interpreter(server))[
            1:
        ]  # files are cached now
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    detail = f"{ours:.2f} s against {bare:.2f} s"
    return [
        Figure(
            "start: to the first published token / interpreter and POST", median_ratio(pairs), _TARGET, detail=detail
        )
    ]


def of_daemon(server: stub.Stub) -> float:
    """Return the seconds until a new daemon has published."""
    with deployed(server, 1) as deployment:
        began = time.monotonic()
        with deployment.running():
            return _published(deployment.output(names(1)[0])) - began


def of_interpreter(server: stub.Stub) -> float:
    """Return the seconds until the interpreter has written what the POST gave it."""
    with deployed(server, 1) as deployment:
        output = deployment.output("bare")
        began = time.monotonic()
        with interpreter.posting(server.url, output):
            return _published(output) - began


def _published(output: Path) -> float:
    until(output.exists, pause=0.001)
    return time.monotonic()
