"""What holds of all credentials together: few series, however many credentials there are."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from rotator.core.model import DAY
from rotator.core.standing import NEED_A_PERSON, CredentialView, Standing

_FRACTIONS: Final = (0.0, 0.01, 0.1, 0.5)

# What the alert rules say of each credential where each has series of its own (deploy/prometheus/rules.yaml).
_LAST_PART: Final = 0.15  # of an access token's lifetime: less than half of what is left when a refresh falls due
_UNKNOWN: Final = (Standing.STARTING, Standing.STATE_UNREADABLE)
_LATE: Final = 60.0  # seconds after which a request that is due is as good as failed
_REFRESH_TOKEN_WARNINGS: Final = (("7d", 7 * DAY, 0.3), ("2d", 2 * DAY, 0.1))  # no more than this share of its life

_MARKS: Final = (
    (
        "credentials_without_token",
        "Credentials without a valid access token, except those that need a login or whose state is not read.",
    ),
    (
        "access_tokens_expiring",
        "Credentials whose refresh fails, or is a minute late, in the last 15 % of the access token's lifetime.",
    ),
    ("unsaved_pairs", "Token sets that only memory holds: they are lost if the process ends."),
    ("saves_failing", "Credentials whose state could not be saved at the last try: no refresh is sent."),
    ("fuses_blown", "Credentials whose token requests came too thick."),
    ("clock_suspects", "Credentials that were saved later than the clock shows now."),
    ("scopes_changed", "Credentials that were granted another scope than asked for."),
    ("outputs_behind", "Outputs that do not hold the newest token."),
    ("outputs_failing", "Outputs whose last attempt failed."),
    ("outputs_expiring", "Failing outputs that hold a token in the last 15 % of its lifetime, or past it."),
)


class Fleet:
    """Takes in one view after the other and keeps none."""

    def __init__(self, now: float) -> None:
        """Judge by what the daemon's clock shows: the instant `now`."""
        self._now = now
        self.size = 0
        self._standings: Counter[str] = Counter()
        self._marks: Counter[str] = Counter()
        self._ending: Counter[str] = Counter()
        self._overdue = 0.0
        self._access: list[float] = []
        self._refresh: list[float] = []

    def add(self, view: CredentialView) -> None:
        """Take one credential into account."""
        self.size += 1
        self._standings[view.standing] += 1
        marks = self._marks
        marks["unsaved_pairs"] += view.unsaved
        marks["saves_failing"] += view.save_failing
        marks["fuses_blown"] += view.fuse_blown
        marks["clock_suspects"] += view.clock_suspect
        marks["scopes_changed"] += view.scope_changed
        for output in view.outputs:
            marks["outputs_behind"] += not output.current
            if output.failures:
                marks["outputs_failing"] += 1
                marks["outputs_expiring"] += not output.current and self._in_last_part(view, output.expires_at)
        if view.next_at is not None:
            self._overdue = max(self._overdue, self._now - view.next_at)
        if view.expires_at is not None:
            self._access.append(view.expires_at - self._now)
        if view.refresh_expires_at is not None:
            self._refresh.append(view.refresh_expires_at - self._now)
        if view.standing not in NEED_A_PERSON:  # of those there is one thing to say, and the state says it
            self._add_ends(view)

    def _add_ends(self, view: CredentialView) -> None:
        if view.expires_at is None or view.expires_at <= self._now:
            self._marks["credentials_without_token"] += view.standing not in _UNKNOWN
        late = view.next_at is not None and self._now - view.next_at > _LATE
        if (view.reason is not None or late) and self._in_last_part(view, view.expires_at):
            self._marks["access_tokens_expiring"] += 1
        if view.refresh_expires_at is not None and view.refresh_life_began_at is not None:
            left = view.refresh_expires_at - self._now
            life = view.refresh_expires_at - view.refresh_life_began_at
            for within, limit, share in _REFRESH_TOKEN_WARNINGS:
                self._ending[within] += left < min(limit, life * share)

    def _in_last_part(self, view: CredentialView, expires_at: float | None) -> bool:
        if view.issued_at is None or view.expires_at is None or expires_at is None:
            return False
        return expires_at - self._now < (view.expires_at - view.issued_at) * _LAST_PART

    def metrics(self) -> Iterator[Metric]:
        """Present what was taken in."""
        standings = GaugeMetricFamily("rotator_fleet_credentials", "Credentials in each state.", labels=["state"])
        for standing in Standing:
            standings.add_metric([standing], self._standings[standing])
        yield standings
        yield from _distribution("access_token", self._access)
        yield from _distribution("refresh_token", self._refresh)
        ending = GaugeMetricFamily(
            "rotator_fleet_refresh_tokens_expiring",
            "Credentials whose refresh token is over within this time, or within the last 30 % (2d: 10 %) of its life "
            "if that is shorter. Those that need a login already are not counted.",
            labels=["within"],
        )
        for within, _, _ in _REFRESH_TOKEN_WARNINGS:
            ending.add_metric([within], self._ending[within])
        yield ending
        for name, text in _MARKS:
            yield GaugeMetricFamily(f"rotator_fleet_{name}", text, self._marks[name])
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
