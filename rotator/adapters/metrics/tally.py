"""Counts what happened. Every series is there from the start, at zero: a rate needs a first value."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric

from rotator.core.model import Oddity, Reason
from rotator.core.standing import CredentialView
from rotator.ports import Event, Notice, Problem, PublishFinished, RefreshFinished, SaveFinished

OUTCOMES: Final = ("granted", "refused", "unavailable", "ambiguous", "late", "held")
_OPERATIONS: Final = ("refresh", "save", "publish")
_DONE: Final = ("success", "failure")
_REFRESH_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SAVE_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

_ATTEMPTS: Final = "rotator_refresh_attempts", "Token requests that ended, by how they ended."
_PUBLISHES: Final = "rotator_publishes", "Attempts to bring an output up to date."


class Tally:
    """Counts events, in all and for each credential by name. Thread-safe; reading takes no lock."""

    def __init__(self, most_names: int) -> None:
        """Count by name for no more than `most_names` credentials: a large fleet is counted in all only."""
        self._most_names = most_names
        self._lock = threading.Lock()
        self._total: Counter[tuple[str, ...]] = Counter()
        self._by_name: dict[str, Counter[tuple[str, ...]]] = {}
        self._refresh_seconds = _Histogram(_REFRESH_BOUNDS)
        self._save_seconds = _Histogram(_SAVE_BOUNDS)

    def notify(self, event: Event) -> None:
        """Count one event."""
        with self._lock:
            match event:
                case RefreshFinished():
                    self._refreshed(event)
                case SaveFinished():
                    self._save_seconds.observe(event.seconds)
                    self._total["saves", _done(event.problem)] += 1
                    if event.problem:
                        self._total["failures", "save", event.problem.reason] += 1
                case PublishFinished():
                    done = _done(event.problem)
                    self._total["publishes", done] += 1
                    own = self._own(event.credential)
                    if own is not None:
                        own["publishes", event.sink, done] += 1
                    if event.problem:
                        self._total["failures", "publish", event.problem.reason] += 1
                case Notice(event="bug" | "clock_suspect"):
                    self._total[event.event,] += 1
                case Notice(event="tokens_adopted", fields={"oddities": [*oddities]}):
                    self._odd(map(str, oddities))
                case _:
                    pass

    def _refreshed(self, event: RefreshFinished) -> None:
        self._count(event.credential, "attempts", event.outcome)
        if event.outcome != "held":
            self._refresh_seconds.observe(event.seconds)
        self._odd(event.oddities)
        if event.outcome == "late":
            return
        if event.reason is not None:
            self._total["failures", "refresh", event.reason] += 1
        if event.outcome == "granted":
            self._total["refreshes", "success"] += 1
        elif event.failures == 1:
            self._total["refreshes", "failure"] += 1

    def _odd(self, oddities: Iterable[str]) -> None:
        for oddity in oddities:
            self._total["oddities", oddity] += 1

    def names(self) -> set[str]:
        """Return the credentials that have counts of their own."""
        with self._lock:
            return set(self._by_name)

    def forget(self, names: set[str]) -> None:
        """Drop the counts of credentials that are no longer shown."""
        with self._lock:
            for name in names:
                self._by_name.pop(name, None)

    def _count(self, name: str, *key: str) -> None:
        self._total[key] += 1
        own = self._own(name)
        if own is not None:
            own[key] += 1

    def _own(self, name: str) -> Counter[tuple[str, ...]] | None:
        own = self._by_name.get(name)
        if own is None and len(self._by_name) < self._most_names:
            own = self._by_name[name] = Counter()
        return own

    def metrics(self, shown: Sequence[CredentialView], *, labelled: bool) -> Iterator[Metric]:
        """Present the counts, for each credential shown or for all together."""
        yield from self._labelled(shown) if labelled else self._summed()
        total = self._total
        failures = CounterMetricFamily(
            "rotator_failures", "What did not work, by operation and reason.", labels=["operation", "reason"]
        )
        for operation in _OPERATIONS:
            for reason in Reason:
                failures.add_metric([operation, reason], total["failures", operation, reason])
        yield failures
        refreshes = CounterMetricFamily(
            "rotator_refreshes",
            "Refreshes by how they went. The failures of one credential in a row count as one.",
            labels=["outcome"],
        )
        for done in _DONE:
            refreshes.add_metric([done], total["refreshes", done])
        yield refreshes
        saves = CounterMetricFamily("rotator_saves", "Attempts to make a state durable.", labels=["outcome"])
        for done in _DONE:
            saves.add_metric([done], total["saves", done])
        yield saves
        odd = CounterMetricFamily(
            "rotator_normalised_fields",
            "Odd fields of granted answers, of logins too, that were put right.",
            labels=["oddity"],
        )
        for oddity in Oddity:
            odd.add_metric([oddity], total["oddities", oddity])
        yield odd
        yield CounterMetricFamily("rotator_bugs", "Errors in rotator itself; please report them.", total["bug",])
        yield CounterMetricFamily(
            "rotator_clock_suspicions",
            "Credentials that were found, at start, to have been saved later than the clock showed.",
            total["clock_suspect",],
        )
        yield self._refresh_seconds.metric(
            "rotator_refresh_duration_seconds", "From sending a token request to its end."
        )
        yield self._save_seconds.metric("rotator_save_duration_seconds", "Time to make a state durable.")

    def _labelled(self, shown: Sequence[CredentialView]) -> Iterator[Metric]:
        attempts = CounterMetricFamily(*_ATTEMPTS, labels=["credential", "outcome"])
        publishes = CounterMetricFamily(*_PUBLISHES, labels=["credential", "sink", "outcome"])
        nothing: Counter[tuple[str, ...]] = Counter()
        for view in shown:
            own = self._by_name.get(view.name, nothing)
            for outcome in OUTCOMES:
                attempts.add_metric([view.name, outcome], own["attempts", outcome])
            for output in view.outputs:
                for done in _DONE:
                    publishes.add_metric([view.name, output.name, done], own["publishes", output.name, done])
        yield attempts
        yield publishes

    def _summed(self) -> Iterator[Metric]:
        attempts = CounterMetricFamily(*_ATTEMPTS, labels=["outcome"])
        for outcome in OUTCOMES:
            attempts.add_metric([outcome], self._total["attempts", outcome])
        yield attempts
        publishes = CounterMetricFamily(*_PUBLISHES, labels=["outcome"])
        for done in _DONE:
            publishes.add_metric([done], self._total["publishes", done])
        yield publishes


def _done(problem: Problem | None) -> str:
    return "failure" if problem else "success"


class _Histogram:
    """Durations in seconds. The tally's lock guards it."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def metric(self, name: str, text: str) -> Metric:
        below, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), tuple(self._counts), strict=True):
            below += count
            buckets.append((bound, float(below)))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self._sum)
