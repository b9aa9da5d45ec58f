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
from tests.model_server import ModelServer
from tests.samples import AT

_TARGET: Final = {"job": "rotator", "instance": "host:9774"}
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

    def __init__(
        self, *names: str, policy: RotationPolicy, threshold: int, scrape_interval: float = 30.0, history: float = 0.0
    ) -> None:
        self.scrape_interval = scrape_interval
        self.history = history
        """Seconds before the beginning in which all was as in the beginning: Prometheus has watched for so long."""
        self.clock = FixedClock(AT)
        self.server = ModelServer()
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
        self._policy = policy
        self._names = names
        self.fault_at: float | None = None
        self.cured_at: float | None = None
        self.ends_at: float | None = None
        """When the fault set in, was mended, and would have cost something: seconds since the beginning."""
        self.restart()
        self._scrape_at = AT
        self._scrapes = 0
        self.series: dict[str, list[float | None]] = {}

    def restart(self) -> None:
        """Begin a new life of the daemon over the same disk."""
        self.rotator = Rotator(self.store, self.clock, self.metrics, Fingerprinter(b"key"), threading.Event())
        self.credentials = [Credential(name, self._plan()) for name in self._names]
        self.wake()

    def _plan(self) -> Plan:
        return Plan(
            policy=self._policy, grant=Grant.REFRESH_TOKEN, scope="", extra=lambda: (), endpoint=self, server="server",
            sinks=(self.sink,), sink_refs=(SinkRef(self.sink.name),),
        )  # fmt: skip

    # -- what the line and the metrics ask for ---------------------------------------------------------

    def identity(self) -> str:
        """Implement `TokenEndpoint`."""
        return ""

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

    def login(self, refresh_lifetime: float | None = None, age: float = 0.0, spread: float = 0.0) -> None:
        """Log every credential in, with a refresh token of that age; `spread`: not at once, but within so long."""
        for number, credential in enumerate(self.credentials):
            at = self.clock.now() - spread * number / len(self.credentials)
            issued = self.server.login()
            tokens = replace(
                issued, obtained_at=at, expires_at=at + self.server.lifetime, refresh_obtained_at=at - age,
                refresh_expires_at=None if refresh_lifetime is None else at - age + refresh_lifetime,
            )  # fmt: skip
            self.rotator.intake.adopt(credential, tokens)
        self.wake()

    def ask(self) -> None:
        """Ask for a rotation of each credential, as `rotator rotate` does."""
        for credential in self.credentials:
            self.rotator.ask(credential)
        self.wake()

    def breaks(self, ends_after: float | None = None) -> None:
        """Note that the fault sets in now; what it endangers ends so many seconds later."""
        self.fault_at = self.elapsed
        self.ends_at = None if ends_after is None else self.elapsed + ends_after

    def mended(self) -> None:
        """Note that the fault is mended now."""
        self.cured_at = self.elapsed

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
                outcome = self.rotator.step(credential)
                self._due[credential.name] = outcome.until if isinstance(outcome, Wait) else math.inf

    def wake(self) -> None:
        """Have every credential looked at, as a login or a changed file does."""
        self._due = dict.fromkeys(self._names, self.clock.at)

    # -- what Prometheus sees --------------------------------------------------------------------------

    def _scrape(self) -> None:
        seen: dict[str, float] = {}
        if self.is_known:
            seen[_series("up", {})] = float(self.is_up)
        for family in self.metrics.families() if self.is_up and self.is_known else ():
            if family.name.startswith("rotator_") and family.type != "histogram":
                for sample in family.samples:
                    shift = self.history - AT if sample.name.endswith("_timestamp_seconds") else 0.0
                    seen[_series(sample.name, sample.labels)] = sample.value + shift
        for name in self.series.keys() | seen.keys():
            values = self.series.setdefault(name, [None] * self._scrapes)
            values.append(seen.get(name))
        self._scrapes += 1
        self._scrape_at += self.scrape_interval

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.clock.at - AT

    def input_series(self) -> list[dict[str, str]]:
        """Return what promtool is to play: a series that vanishes from a scrape is stale at once."""
        return [
            {"series": name, "values": self._before(name, values) + _values(values)}
            for name, values in self.series.items()
        ]

    def _before(self, name: str, values: list[float | None]) -> str:
        """Return the history of a series: a counter grew as it did in the run until the fault, all else stood still."""
        count = int(self.history / self.scrape_interval)
        first = values[0]
        if not count or first is None:
            return f"_x{count} " if count else ""
        scrapes = max(1, int((self.fault_at or 0.0) / self.scrape_interval) - 1)
        counts = name.partition("{")[0].endswith("_total")
        each = ((values[scrapes] or 0.0) - first) / scrapes if counts else 0.0
        return f"{first - each * count:.9g}+{each:.9g}x{count - 1} "


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
