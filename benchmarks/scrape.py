"""What a scrape costs: time, bytes and CPU, and whether a refresh takes longer while Prometheus looks on."""

import contextlib
import re
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Final

from benchmarks import stub
from benchmarks.deployment import Deployment, deployed, names, settled, until
from benchmarks.measure import Figure, cpu_seconds, in_turn

_EXPIRES_IN: Final = 2  # seconds: each of the busy credentials comes up every one or two
_BUSY: Final = 20
"""So many credentials, or all, are refreshed over and over; the others rest."""
_ACCEPT: Final = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
"""What Prometheus asks for: the format that takes the library longer to write."""
_USUAL_SECONDS: Final = 15.0
"""Prometheus's usual interval."""
_SECONDS: Final = 1.0
"""The interval while refreshes are measured, so that an effect is seen. Of that, the usual one has a fifteenth."""
_CPU_TARGET: Final = 2.0
_LATENCY_TARGET: Final = 1.05
_REFRESHES: Final = re.compile(r"^rotator_(?:refresh|save)_duration_seconds_sum (\S+)$", re.MULTILINE)
_GRANTED: Final = re.compile(r'^rotator_refreshes_total\{outcome="success"\} (\S+)$', re.MULTILINE)


def run(
    *, sizes: tuple[int, ...] = (1, 1000, 10_000), scrapes: int = 20, rounds: int = 5, seconds: float = 6.0
) -> list[Figure]:
    """Scrape fleets of `sizes`: at rest, then in turn with and without scrapes while some are refreshed."""
    figures = []
    with stub.running(_EXPIRES_IN) as server:
        for size in sizes:
            figures += _of(server, size, scrapes, rounds, seconds)
    return figures


def _of(server: stub.Stub, size: int, scrapes: int, rounds: int, seconds: float) -> list[Figure]:
    busy = min(size, _BUSY)
    due_at = time.time() + 10 + size / 500
    with deployed(server, size, valid=True, due_at=due_at, due=busy) as deployment, deployment.running() as daemon:
        settled(daemon.pid, deployment.output(names(size)[-1]), patience=due_at - time.time())
        began, cpu = time.monotonic(), cpu_seconds(daemon.pid)
        length = [len(_page(deployment)) for _ in range(scrapes)][-1]
        took, cpu = (time.monotonic() - began) / scrapes, (cpu_seconds(daemon.pid) - cpu) / scrapes
        before = server.granted()
        until(lambda: server.granted() >= before + busy, 60 + due_at - time.time())

        def alone() -> float:
            return _refreshed(deployment, seconds)

        def watched() -> float:
            with _scraped(deployment):
                return _refreshed(deployment, seconds)

        turns = in_turn(rounds, alone, watched, alone)
    ratio = statistics.median(2 * scraped / (first + last) for first, scraped, last in turns)
    noise = statistics.median(abs(last / first - 1) for first, _, last in turns)
    usual = statistics.median(first for first, _, _ in turns)
    return [
        Figure(
            f"scrape of {size}: every 15 s, CPU of one core", 100 * cpu / _USUAL_SECONDS, _CPU_TARGET, unit="%",
            detail=f"{1e3 * took:.1f} ms and {length / 1024:.0f} KiB a scrape",
        ),
        Figure(
            f"scrape of {size}: a refresh, scraped every 15 s / not scraped",
            1 + (ratio - 1) * _SECONDS / _USUAL_SECONDS, _LATENCY_TARGET,
            detail=f"{1e3 * usual:.2f} ms not scraped, {ratio:.2f} of that scraped every second; "
            f"two turns without scrapes differ by {100 * noise:.0f} %",
        ),
    ]  # fmt: skip


def _page(deployment: Deployment) -> str:
    """Scrape once."""
    request = urllib.request.Request(deployment.metrics_url, headers={"Accept": _ACCEPT})  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
        return str(answer.read().decode())


def _refreshed(deployment: Deployment, seconds: float) -> float:
    """Return how long a refresh took on average, its token request and its saves, in the next `seconds`."""
    spent, count = _books(deployment)
    time.sleep(seconds)
    spent_then, count_then = _books(deployment)
    return (spent_then - spent) / max(1.0, count_then - count)


def _books(deployment: Deployment) -> tuple[float, float]:
    """Return the seconds that refreshes have taken, and their number."""
    page = _page(deployment)
    granted = _GRANTED.search(page)
    return sum(map(float, _REFRESHES.findall(page))), float(granted[1]) if granted else 0.0


@contextlib.contextmanager
def _scraped(deployment: Deployment) -> Iterator[None]:
    """Scrape every second until the end of the block."""
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(_SECONDS):
            _page(deployment)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
