"""Durable refreshes per CPU second of the whole daemon, against a bare HTTP client's."""

import re
import signal
import statistics
import time
import urllib.request
from typing import Final

from benchmarks import bare, stub
from benchmarks.deployment import Deployment, deployed, until
from benchmarks.measure import Figure, cpu_seconds, in_turn

_EXPIRES_IN: Final = 4  # seconds: each credential comes up every two or three
_TARGET: Final = 0.6


def run(*, count: int = 1000, rounds: int = 5, seconds: float = 5.0) -> list[Figure]:
    """Measure the daemon and the bare client in turn; each round takes `seconds` for either."""
    with stub.running(_EXPIRES_IN) as server, deployed(server, count) as deployment:
        concurrency = best_concurrency(server.url, seconds / 5)
        with deployment.running() as daemon:
            until(lambda: server.granted() >= 2 * count)

            def of_daemon() -> float:
                warm = server.granted() + count
                until(lambda: server.granted() >= warm)  # over the halt, with fresh connections
                before, cpu = server.granted(), cpu_seconds(daemon.pid)
                time.sleep(seconds)
                return (cpu_seconds(daemon.pid) - cpu) / (server.granted() - before)

            def of_bare() -> float:
                daemon.send_signal(signal.SIGSTOP)
                try:
                    return bare.cpu_per_post(server.url, concurrency, seconds)
                finally:
                    daemon.send_signal(signal.SIGCONT)

            pairs = in_turn(rounds, of_bare, of_daemon)
            saves_per_refresh = _saves_per_refresh(deployment)
    ours, theirs = (1e3 * statistics.median(side) for side in zip(*((b, a) for a, b in pairs), strict=True))
    ratio = statistics.median(first / second for first, second in pairs)
    return [
        Figure(
            "refresh: durable refreshes per CPU second / bare httpx",
            ratio,
            _TARGET,
            at_least=True,
            detail=f"{ours:.3f} ms against {theirs:.3f} ms (bare, {concurrency} in flight); "
            f"{saves_per_refresh:.2f} durable saves for each refresh",
        )
    ]


def best_concurrency(url: str, seconds: float) -> int:
    """Return the number of requests in flight at which the bare client costs least."""
    costs = {number: bare.cpu_per_post(url, number, seconds) for number in (1, 2, 4, 8, 20)}
    return min(costs, key=lambda number: costs[number])


def _saves_per_refresh(deployment: Deployment) -> float:
    """Ask the daemon's own books whether it did what is measured: every refresh is two saves."""
    with urllib.request.urlopen(deployment.metrics_url, timeout=10) as answer:  # noqa: S310 - a loopback http URL
        text = answer.read().decode()
    saves = re.search(r'^rotator_saves_total\{outcome="success"\} (\S+)$', text, re.MULTILINE)
    granted = re.findall(r'^rotator_refresh_attempts_total\{.*outcome="granted"\} (\S+)$', text, re.MULTILINE)
    return float(saves[1]) / sum(map(float, granted)) if saves else 0.0
