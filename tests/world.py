"""A small world for random walks: a model authorization server, and ports that break down at a chosen call."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rotator.core.model import (
    Answer,
    Fingerprinter,
    Grant,
    Granted,
    Reason,
    Refused,
    RotationPolicy,
    TokenRequest,
    TokenSet,
    Unavailable,
)
from rotator.core.schedule import SinkRef
from rotator.core.state import CredentialState, Status
from rotator.credential import Credential, Plan
from rotator.ports import Loaded, Problem
from rotator.rotate import Rotator
from tests.fakes import FixedClock, MemorySink, MemoryStore
from tests.line import RecordingObserver
from tests.samples import AT
from tests.secrets_scan import planted

NAME: Final = "pair"
FULL: Final = Problem(Reason.NO_SPACE, "/state is full; make room")


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Issued:
    """A refresh token as the server knows it."""

    family: int
    spent_at: float | None = None


@dataclass
class ModelServer:
    """An authorization server in few lines. Its clock is the true one."""

    grace: float = 10.0
    rotates: bool = True
    lifetime: int = 3600
    disabled: bool = False
    issued: dict[str, Issued] = field(default_factory=dict)
    revoked: set[int] = field(default_factory=set)
    reuses: int = 0
    count: int = 0

    def login(self) -> TokenSet:
        """Begin a new family of tokens."""
        self.count += 1
        token = planted(f"login-{self.count}")
        self.issued[token] = Issued(self.count)
        access = planted(f"access-{self.count}")
        return TokenSet(0, access, token, None, "Bearer", "", 0.0, 0.0, 0.0, None)

    def refresh(self, token: str, now: float) -> Answer:
        """Answer a refresh: reuse outside the grace window revokes the family."""
        known = self.issued.get(token)
        if self.disabled or known is None or known.family in self.revoked:
            return Refused(Reason.INVALID_GRANT, 400)
        if known.spent_at is not None and now > known.spent_at + self.grace:
            self.revoked.add(known.family)
            self.reuses += 1
            return Refused(Reason.TOKEN_REUSE, 400)
        self.count += 1
        fields = {"expires_in": self.lifetime}
        if not self.rotates:
            return Granted(planted(f"access-{self.count}"), None, fields)
        if known.spent_at is None:
            known.spent_at = now
        new = planted(f"refresh-{self.count}")
        self.issued[new] = Issued(known.family)
        return Granted(planted(f"access-{self.count}"), new, fields)

    def alive(self, token: str | None) -> bool:
        """Tell whether a refresh token would be granted for as long as anybody likes."""
        known = self.issued.get(token or "")
        return known is not None and known.family not in self.revoked and known.spent_at is None


class World:
    """One credential, one server, and a process that may die at any call to a port.

    What must hold at each call is asserted here: a broken promise stops the walk where it happens.
    """

    def __init__(self, server: ModelServer, policy: RotationPolicy) -> None:
        self.server = server
        self.policy = policy
        self.true = AT
        self.error = 0.0
        self.disk: dict[str, str] = {}
        self.calls = 0
        self.crash_at: int | None = None
        self.mishap: str = ""
        self.disk_full = False
        self.sink_full = False
        self.excused = False
        self.received: str | None = None
        self.starts: list[float] = []
        self.published: list[TokenSet] = []
        self.seed = ""
        self.stamp = 0
        self.hangs: Callable[[], None] | None = None
        self.reopen()

    def reopen(self, error: float = 0.0) -> None:
        """Begin the next life of the process, with its clock so many seconds ahead of the true one."""
        self.error = error
        self.clock = FixedClock(self.true + error)
        self.store = WorldStore(self)
        self.sink = WorldSink(self)
        self.observer = RecordingObserver()
        self.rotator = Rotator(self.store, self.clock, self.observer, Fingerprinter(b"key"), threading.Event())
        self.credential = Credential(NAME, self.plan())

    def plan(self) -> Plan:
        """Return the configuration as it is now."""
        return Plan(
            policy=self.policy,
            grant=Grant.REFRESH_TOKEN,
            scope="",
            extra=lambda: (),
            endpoint=self,
            server="server:443",
            sinks=(self.sink,),
            sink_refs=(SinkRef("file"),),
            seed=lambda: self.seed or Problem(Reason.BAD_INPUT, "there is no seed"),
            stamp=lambda: self.stamp,
        )

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in truth and on the clock."""
        self.true += seconds
        self.clock.at += seconds

    def touch(self) -> None:
        """Count a call, and die if it is the chosen one."""
        self.calls += 1
        if self.crash_at is not None and self.calls >= self.crash_at:
            self.crash_at = None
            raise Crash

    def step(self) -> bool:
        """Step once; False if the process died in it."""
        try:
            self.rotator.step(self.credential)
        except Crash:
            return False
        return True

    def step_for(self, seconds: float) -> None:
        """Step each second for so long."""
        for _ in range(int(seconds)):
            self.pass_time(1)
            self.step()

    def login(self) -> None:
        """Log in, as a person does."""
        tokens = self.server.login()
        now = self.clock.now()
        issued = TokenSet(
            0, tokens.access_token, tokens.refresh_token, None, "Bearer", "", now, now + self.server.lifetime, now, None
        )
        self.received = tokens.refresh_token
        self.excused = self.server.disabled
        self.rotator.intake.adopt(self.credential, issued)

    def identity(self) -> str:
        """Implement `TokenEndpoint`."""
        return ""

    def request(self, request: TokenRequest, secrets: tuple[str, ...]) -> Answer:
        """Implement `TokenEndpoint`: pass the request to the server, as well as the network lets it."""
        sent = dict(request.fields)["refresh_token"]
        durable = self.durable()
        assert durable is not None
        assert durable.refresh_started_at is not None, "a request without a durable mark"
        assert durable.tokens is not None
        assert durable.tokens.refresh_token == sent, "something else is sent than what is newest and durable"
        self.touch()
        self.starts.append(self.true)
        mishap, self.mishap = self.mishap, ""
        undelivered: dict[str, Answer] = {
            "refused connection": Unavailable(Reason.CONNECT, delivered=False),
            "no name": Unavailable(Reason.DNS, delivered=False),
            "busy": Unavailable(Reason.RATE_LIMITED, delivered=False, retry_after=30),
            "lost before": Unavailable(Reason.CONNECTION_LOST, delivered=True),
            "5xx before": Unavailable(Reason.HTTP_5XX, delivered=True),
            "invalid_client": Refused(Reason.INVALID_CLIENT, 401),
        }
        if mishap in undelivered:
            return undelivered[mishap]
        answer = self.server.refresh(sent, self.true)
        spent = isinstance(answer, Granted) and self.server.rotates
        if mishap:  # lost after, 5xx after
            self.excused = self.excused or spent
            reason = Reason.HTTP_5XX if mishap == "5xx after" else Reason.CONNECTION_LOST
            return Unavailable(reason, delivered=True)
        try:
            hangs, self.hangs = self.hangs, None
            if hangs is not None:
                hangs()
            self.touch()
        except Crash:
            self.excused = self.excused or spent
            raise
        if isinstance(answer, Granted) and answer.refresh_token:
            late = self.credential.state is not None and self.credential.state.refresh_started_at is None
            self.received = self.received if late else answer.refresh_token
        return answer

    def durable(self) -> CredentialState | None:
        """Return what is on disk."""
        loaded = MemoryStore(self.disk).load(NAME)
        assert isinstance(loaded, Loaded)
        return loaded.state

    def newest(self) -> tuple[str | None, str | None]:
        """Return the newest refresh token in memory and on disk."""
        memory, disk = self.credential.state, self.durable()
        return (
            memory.tokens.refresh_token if memory and memory.tokens else None,
            disk.tokens.refresh_token if disk and disk.tokens else None,
        )

    def status(self) -> Status:
        """Return what is believed of the grant."""
        state = self.credential.state or self.durable()
        return state.status if state else Status.OK

    def standstill(self) -> tuple[object, ...]:
        """Return what a failed walk wants to show."""
        return self.newest(), self.status(), self.server


class WorldStore(MemoryStore):
    """A store whose process may die before or after a save, and whose disk may be full."""

    def __init__(self, world: World) -> None:
        super().__init__(world.disk)
        self.world = world

    def save(self, name: str, state: CredentialState) -> Problem | None:
        """Save, unless the disk is full or the process dies."""
        self.world.touch()
        problem = FULL if self.world.disk_full else super().save(name, state)
        self.world.touch()
        return problem


class WorldSink(MemorySink):
    """An output that checks what it is given."""

    def __init__(self, world: World) -> None:
        super().__init__("file")
        self.world = world

    def publish(self, tokens: TokenSet) -> Problem | None:
        """Publish, unless the disk is full or the process dies."""
        world = self.world
        world.touch()
        assert tokens.access_token, "an empty token is published"
        if world.published:
            good = world.published[-1].expires_at > world.clock.now()
            assert tokens.expires_at > world.clock.now() or not good, "a valid token is withdrawn"
        if world.sink_full:
            return FULL
        world.published.append(tokens)
        world.touch()
        return super().publish(tokens)
