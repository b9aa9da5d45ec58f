"""Several replicas of one release over one store, one election and one strict server; time is the test's.

Everything that parts replicas happens inside a token request: a replica that is frozen there lets the others run on
meanwhile. The server forgives nothing: a refresh token that is presented twice is counted, and kills the family.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from rotator.core.model import Answer, Fingerprinter, Grant, Reason, RotationPolicy, TokenRequest, Unavailable
from rotator.core.record import from_record, to_record
from rotator.core.schedule import SinkRef
from rotator.core.state import CredentialState, nearly_over_at
from rotator.credential import Credential, Plan
from rotator.ports import Loaded, Problem
from rotator.share import SharingRotator
from tests.fakes import FixedClock, MemorySink
from tests.line import NAME, RecordingObserver
from tests.samples import AT
from tests.world import Crash, ModelServer

LEASE: float = 20.0
REQUEST: float = 5.0
_AWAY = Problem(Reason.SAVE_FAILED, "the API server is away")


@dataclass
class SharedDisk:
    """What is stored, and its version: the fence."""

    version: int = 0
    text: str = ""

    @property
    def state(self) -> CredentialState | None:
        """Return what is stored."""
        return from_record(json.loads(self.text)) if self.text else None

    def remove(self) -> None:
        """Forget it, as somebody who deletes the Secret."""
        self.text, self.version = "", self.version + 1


class FencedStore:
    """A `rotator.ports.SharedStore` of one credential in memory. `away`: nothing gets through."""

    def __init__(self, disk: SharedDisk) -> None:
        self.disk = disk
        self.seen = -1
        self.away = False
        self.warnings: list[str] = []
        self.save_allowance = 2.0
        self.loads = 0

    def load(self, name: str) -> Loaded | Problem:
        """Return what is stored; it may be saved over from now on."""
        loaded = self.look(name)
        if isinstance(loaded, Loaded):
            self.seen = self.disk.version
        return loaded

    def look(self, name: str) -> Loaded | Problem:
        """Return what is stored."""
        self.loads += 1
        return _AWAY if self.away else Loaded(self.disk.state)

    def save(self, name: str, state: CredentialState) -> Problem | None:
        """Save, unless another has since the last load."""
        if self.away:
            return _AWAY
        if self.seen != self.disk.version:
            return Problem(Reason.FENCED, "another replica has written")
        self.disk.text = json.dumps(to_record(state))
        self.disk.version += 1
        self.seen = self.disk.version
        return None

    def names(self) -> tuple[str, ...]:
        """Return the one name."""
        return (NAME,)

    def vanished(self, name: str) -> bool:
        """Tell whether what was stored has been removed since it was last loaded or saved."""
        return not self.disk.text and self.disk.version > max(self.seen, 0)

    def fingerprint_key(self) -> bytes:
        """Return a key."""
        return b"key"

    def close(self) -> None:
        """Do nothing."""


@dataclass
class Election:
    """The Lease as the API server has it."""

    holder: "Replica | None" = None
    renewed_at: float = 0.0
    terms: int = 0


class Replica:
    """One process. Implements `Ownership` and `TokenEndpoint` for its own rotator."""

    def __init__(self, release: "Release", number: int) -> None:
        self.release = release
        self.name = f"replica-{number}"
        self.clock = FixedClock(release.now)
        self.store = FencedStore(release.disk)
        self.sink = MemorySink("file")
        self.observer = RecordingObserver()
        self.until = 0.0
        self.number_of_term = 0
        self.busy = False
        self.before_leaving: Callable[[], None] | None = None
        """Happens once, when the next form is about to leave: before the lease is looked at for the last time."""
        self.after_answer: Callable[[], None] | None = None
        """Happens once, when the next answer has arrived and nothing has been done with it."""
        self.rotator = SharingRotator(
            self.store,
            self.clock,
            self.observer,
            Fingerprinter(b"key"),
            threading.Event(),
            ownership=self,
            takeover=LEASE,
        )
        self.credential = Credential(
            NAME,
            Plan(
                policy=release.policy,
                grant=Grant.REFRESH_TOKEN,
                scope="",
                extra=lambda: (),
                endpoint=self,
                server="server:443",
                sinks=(self.sink,),
                sink_refs=(SinkRef("file"),),
                longest_request=REQUEST,
            ),
        )

    def term(self, name: str) -> int | None:
        """Implement `Ownership`."""
        return self.number_of_term if self.release.now < self.until else None

    def may_spend(self, name: str, seconds: float) -> bool:
        """Implement `Ownership`."""
        return self.release.now + seconds < self.until

    def owner(self, name: str) -> str:
        """Implement `Ownership`."""
        holder = self.release.election.holder
        return holder.name if holder else ""

    def identity(self) -> str:
        """Implement `TokenEndpoint`."""
        return ""

    def request(self, request: TokenRequest, secrets: tuple[str, ...]) -> Answer:
        """Implement `TokenEndpoint`, as the real one does it: the lease is looked at last."""
        happens, self.before_leaving = self.before_leaving, None
        if happens is not None:
            happens()
        if request.may_leave is not None and not request.may_leave():
            return Unavailable(Reason.NOT_OWNER, delivered=False)
        answer = self.release.server.refresh(dict(request.fields)["refresh_token"], self.release.now)
        happens, self.after_answer = self.after_answer, None
        if happens is not None:
            happens()
        return answer

    def turn(self) -> None:
        """Renew the Lease, or take it if it is over; then step. A replica that is in a request does nothing."""
        if self.busy:
            return
        self.busy, self.clock.at = True, self.release.now
        try:
            if not self.store.away:
                self._elect()
                self._hear()
            self.rotator.step(self.credential)
        except Crash:
            self.release.replace(self)
        finally:
            self.busy = False

    def _elect(self) -> None:
        election, now = self.release.election, self.release.now
        if election.holder is not self:
            if election.holder is not None and now < election.renewed_at + LEASE:
                return
            election.holder, election.terms = self, election.terms + 1
            self.number_of_term = election.terms
        election.renewed_at, self.until = now, now + LEASE

    def _hear(self) -> None:
        state = self.release.disk.state
        if state is not None:
            self.rotator.follow(self.credential, state)


@dataclass
class Release:
    """The replicas, and all that they share."""

    replicas: int
    server: ModelServer = field(default_factory=lambda: ModelServer(grace=0.0, lifetime=600))
    policy: RotationPolicy = field(default_factory=lambda: RotationPolicy(replay_window=0.0, jitter=0.0))
    now: float = AT
    disk: SharedDisk = field(default_factory=SharedDisk)
    election: Election = field(default_factory=Election)

    def __post_init__(self) -> None:
        self.alive = [Replica(self, number) for number in range(self.replicas)]
        self.born = self.replicas

    def replace(self, replica: Replica) -> None:
        """Let a process begin in the place of one that died. Nobody hands over the Lease for the dead."""
        self.alive[self.alive.index(replica)] = Replica(self, self.born)
        self.born += 1

    def run(self, seconds: float) -> None:
        """Let time pass; every replica that is not held up takes its turn each second."""
        for _ in range(int(seconds)):
            self.now += 1
            for replica in tuple(self.alive):
                replica.turn()

    def login(self) -> None:
        """Log in at the owner."""
        self.run(1)
        owner = next(one for one in self.alive if one.term(NAME) is not None)
        tokens = self.server.login()
        issued = type(tokens)(
            0, tokens.access_token, tokens.refresh_token, None, "Bearer", "", self.now,
            self.now + self.server.lifetime, self.now, None,
        )  # fmt: skip
        assert owner.rotator.intake.adopt(owner.credential, issued) is None

    @property
    def newest(self) -> str:
        """Return the refresh token that is stored."""
        state = self.disk.state
        assert state is not None
        assert state.tokens is not None
        return state.tokens.refresh_token or ""

    def has_life_left(self, seconds: float) -> bool:
        """Tell whether the stored access token is not nearly over in so many seconds and a lease."""
        state = self.disk.state
        return state is not None and nearly_over_at(state.tokens) > self.now + seconds + LEASE

    def assert_well(self) -> None:
        """After some minutes of peace: nothing was presented twice, nothing is lost, every output is fresh."""
        self.run(1200)
        state = self.disk.state
        assert self.server.reuses == 0, "a refresh token was presented twice"
        assert self.server.alive(self.newest), (state, self.server)
        assert state is not None
        assert state.tokens is not None
        for replica in self.alive:
            assert replica.sink.published[-1].access_token == state.tokens.access_token
            generations = [tokens.generation for tokens in replica.sink.published]
            assert generations == sorted(generations), "an output went back"
