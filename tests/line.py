"""A whole line over fakes: one credential, one store, one scripted server, one journal of what happened when."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from rotator.core.model import Answer, Fingerprinter, Grant, Halt, RotationPolicy, TokenRequest, TokenSet, Wait
from rotator.core.schedule import SinkRef
from rotator.core.state import CredentialState
from rotator.credential import Credential, Plan
from rotator.ports import Event, Problem, Sink, TokenEndpoint
from rotator.rotate import Rotator
from tests.fakes import FixedClock, MemorySink, MemoryStore
from tests.samples import AT

NAME = "pair"
E = TypeVar("E")
Reply = Answer | Callable[[], Answer]
Journal = list[tuple[str, object]]


class ScriptedEndpoint:
    """A `rotator.ports.TokenEndpoint` that gives the answers it was told to, in order; a callable makes its own."""

    def __init__(self, *answers: Reply, journal: Journal | None = None) -> None:
        self.answers: deque[Reply] = deque(answers)
        self.requests: list[dict[str, str]] = []
        self.journal = [] if journal is None else journal
        self.client = "client"
        self.refused_waits: list[float] = []

    def identity(self) -> str:
        """Return as whom it asks."""
        return self.client

    def request(self, request: TokenRequest, secrets: tuple[str, ...]) -> Answer:
        """Note the form and give the next answer."""
        self.requests.append(dict(request.fields))
        self.refused_waits.append(request.refused_wait)
        self.journal.append(("request", dict(request.fields).get("refresh_token")))
        answer = self.answers.popleft()
        return answer() if callable(answer) else answer


class JournalStore(MemoryStore):
    """A store that notes each save, and whether it came about."""

    def __init__(self, disk: dict[str, str] | None, journal: Journal) -> None:
        super().__init__(disk)
        self.journal = journal
        self.offered = 0

    def save(self, name: str, state: CredentialState) -> Problem | None:
        """Save and note it."""
        self.offered = state.generation
        problem = super().save(name, state)
        title = "reserve" if state.refresh_started_at is not None else "save"
        self.journal.append((title if problem is None else f"{title} failed", state.generation))
        return problem


class JournalSink(MemorySink):
    """A sink that notes each delivery, and whether it came about."""

    def __init__(self, name: str, journal: Journal) -> None:
        super().__init__(name)
        self.journal = journal

    def publish(self, tokens: TokenSet) -> Problem | None:
        """Publish and note it."""
        problem = super().publish(tokens)
        self.journal.append(("publish" if problem is None else "publish failed", self.name))
        return problem


class Fields(Mapping[str, object]):
    """An answer's other fields; `judging` runs whenever one of them is looked at."""

    def __init__(self, fields: dict[str, object], judging: Callable[[], None]) -> None:
        self.fields = fields
        self.judging = judging

    def __getitem__(self, key: str) -> object:
        return self.fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def get(self, key: str, default: object = None) -> object:
        """Look at one field."""
        self.judging()
        return self.fields.get(key, default)


class RecordingObserver:
    """A `rotator.ports.Observer` that keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


class Line:
    """One life of a process with one credential. `again()` is the next life over the same disk."""

    def __init__(
        self,
        *answers: Reply,
        disk: dict[str, str] | None = None,
        state: CredentialState | None = None,
        policy: RotationPolicy | None = None,
        sinks: tuple[str, ...] = ("file",),
        hooks: tuple[str, ...] = (),
        seed: Callable[[], str | Problem] | None = None,
        stamp: Callable[[], object] | None = None,
        grant: Grant = Grant.REFRESH_TOKEN,
        endpoint: TokenEndpoint | None = None,
        at: float = AT,
    ) -> None:
        self.journal: Journal = []
        self.store = JournalStore(disk, self.journal)
        if state is not None:
            self.store.save(NAME, state)
            self.journal.clear()
            self.store.saved.clear()
        self.clock = FixedClock(at)
        self.endpoint = ScriptedEndpoint(*answers, journal=self.journal)
        self.observer = RecordingObserver()
        self.stopping = threading.Event()
        self.sinks = {name: JournalSink(name, self.journal) for name in (*sinks, *hooks)}
        self.rotator = Rotator(self.store, self.clock, self.observer, Fingerprinter(b"key"), self.stopping)
        outputs: tuple[Sink, ...] = tuple(self.sinks.values())
        self.credential = Credential(
            NAME,
            Plan(
                policy=policy or RotationPolicy(jitter=0.0),
                grant=grant,
                scope="",
                extra=lambda: (),
                endpoint=endpoint or self.endpoint,
                server="server:443",
                sinks=outputs,
                sink_refs=tuple(SinkRef(name, is_hook=name in hooks) for name in self.sinks),
                seed=seed,
                stamp=stamp,
            ),
        )

    def again(self, *answers: Reply, at: float | None = None) -> "Line":
        """Return the next life of the process: same disk, same plan, nothing else left."""
        plan = self.credential.plan
        line = Line(*answers, disk=self.store.disk, at=self.clock.at if at is None else at)
        line.credential.plan = Plan(
            **{name: getattr(plan, name) for name in Plan.__slots__ if name not in ("endpoint", "sinks", "sink_refs")},
            endpoint=line.endpoint,
            sinks=tuple(line.sinks.values()),
            sink_refs=tuple(SinkRef(name) for name in line.sinks),
        )
        return line

    def step(self, after: float = 0.0) -> Wait | Halt:
        """Step once, so many seconds later."""
        self.clock.at += after
        return self.rotator.step(self.credential)

    @property
    def state(self) -> CredentialState:
        """Return the state in memory."""
        assert self.credential.state is not None
        return self.credential.state

    @property
    def durable(self) -> CredentialState:
        """Return the state on disk."""
        loaded = MemoryStore(self.store.disk).load(NAME)
        assert not isinstance(loaded, Problem)
        assert loaded.state is not None
        return loaded.state

    @property
    def sent(self) -> list[str]:
        """Return the refresh tokens that were sent, in order."""
        return [request["refresh_token"] for request in self.endpoint.requests]

    def refresh_tokens(self) -> tuple[str | None, str | None]:
        """Return the newest refresh token in memory and on disk."""
        memory, disk = self.state.tokens, self.durable.tokens
        return memory.refresh_token if memory else None, disk.refresh_token if disk else None
