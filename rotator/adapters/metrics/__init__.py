"""What Prometheus gets to see: events are counted as they happen, everything else is read at the scrape.

No gauge is ever set: at each scrape the credentials are looked at anew, so nothing old is shown as fresh
(case L8), exactly one state of a credential is 1, and a removed credential is gone at once (case M6).
The counts are ours and only their presentation is the library's, so its files for several processes, which
PROMETHEUS_MULTIPROC_DIR asks for, cannot come into being (cases M7 to M9).
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rotator.adapters.metrics.fleet import Fleet
from rotator.adapters.metrics.present import build_metrics, credential_metrics, daemon_metrics
from rotator.adapters.metrics.tally import Tally
from rotator.core.standing import CredentialView
from rotator.ports import Clock, Desk, Event


class Metrics(Collector):
    """Counts events (an `Observer`) and shows them with all that the desk knows. Thread-safe.

    With more than `fleet_threshold` credentials the series per credential give way to those of the whole
    fleet, which are always there. Until a desk is set, only events and the process are shown.
    """

    def __init__(self, desk: Desk | None, fleet_threshold: int, clock: Clock) -> None:
        self._desk = desk
        self._threshold = fleet_threshold
        self._clock = clock
        self._tally = Tally(fleet_threshold)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def set_desk(self, desk: Desk) -> None:
        """Show what this desk knows from now on: observers are made before the daemon they observe."""
        self._desk = desk

    def notify(self, event: Event) -> None:
        """Count one event."""
        self._tally.notify(event)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return a scrape's body and its content type: the text format, or OpenMetrics if `accept` names it.

        Takes some microseconds for each credential: call it from a thread, not in the event loop.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def families(self) -> list[Metric]:
        """Return a scrape as the library's objects."""
        return list(self._registry.collect())

    def describe(self) -> list[Metric]:
        """Keep the registry from collecting just to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Look at everything now. The library calls this at each scrape."""
        yield build_metrics()
        if self._desk is None:
            yield from self._tally.metrics((), labelled=False)
            return
        counted = self._tally.names()  # before the look: what is configured later is not forgotten below
        now = self._clock.wall(self._clock.now())
        fleet, shown = Fleet(now), list[CredentialView]()
        for view in self._desk.views():
            fleet.add(view)
            if fleet.size <= self._threshold:
                shown.append(view)
        labelled = fleet.size <= self._threshold
        if not labelled:
            shown.clear()
        self._tally.forget(counted - {view.name for view in shown})
        yield from daemon_metrics(self._desk.counts(), now, listed=labelled)
        yield from fleet.metrics()
        yield from self._tally.metrics(shown, labelled=labelled)
        if labelled:
            yield from credential_metrics(shown, now)
