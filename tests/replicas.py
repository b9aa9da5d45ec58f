"""Several replicas of one release over one store, one election and one strict server; time is the test's.

Everything that parts replicas happens inside a token request: a replica that is frozen there lets the others run on
meanwhile. The server forgives nothing: a refresh token that is presented twice is counted, and kills the family.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from rotator.adapters.kubernetes.lookout import Lookout
from rotator.adapters.kubernetes.secret_sink import SecretSettings, SecretSink
from rotator.adapters.kubernetes.wire import version_of
from rotator.core.model import (
    Answer,
    Fingerprinter,
    Grant,
    Granted,
    Reason,
    RotationPolicy,
    TokenRequest,
    TokenSet,
    Unavailable,
)
from rotator.core.record import from_record
from rotator.core.schedule import SinkRef
from rotator.core.state import nearly_over_at
from rotator.credential import Credential, Plan
from rotator.ports import Problem
from rotator.share import SharingRotator
from tests.fakes import MemorySink
from tests.line import NAME, RecordingObserver
from tests.model_api import Network
from tests.model_server import ModelServer
from tests.samples import AT
from tests.shared_stores import WEB, FencedStore, RealStore, SecretDisk, SharedDisk
from tests.world import Crash

LEASE: float = 20.0
REQUEST: float = 5.0


class ReplicaClock:
    """A `rotator.ports.Clock` that is so many seconds ahead of the true time."""

    def __init__(self, release: "Release", ahead: float) -> None:
        self.release = release
        self.ahead = ahead

    def now(self) -> float:
        """Return the instant."""
        return self.release.now + self.ahead

    def wall(self, instant: float) -> float:
        """Return the same: this clock was never set."""
        return instant


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
        self.clock = ReplicaClock(release, release.skews[number % len(release.skews)])
        self.election = release.election
        """Which Lease it goes by."""
        self.store: FencedStore | RealStore = FencedStore(release.disk, self.touch)
        self.sink = MemorySink("file")
        self.web: SecretSink | None = None
        if isinstance(release.disk, SecretDisk):
            network = Network(release.disk.api, self.touch, lambda: release.now, release.run)
            self.store = RealStore(network)
            lookout = Lookout(network, lambda _event, _text: None)
            lookout.stop()  # no thread: `hear` tells what it would
            settings = SecretSettings("web", "apps", (("token", "{access_token}"),))
            self.web = SecretSink("web", NAME, settings, network, lookout, self.clock)
        self.observer = RecordingObserver()
        self.until = 0.0
        self.number_of_term = 0
        self.busy = False
        self.heard = -1
        self.deaf = False
        """Copies do not arrive."""
        self.dead = False
        self.fate: tuple[int, Callable[[], None]] | None = None
        """At which touch from now on something happens to it, and what."""
        self.lose: str = ""
        """What becomes of the next request: "before" or "after" the server has carried it out."""
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
                sinks=(self.sink, self.web) if self.web else (self.sink,),
                sink_refs=(SinkRef("file"), SinkRef("web", shared=True)) if self.web else (SinkRef("file"),),
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
        holder = self.election.holder
        return holder.name if holder else ""

    def identity(self) -> str:
        """Implement `TokenEndpoint`."""
        return ""

    def request(self, request: TokenRequest, secrets: tuple[str, ...]) -> Answer:
        """Implement `TokenEndpoint`, as the real one does it: the lease is looked at last."""
        happens, self.before_leaving = self.before_leaving, None
        if happens is not None:
            happens()
        self.touch()
        if request.held_back is not None and (held := request.held_back()) is not None:
            return held
        lose, self.lose = self.lose, ""
        answer: Answer = Unavailable(Reason.CONNECTION_LOST, delivered=True)
        if lose != "before":
            answer = self.release.present(self, dict(request.fields)["refresh_token"])
        if lose:
            answer = Unavailable(Reason.CONNECTION_LOST, delivered=True)
        self.touch()
        happens, self.after_answer = self.after_answer, None
        if happens is not None:
            happens()
        return answer

    @property
    def is_served(self) -> bool:
        """Tell whether nothing that it asks of the API server will be lost."""
        return not (isinstance(self.store, RealStore) and self.store.network.fates)

    def touch(self) -> None:
        """Let happen what is to happen now."""
        if self.fate is not None:
            left, happens = self.fate
            self.fate = (left - 1, happens) if left > 1 else None
            if left <= 1:
                happens()
        if self.dead:
            raise Crash

    def turn(self) -> None:
        """Renew the Lease, or take it if it is over; then step. A replica that is held up does at most the first."""
        if self.busy:
            if self.release.renews and self.election.holder is self and not self.store.away:
                self._elect()
            return
        self.busy = True
        try:
            if not self.store.away:
                self._elect()
                if not self.deaf:
                    self.hear()
            self.rotator.step(self.credential)
        except Crash:
            self.release.replace(self)
        finally:
            self.busy = False

    def _elect(self) -> None:
        election, now = self.election, self.release.now
        if election.holder is not self:
            if election.holder is not None and now < election.renewed_at + LEASE:
                return
            election.holder, election.terms = self, election.terms + 1
            self.number_of_term = election.terms
        election.renewed_at, self.until = now, now + LEASE

    def hear(self) -> None:
        """Take what a watch brings: each change once."""
        version, state = self.release.disk.version, self.release.disk.state
        changed, self.heard = self.heard != version, version
        if changed:
            self.store.hear(state, version)
        if state is not None and changed:
            self.rotator.follow(self.credential, state)
        if self.web and isinstance(self.release.disk, SecretDisk):
            api = self.release.disk.api
            found = api.secrets.get(WEB)
            self.web.saw(found, version_of(found) if found else str(api.version))
            self.rotator.publisher.reconcile(self.credential)


@dataclass
class Release:
    """The replicas, and all that they share."""

    replicas: int
    server: ModelServer = field(default_factory=lambda: ModelServer(grace=0.0, lifetime=600))
    policy: RotationPolicy = field(default_factory=lambda: RotationPolicy(replay_window=0.0, jitter=0.0))
    now: float = AT
    disk: SharedDisk = field(default_factory=SharedDisk)
    election: Election = field(default_factory=Election)
    skews: tuple[float, ...] = (0.0,)
    """Seconds that the replicas' clocks are ahead."""
    renews: bool = False
    """Whether a replica that is held up goes on renewing its Lease: a thread of it is held up, not the process."""
    excused: bool = False
    """A token of unknown fate was presented when the access token was nearly over: a login may be asked for."""

    def __post_init__(self) -> None:
        self.alive = [Replica(self, number) for number in range(self.replicas)]
        self.born = self.replicas

    def replace(self, replica: Replica) -> None:
        """Let a process begin in the place of one that died. Nobody hands over the Lease for the dead."""
        if replica.dead:
            return
        replica.dead = True
        self.alive[self.alive.index(replica)] = Replica(self, self.born)
        self.born += 1

    def run(self, seconds: float, each: float = 1.0) -> None:
        """Let time pass; every replica that is not held up takes its turn each second, or as often as is said."""
        for _ in range(int(seconds / each)):
            self.now += each
            if isinstance(self.disk, SecretDisk):
                self.disk.api.land(self.now)
            for replica in tuple(self.alive):
                replica.turn()

    def present(self, replica: Replica, token: str) -> Answer:
        """Ask the server. What was saved is spent; what is lost may be asked for when nothing is at stake any more."""
        assert replica.election.holder is replica, f"{replica.name} asks without the Lease"
        issued, server = self.server.issued, self.server
        known, state, before = issued.get(token), self.disk.state, server.reuses
        answer = server.refresh(token, self.now)
        if server.reuses > before and known is not None:
            assert known.spent_for not in self.saved(), f"{token} was replaced by a pair that was saved"
            assert state is not None
            assert self.now + max(self.skews) >= nearly_over_at(state.tokens), f"{token} is risked for nothing"
            self.excused = True
        elif isinstance(answer, Granted):
            self.excused = False
        return answer

    def saved(self) -> list[str]:
        """Return every refresh token that was ever stored, in the order in which they were."""
        states = (from_record(json.loads(text)) for text in self.disk.history)
        return [state.tokens.refresh_token or "" for state in states if state.tokens]

    def skip_to_due(self) -> None:
        """Let time pass in which all stand still, and the Lease does not move, until a refresh falls due."""
        state = self.disk.state
        if state is not None and state.tokens is not None and self.election.holder is not None:
            seconds = max(0.0, nearly_over_at(state.tokens) - 102 - self.now)
            self.now += seconds
            for election in {id(one.election): one.election for one in self.alive}.values():
                election.renewed_at += seconds
            for replica in self.alive:
                replica.until += seconds

    def old_news(self, replica: Replica, back: int) -> None:
        """Let a copy arrive late."""
        text = self.disk.history[-min(back, len(self.disk.history))]
        if not replica.dead:
            replica.rotator.follow(replica.credential, from_record(json.loads(text)))

    def hand_over(self, replica: Replica) -> None:
        """Let a replica that is at rest give up the Lease."""
        if replica.election.holder is replica and not replica.busy and not replica.store.away:
            replica.until, replica.election.holder = 0.0, None

    def delete_under_the_owner(self) -> None:
        """Delete what is stored; its owner, if it is well and knows the newest, finds out within seconds."""
        owner, stored = self.election.holder, self.disk.state
        if owner is None or stored is None or owner.busy or owner.dead or owner.store.away or owner.fate:
            return
        if any(one.election is not self.election for one in self.alive) or not owner.is_served:
            return
        mine = owner.credential.state
        if mine is not None and mine.tokens == stored.tokens and owner.term(NAME) is not None:
            self.disk.remove()
            owner.hear()
            owner.rotator.has_lost(owner.credential)
            owner.turn()

    def roll_out(self, replica: Replica) -> None:
        """Replace a replica by one that goes by a Lease of another name, as all will that begin from now on."""
        if all(one.election is self.election for one in self.alive):
            self.election = Election()
        self.replace(replica)

    def make_peace(self) -> None:
        """End whatever is wrong, and let some minutes pass."""
        for replica in self.alive:
            replica.store.away = replica.deaf = False
            replica.fate, replica.lose = None, ""
            replica.before_leaving = replica.after_answer = None
            if isinstance(replica.store, RealStore):
                replica.store.network.fates.clear()
                replica.store.network.before_write.clear()
        for replica in tuple(self.alive):
            if replica.election is not self.election:
                self.replace(replica)
        self.run(1500, each=5)

    def login(self) -> None:
        """Log in at the owner."""
        self.run(1)
        owner = next(one for one in self.alive if one.term(NAME) is not None)
        assert self.login_at(owner) is None

    def login_at(self, replica: Replica) -> Problem | None:
        """Log in at a replica, which may refuse."""
        if (refused := replica.rotator.refusal(replica.credential)) is not None:
            return refused
        tokens, now = self.server.login(), replica.clock.now()
        issued = TokenSet(
            0, tokens.access_token, tokens.refresh_token, None, "Bearer", "", now,
            now + self.server.lifetime, now, None,
        )  # fmt: skip
        busy, replica.busy = replica.busy, True  # whoever steps it waits for the login's save
        try:
            return replica.rotator.intake.adopt(replica.credential, issued)
        finally:
            replica.busy = busy

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
        """After some minutes of peace: nothing is lost, every output is fresh."""
        self.run(1200, each=5)
        self.run(10 if self.disk.state and self.disk.state.saved_at > self.now - 5 else 0)
        state = self.disk.state
        assert self.server.alive(self.newest), (state, self.server)
        assert state is not None
        assert state.tokens is not None
        assert state.tokens.expires_at > self.now
        for replica in self.alive:
            assert replica.sink.published[-1].access_token == state.tokens.access_token, f"{replica.name} is behind"
            generations = [tokens.generation for tokens in replica.sink.published]
            assert generations == sorted(generations), "an output went back"
