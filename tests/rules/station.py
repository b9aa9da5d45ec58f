"""A daemon in a world of its own time, and Prometheus's look at it every half minute.

The line, the state machine and the metrics are the real ones; server, disk and outputs fail when a script says so. What
the scrapes saw becomes the input series of `promtool test rules`.
"""

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from rotator.adapters.metrics import Metrics
from rotator.core.model import Answer, Fingerprinter, Grant, Reason, RotationPolicy, TokenRequest, TokenSet, Wait
from rotator.core.schedule import SinkRef
from rotator.core.standing import CredentialView, shifted
from rotator.core.state import CredentialState
from rotator.credential import Credential, Plan
from rotator.ports import Counts, Loaded, Problem
from rotator.rotate import Rotator
from tests.fakes import FixedClock, MemorySink, MemoryStore
from tests.samples import AT
from tests.world import ModelServer

SCRAPE: Final = 30.0
_TARGET: Final = {"job": "rotator", "instance": "host:9774"}
_STANDS_STILL: Final = 3600.0
FULL: Final = Problem(Reason.NO_SPACE, "the disk is full; make room")
Fault = Callable[[str, float], Answer]


class _Store(MemoryStore):
    problem: Problem | None = None

    def load(self, name: str) -> Loaded | Problem:
        return self.problem or super().load(name)

    def save(self, name: str, state: CredentialState) -> Problem | None:
        return self.problem or super().save(name, state)


class _Sink(MemorySink):
    problem: Problem | None = None

    def publish(self, tokens: TokenSet) -> Problem | None:
        return self.problem or super().publish(tokens)


class Station:
    """Some credentials of one server, watched. Everything a script may break is a public attribute."""

    def __init__(self, *names: str, policy: RotationPolicy, threshold: int, server: ModelServer | None = None) -> None:
        self.clock = FixedClock(AT)
        self.server = server or ModelServer()
        self.fault: Fault | None = None
        """What becomes of each request, instead of an answer."""
        self.store = _Store()
        self.sink = _Sink("/run/rotator/token")
        self.is_up = True
        self.is_known = True
        """Whether Prometheus is told of the target at all."""
        self.works = True
        """Whether anybody does what is due."""
        self.shown = Counts(
            started_at=AT - 86_400, sweep_lag_seconds=0.0, under_way=0, clock_jumps_forward=0, clock_jumps_backward=0,
            reloads_good=0, reloads_bad=0, last_reload_good=True, last_reload_at=AT - 86_400,
        )  # fmt: skip
        self.metrics = Metrics(self, threshold, self.clock)  # type: ignore[arg-type] # metrics ask for views and counts
        self._rotator = Rotator(self.store, self.clock, self.metrics, Fingerprinter(b"key"), threading.Event())
        self.credentials = [Credential(name, self._plan(policy)) for name in names]
        self._due = dict.fromkeys(names, AT)
        self._scrape_at = AT
        self._scrapes = 0
        self.series: dict[str, list[float | None]] = {}

    def _plan(self, policy: RotationPolicy) -> Plan:
        return Plan(
            policy=policy, grant=Grant.REFRESH_TOKEN, scope="", extra=lambda: (), endpoint=self, server="server:443",
            sinks=(self.sink,), sink_refs=(SinkRef(self.sink.name),),
        )  # fmt: skip

    # -- what the line and the metrics ask for ---------------------------------------------------------

    def request(self, request: TokenRequest, secrets: tuple[str, ...]) -> Answer:
        """Implement `TokenEndpoint`."""
        token, now = dict(request.fields)["refresh_token"], self.clock.now()
        return self.fault(token, now) if self.fault else self.server.refresh(token, now)

    def views(self) -> Iterator[CredentialView]:
        """Show every credential, as the daemon does."""
        now = self.clock.now()
        for credential in self.credentials:
            yield shifted(credential.view(lambda _: "-", now), self.clock.wall(now) - now)  # type: ignore[arg-type]

    def counts(self) -> Counts:
        """Return what a script says the daemon counts."""
        return self.shown

    # -- what a script does ----------------------------------------------------------------------------

    def login(self, refresh_lifetime: float | None = None, age: float = 0.0) -> None:
        """Log every credential in, as if so long ago."""
        began = self.clock.now() - age
        for credential in self.credentials:
            issued = self.server.login()
            tokens = replace(
                issued, obtained_at=began, expires_at=began + self.server.lifetime, refresh_obtained_at=began,
                refresh_expires_at=None if refresh_lifetime is None else began + refresh_lifetime,
            )  # fmt: skip
            self._rotator.intake.adopt(credential, tokens)

    def tell(self, **changes: object) -> None:
        """Change what the daemon counts."""
        self.shown = replace(self.shown, **changes)  # type: ignore[arg-type]

    def run(self, seconds: float) -> None:
        """Let time pass: everything happens at its time, and Prometheus looks."""
        end = self.clock.at + seconds
        while True:
            due = min(self._due.values()) if self.works else math.inf
            at = min(due, self._scrape_at)
            if at >= end:
                self.clock.at = end
                return
            self.clock.at = max(self.clock.at, at)
            if due <= self._scrape_at:
                self._step()
            else:
                self._scrape()

    def _step(self) -> None:
        for credential in self.credentials:
            if self._due[credential.name] <= self.clock.at:
                outcome = self._rotator.step(credential)
                self._due[credential.name] = outcome.until if isinstance(outcome, Wait) else math.inf

    def wake(self) -> None:
        """Have every credential looked at, as a login or a changed file does."""
        self._due = dict.fromkeys(self._due, self.clock.at)

    # -- what Prometheus sees --------------------------------------------------------------------------

    def _scrape(self) -> None:
        seen: dict[str, float] = {}
        if self.is_known:
            seen[_series("up", {})] = float(self.is_up)
        for family in self.metrics.families() if self.is_up and self.is_known else ():
            if family.name.startswith("rotator_") and family.type != "histogram":
                for sample in family.samples:
                    instant = sample.name.endswith("_timestamp_seconds")
                    seen[_series(sample.name, sample.labels)] = sample.value - AT if instant else sample.value
        for name in self.series.keys() | seen.keys():
            values = self.series.setdefault(name, [None] * self._scrapes)
            values.append(seen.get(name))
        self._scrapes += 1
        self._scrape_at += SCRAPE

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.clock.at - AT

    def input_series(self) -> list[dict[str, str]]:
        """Return what promtool is to play: a series that vanishes from a scrape is stale at once."""
        return [{"series": name, "values": _values(values)} for name, values in self.series.items()]


def _series(name: str, labels: dict[str, str]) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in (_TARGET | labels).items())
    return f"{name}{{{pairs}}}"


def _values(values: list[float | None]) -> str:
    words: list[str] = []
    before: str | None = None
    for value in values:
        word = f"{value:.9g}" if value is not None else "stale" if before not in (None, "stale", "_") else "_"
        words.append(word)
        before = word
    return " ".join(words)
