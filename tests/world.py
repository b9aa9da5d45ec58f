"""A small world for random walks: a model authorization server, and ports that break down at a chosen call."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Final

from rotator.core.model import (
    HOUR,
    Answer,
    Fingerprinter,
    Grant,
    Granted,
    Halt,
    Reason,
    Refused,
    RotationPolicy,
    TokenRequest,
    TokenSet,
    Unavailable,
    Wait,
)
from rotator.core.record import to_record
from rotator.core.schedule import SHORTEST_GAP, SinkRef
from rotator.core.standing import CredentialView
from rotator.core.state import CredentialState, Status
from rotator.credential import Credential, Plan
from rotator.ports import Loaded, Problem
from rotator.rotate import Rotator
from tests.fakes import FixedClock, MemorySink, MemoryStore
from tests.line import RecordingObserver
from tests.model_server import ModelServer
from tests.samples import AT

NAME: Final = "pair"
OUTPUTS: Final = ("file", "copy")
FULL: Final = Problem(Reason.NO_SPACE, "/state is full; make room")


class Crash(BaseException):
    """The process dies here."""


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
        self.spill: dict[str, str] | None = None
        self.calls = 0
        self.crash_at: int | None = None
        self.mishap: str = ""
        self.fields: dict[str, object] | None = None
        """What the server's answers say besides the tokens; None: the lifetime."""
        self.disk_full = False
        self.store_fault = ""
        """The next save fails by a bug: "before" or "after" it has written."""
        self.sink_full = False
        self.hook_hangs = False
        self.broken = ""
        self.excused = False
        """The server may no longer know what is stored: a login may be asked for."""
        self.received: str | None = None
        self.starts: list[float] = []
        self.reserved_at: float | None = None
        self.published: list[TokenSet] = []
        self.seed = ""
        self.stamp = 0
        self.before: Callable[[], None] | None = None
        """Happens once, between the next reservation and its request."""
        self.hangs: Callable[[], None] | None = None
        """Happens once, while the next answer is on its way."""
        self.reopen()

    def reopen(self, error: float = 0.0) -> None:
        """Begin the next life of the process, with its clock so many seconds ahead of the true one."""
        if error != self.error:
            self.reserved_at = None
        self.error = error
        self.clock = FixedClock(self.true + error)
        self.store = WorldStore(self)
        self.outputs = tuple(WorldSink(self, name) for name in OUTPUTS)
        self.hook = WorldHook(self)
        self.observer = RecordingObserver()
        self.rotator = Rotator(self.store, self.clock, self.observer, Fingerprinter(b"key"), threading.Event())
        self.hooks: list[Callable[[], None]] = []
        self.rotator.publisher.run_hook = self._run_hook
        self.waiters: list[Future[CredentialView]] = []
        self.begin()

    def begin(self) -> None:
        """Know of the credential nothing but what is durable."""
        self.credential = Credential(NAME, self.plan())
        self.reckon()

    def reckon(self) -> None:
        """Reckon what is lost if memory holds nothing: then the server may not know what is durable."""
        if self.credential.state is None:
            _, disk = self.newest()
            self.received = self.received if self.received == disk else None
            self.excused = self.excused or not self.server.alive(disk) or self.status() is not Status.OK

    def change_disk(self, disk: dict[str, str]) -> None:
        """Put something else in the place of what is stored, as somebody may."""
        self.disk.clear()
        self.disk.update(disk)
        self.reserved_at = None
        self.reckon()

    def plan(self) -> Plan:
        """Return the configuration as it is now."""
        return Plan(
            policy=self.policy,
            grant=Grant.REFRESH_TOKEN,
            scope="",
            extra=lambda: (),
            endpoint=self,
            server="server:443",
            sinks=(self.hook, *self.outputs),
            sink_refs=(SinkRef("hook", is_hook=True), *(SinkRef(name) for name in OUTPUTS)),
            seed=lambda: self.seed or Problem(Reason.BAD_INPUT, "there is no seed"),
            stamp=lambda: self.stamp,
        )

    def reload(self, *, configured: bool = True) -> None:
        """Take the configuration anew, as the roster does."""
        if configured and self.credential.leaving and not self.credential.in_use:
            self.rotator.step(self.credential)  # the agenda still holds the one that has gone
            self.begin()
        self.credential.leaving = not configured
        if configured:
            self.rotator.replan(self.credential, self.plan(), heals=False)

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
            self._step()
        except Crash:
            return False
        return True

    def _step(self) -> Wait | Halt:
        self.credential.busy = True
        outcome = self.rotator.step(self.credential)
        self.credential.busy = False
        self.run_hooks()
        return outcome

    def step_for(self, seconds: float) -> None:
        """Step each second for so long."""
        for _ in range(int(seconds)):
            self.pass_time(1)
            self.step()

    def rest(self, seconds: float) -> None:
        """Let time pass in which nothing happens, and step whenever the line wants to be stepped."""
        end = self.true + seconds
        for _ in range(1000):
            outcome = self._step()
            left = end - self.true
            if left <= 0:
                return
            self.pass_time(max(0.0, min(left, outcome.until - self.clock.at if isinstance(outcome, Wait) else left)))
        raise AssertionError("it wants to be stepped without end")

    def make_peace(self) -> None:
        """End whatever is wrong, and let a day and an hour pass."""
        self.crash_at, self.mishap, self.fields, self.store_fault = None, "", None, ""
        self.disk_full = self.sink_full = self.hook_hangs = self.server.disabled = False
        self.before = self.hangs = None
        self.policy = RotationPolicy(jitter=0.0)
        self.reload()
        self.rest(25 * HOUR)

    def assert_well(self) -> None:
        """Assert that nothing is left to be done, and the newest tokens are everywhere."""
        state = self.credential.state
        assert state is not None
        assert state.tokens is not None
        memory, disk = self.newest()
        assert (state.status, state.trouble, memory) == (Status.OK, None, disk), self.standstill()
        assert self.server.alive(memory), self.standstill()
        assert not self.credential.unsaved
        assert state.tokens.expires_at > self.clock.now(), "the access token is over"
        for sink in (*self.outputs, self.hook):
            assert sink.published[-1] == state.tokens, f"{sink.name} is behind"
        assert all(waiter.done() for waiter in self.waiters), "somebody who asked was not answered"

    def expect(self, holds: bool, promise: str) -> None:
        """Note a promise that is broken towards an output: an exception would pass for an output's bug."""
        self.broken = self.broken if holds else promise

    def _run_hook(self, _credential: Credential, hook: Callable[[], None]) -> None:
        self.hooks.append(hook)
        self.run_hooks()

    def run_hooks(self) -> None:
        """Let the hooks end that were begun, unless they hang."""
        while self.hooks and not self.hook_hangs:
            self.hooks.pop()()

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

    def ask(self) -> None:
        """Ask for a rotation now."""
        self.waiters.append(self.rotator.ask(self.credential))

    def new_seed(self) -> None:
        """Write another seed."""
        self.seed = self.server.login().refresh_token or ""
        self.stamp += 1
        self.received = None  # it counts no longer

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
        last, self.reserved_at = self.reserved_at, durable.refresh_started_at
        assert last is None or self.reserved_at - last >= SHORTEST_GAP, "two requests in one second"
        self._happen("before")
        if request.held_back is not None and (held := request.held_back()) is not None:
            return held
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
        reuses = self.server.reuses
        answer = self.server.refresh(sent, self.true)
        assert self.excused or self.server.reuses == reuses, "a refresh token is presented twice"
        if mishap in ("lost after", "5xx after"):
            self.excused = self.excused or not self.server.alive(sent)
            reason = Reason.HTTP_5XX if mishap == "5xx after" else Reason.CONNECTION_LOST
            return Unavailable(reason, delivered=True)
        self._happen("hangs")
        self.touch()
        if isinstance(answer, Granted):
            answer = self._arrived(answer, sent, mishap)
        return answer

    def _happen(self, when: str) -> None:
        happens = getattr(self, when)
        setattr(self, when, None)
        if happens is not None:
            happens()

    def _arrived(self, answer: Granted, sent: str, mishap: str) -> Granted:
        late = self.credential.state is not None and self.credential.state.refresh_started_at is None
        if not late:
            self.received = answer.refresh_token or self.received
            self.excused = self.server.disabled or not self.server.alive(answer.refresh_token or sent)
        if mishap == "same again" and answer.refresh_token is None:
            answer = replace(answer, refresh_token=sent)
        if mishap == "no access token" and answer.refresh_token is not None:
            answer = replace(answer, access_token="")
        return answer if self.fields is None else replace(answer, raw=self.fields)

    def durable(self) -> CredentialState | None:
        """Return what the next life of the process will find."""
        loaded = WorldStore(self).load(NAME)
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
        return self.newest(), self.status(), self.credential.state, self.server


class WorldStore(MemoryStore):
    """A store whose process may die before or after a save, and whose disk may be full: then it spills, if it may."""

    def __init__(self, world: World) -> None:
        super().__init__(world.disk)
        self.world = world

    def load(self, name: str) -> Loaded | Problem:
        """Read the newer of what is stored and what was spilled."""
        stored, spilled = super().load(name), MemoryStore(self.world.spill).load(name)
        assert isinstance(stored, Loaded)
        assert isinstance(spilled, Loaded)
        newer = spilled.state is not None and _generation(spilled) > _generation(stored)
        return replace(spilled, kept=True) if newer else stored

    def save(self, name: str, state: CredentialState) -> Problem | None:
        """Save, unless the disk is full, the store is at fault or the process dies."""
        world = self.world
        world.touch()
        fault, world.store_fault = world.store_fault, ""
        if fault == "before":
            raise RuntimeError
        problem = self._spill(name, state) if world.disk_full else super().save(name, state)
        if problem is None and world.spill:
            world.spill.clear()
        world.touch()
        if fault:
            raise RuntimeError
        return problem

    def _spill(self, name: str, state: CredentialState) -> Problem:
        if self.world.spill is None:
            return FULL
        self.world.spill[name] = json.dumps(to_record(state))
        return replace(FULL, kept=True)


def _generation(loaded: Loaded) -> int:
    return loaded.state.generation if loaded.state else 0


class WorldSink(MemorySink):
    """An output that checks what it is given."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name)
        self.world = world
        self.failed = False

    def publish(self, tokens: TokenSet) -> Problem | None:
        """Publish, unless the disk is full or the process dies."""
        world = self.world
        world.touch()
        world.expect(bool(tokens.access_token), "an empty token is published")
        if world.published and tokens.lifetime_seconds > 0:
            good = world.published[-1].expires_at > world.clock.now()
            world.expect(tokens.expires_at > world.clock.now() or not good, "a valid token is withdrawn")
        self.failed = world.sink_full and self.name == OUTPUTS[0]
        if self.failed:
            return FULL
        world.published.append(tokens)
        world.touch()
        return super().publish(tokens)


class WorldHook(MemorySink):
    """A hook that looks whether the outputs hold what it is told of, but for those that fail."""

    def __init__(self, world: World) -> None:
        super().__init__("hook")
        self.world = world

    def publish(self, tokens: TokenSet) -> Problem | None:
        """Be told."""
        self.world.touch()
        for sink in self.world.outputs:
            has_it = bool(sink.published) and sink.published[-1].generation == tokens.generation
            self.world.expect(has_it or sink.failed, f"the hook runs before {sink.name} is written")
        self.world.touch()
        return super().publish(tokens)
