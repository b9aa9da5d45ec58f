"""What holds of all credentials together: few series, however many credentials there are."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from rotator.core.standing import CredentialView, Standing

_FRACTIONS: Final = (0.0, 0.01, 0.1, 0.5)


class Fleet:
    """Takes in one view after the other and keeps none."""

    def __init__(self, now: float) -> None:
        """Judge by what the daemon's clock shows: the instant `now`."""
        self._now = now
        self.size = 0
        self._standings: Counter[str] = Counter()
        self._marks: Counter[str] = Counter()
        self._overdue = 0.0
        self._access: list[float] = []
        self._refresh: list[float] = []

    def add(self, view: CredentialView) -> None:
        """Take one credential into account."""
        self.size += 1
        self._standings[view.standing] += 1
        self._marks["unsaved"] += view.unsaved
        self._marks["fuse_blown"] += view.fuse_blown
        self._marks["clock_suspect"] += view.clock_suspect
        for output in view.outputs:
            self._marks["behind"] += not output.current
            self._marks["failing"] += output.failures > 0
        if view.next_at is not None:
            self._overdue = max(self._overdue, self._now - view.next_at)
        if view.expires_at is not None:
            self._access.append(view.expires_at - self._now)
        if view.refresh_expires_at is not None:
            self._refresh.append(view.refresh_expires_at - self._now)

    def metrics(self) -> Iterator[Metric]:
        """Present what was taken in."""
        standings = GaugeMetricFamily("rotator_fleet_credentials", "Credentials in each state.", labels=["state"])
        for standing in Standing:
            standings.add_metric([standing], self._standings[standing])
        yield standings
        yield from _distribution("access_token", self._access)
        yield from _distribution("refresh_token", self._refresh)
        for name, text, mark in (
            ("unsaved_pairs", "Token sets that only memory holds: they are lost if the process ends.", "unsaved"),
            ("fuses_blown", "Credentials whose token requests came too thick.", "fuse_blown"),
            ("clock_suspects", "Credentials that were saved later than the clock shows now.", "clock_suspect"),
            ("outputs_behind", "Outputs that do not hold the newest token.", "behind"),
            ("outputs_failing", "Outputs whose last attempt failed.", "failing"),
        ):
            yield GaugeMetricFamily(f"rotator_fleet_{name}", text, self._marks[mark])
        yield GaugeMetricFamily("rotator_fleet_overdue_seconds", "How late the latest token request is.", self._overdue)


def _distribution(what: str, remaining: list[float]) -> Iterator[Metric]:
    words = what.replace("_", " ")
    left = GaugeMetricFamily(
        f"rotator_fleet_{what}_remaining_seconds",
        f"Seconds in which this fraction of all {words}s will be over; 0: the first of them.",
        labels=["fraction"],
    )
    remaining.sort()
    if remaining:
        for fraction in _FRACTIONS:
            left.add_metric([str(fraction)], remaining[int(fraction * (len(remaining) - 1))])
    yield left
    expired = sum(seconds <= 0 for seconds in remaining)
    yield GaugeMetricFamily(f"rotator_fleet_{what}s_expired", f"Credentials whose {words} is over.", expired)
