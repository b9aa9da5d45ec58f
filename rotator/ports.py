"""What the line needs from the world, as promises. Adapters keep them; fakes pass the same suites.

Every port is called from worker threads, several at once for different credentials, never twice at
once for the same credential. None raises for a failure of the outside world: failures are returned,
with a `Reason` and one line that names the file or server and the cure. An exception is a bug.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from rotator.core.model import Answer, Oddity, Reason, TokenRequest, TokenSet
from rotator.core.standing import CredentialView
from rotator.core.state import CredentialState


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure of the outside world: what to show and what to count."""

    reason: Reason
    text: str
    """One line: the file or server, what is wrong, the cure. Never a secret."""
    retry_after: float | None = None
    """Seconds to wait before the next try, if somebody said so or an earlier one makes no sense."""
    kept: bool = False
    """What could not be saved in its place is durable in another, where the next start finds it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The durable state of one credential. `state` is None only if there truly is none."""

    state: CredentialState | None
    kept: bool = False
    """It was found where `Problem.kept` says: it is yet to be saved in its place."""


class Clock(Protocol):
    """Invariant 10: never backward inside a process, counts suspend."""

    def now(self) -> float:
        """Return the instant on the daemon's timeline: seconds since the epoch, UTC."""

    def wall(self, instant: float) -> float:
        """Return what the wall clock shows at `instant`: the two part when the wall clock is set back."""


class TokenEndpoint(Protocol):
    """One authorization server's token endpoint as one client sees it."""

    def request(self, request: TokenRequest, secrets: tuple[str, ...]) -> Answer:
        """Send the form once, repeating only what cannot have been delivered or was plainly not done.

        Total: every outcome is an `Answer`. Nothing leaves after the configured total timeout, and it ends within
        that, but for the time the system's resolver takes: nobody can cut a look-up short (resolv.conf limits it).
        `secrets` are strings that must not appear in any text returned. No redirect is followed.
        """

    def identity(self) -> str:
        """Return where and as whom is asked, the client secret included: to be compared, never shown or kept."""


class Store(Protocol):
    """Where token sets live. The store is owned for the life of the process (invariant 5)."""

    def load(self, name: str) -> Loaded | Problem:
        """Read the durable state. An unreadable or corrupt state is a Problem, never `Loaded(None)`."""

    def save(self, name: str, state: CredentialState) -> Problem | None:
        """Make the state durable before returning None: it survives power loss from then on.

        All or nothing; a Problem means that the earlier durable state is still whole. Refuses to
        lower the generation of what is stored (case C15).
        """

    def names(self) -> tuple[str, ...]:
        """Return the names that have a durable state."""

    def vanished(self, name: str) -> bool:
        """Tell cheaply whether what was loaded or saved here is no longer stored; False if that cannot be told."""


class OpenStore(Store, Protocol):
    """A store as the process that opened it sees it."""

    warnings: list[str]
    """What is odd about it, one line each; grows. Whoever tells of it takes it out."""

    def fingerprint_key(self) -> bytes:
        """Return the key for fingerprints: the same over restarts."""

    def close(self) -> None:
        """Refuse further work; give up the lock, if there is one."""


class SharedStore(OpenStore, Protocol):
    """A store that several replicas use at once: each save is conditional on what this process last loaded.

    A save that another replica has forestalled is a Problem with `Reason.FENCED`; it goes on failing until the state
    is loaded again. A save whose reply is lost is looked after: None is returned only if it is durable.
    """

    save_allowance: float
    """Seconds that a save may take, a look at what became of it included."""

    def look(self, name: str) -> Loaded | Problem:
        """Read the durable state as `load` does, without allowing a save over it."""


class Ownership(Protocol):
    """Who may spend refresh tokens where several replicas share a store (invariant 5). Nothing here waits."""

    def term(self, name: str) -> int | None:
        """Return the number, from 1, of the present term of ownership: another with each taking. None: no owner."""

    def may_spend(self, name: str, seconds: float) -> bool:
        """Tell whether this process surely stays the owner for so many seconds more, even if it is cut off now."""

    def owner(self, name: str) -> str:
        """Return who owns the credential, for people to find; empty if nobody is known to."""


@dataclass(frozen=True, slots=True)
class LeaseView:
    """One Lease as this process sees it."""

    name: str
    held: bool
    """Whether this process holds it, and so refreshes its credentials."""
    stranger: str = ""
    """Its holder, if that has long had other credentials in its configuration than we: some are refreshed by nobody."""


class Peers(Ownership, Protocol):
    """The other replicas, as far as this one has to do with them."""

    def start(
        self,
        names: Collection[str],
        came: Callable[[str, CredentialState], object],
        changed: Callable[[], None],
        busy: Callable[[], Collection[str]],
    ) -> None:
        """Take part from now on; return after some seconds at most, whether or not the store can be reached.

        `came` is called with each state that is stored, from threads of ours, `changed` when ownership of anything
        has changed; `busy` tells which credentials are under way, for these are not handed over.
        """

    def follow(self, names: Collection[str]) -> None:
        """Follow these credentials from now on: the configuration has changed."""

    def leases(self) -> tuple[LeaseView, ...]:
        """Show each Lease; none is ever added or taken away."""

    def trouble(self) -> str:
        """Say in one line why we do not hear of the others, or they of us; empty if all is well."""

    def close(self) -> None:
        """Hand over everything at once. Nothing may be under way any more."""


class Sink(Protocol):
    """One output of one credential: a file, a Secret, a hook."""

    @property
    def name(self) -> str:
        """Return the name, unique within its credential and stable over restarts and reloads."""

    def publish(self, tokens: TokenSet) -> Problem | None:
        """Bring the output to these tokens. Readers see all of the old or all of the new (invariant 12)."""

    def intact(self) -> bool:
        """Tell cheaply whether the output still is as last published; True when that cannot change."""


@dataclass(frozen=True, slots=True)
class RefreshStarted:
    """A token request is about to leave; its intent mark is durable."""

    credential: str
    why: str


@dataclass(frozen=True, slots=True)
class RefreshFinished:
    """A token request ended. `outcome`: granted, refused, unavailable, ambiguous, late or held (not sent)."""

    credential: str
    outcome: str
    reason: Reason | None
    text: str
    seconds: float
    generation: int
    failures: int
    oddities: tuple[Oddity, ...] = ()
    news: bool = False
    """It failed for another reason than the time before: worth a line, however often it failed."""
    why: str = ""
    """Why it was sent, as its `RefreshStarted` says."""


@dataclass(frozen=True, slots=True)
class SaveFinished:
    """The state was written, or not. `holds_new_pair`: an unsaved pair is at stake (invariant 4)."""

    credential: str
    problem: Problem | None
    seconds: float
    holds_new_pair: bool


@dataclass(frozen=True, slots=True)
class PublishFinished:
    """One sink was brought up to date, or not."""

    credential: str
    sink: str
    problem: Problem | None
    generation: int
    seconds: float
    failures: int


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The grant's status moved, e.g. from ok to suspect."""

    credential: str
    before: str
    after: str
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Anything else worth a line: `event` is its stable name, `fields` hold no secrets."""

    event: str
    text: str
    credential: str = ""
    level: str = "info"
    fields: Mapping[str, object] | None = None


Event = RefreshStarted | RefreshFinished | SaveFinished | PublishFinished | StatusChanged | Notice


class Observer(Protocol):
    """Hears of everything that happened. Must be quick and must not raise."""

    def notify(self, event: Event) -> None:
        """Take note of one event."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """Whether the daemon lives: the sweep ran lately, and nothing else (invariant 14)."""

    live: bool
    sweep_age_seconds: float


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether every required output holds an unexpired access token; `reasons` name those that do not."""

    ready: bool
    reasons: tuple[str, ...]
    credentials: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What the daemon counts itself, for metrics: numbers since the start, and instants (seconds)."""

    started_at: float
    sweep_lag_seconds: float
    under_way: int
    clock_jumps_forward: int
    clock_jumps_backward: int
    reloads_good: int
    reloads_bad: int
    last_reload_good: bool
    last_reload_at: float
    leases: tuple[LeaseView, ...] = ()
    """Each Lease; none where nobody else could hold it (a state directory has one owner)."""

    @property
    def stands_by(self) -> bool:
        """Whether there are Leases, and this process holds none of them."""
        return bool(self.leases) and not any(lease.held for lease in self.leases)


class Desk(Protocol):
    """What the web pages, the metrics and the control socket may ask of the daemon.

    The plain methods only look, are quick and may be called from any thread. The coroutines belong to the
    daemon's event loop and return within a bounded time; a token call that hangs holds none of them up but its own
    caller. A Problem is shown as it is. Instants are as the wall clock shows them: they are for others to compare.
    """

    def views(self) -> Iterator[CredentialView]:
        """Show every credential, in the order of their names; made one by one, so that 100,000 cost no memory.

        One that was taken out of the configuration is among them until its newest pair is saved.
        """

    def find(self, name: str) -> CredentialView | None:
        """Show one credential; None if it is not configured."""

    def tokens(self, name: str) -> TokenSet | None:
        """Return the current token set; None if there is none."""

    def lack(self, name: str) -> str:
        """Say in one line why a credential is not ready; nothing if each required output holds a valid token."""

    def pulse(self) -> Pulse:
        """Tell whether the daemon lives; costs the same with however many credentials."""

    def readiness(self) -> Readiness:
        """Tell whether all is served. Looks at each credential: 100,000 take half a second, so not in the loop."""

    def counts(self) -> Counts:
        """Return what the daemon counts itself."""

    async def rotate(self, name: str) -> CredentialView | Problem:
        """Refresh one credential now; all who ask at once share one request and get the same answer (C10, C12)."""

    async def login(self, name: str, username: str, password: str) -> CredentialView | Problem:
        """Get the first pair by the password grant; the two secrets are used once and kept nowhere."""

    async def adopt(self, name: str, pair: str) -> CredentialView | Problem:
        """Take over a token answer or a bare refresh token (the text as it was handed in)."""

    async def reload(self) -> tuple[str, ...]:
        """Take the configuration anew: what is wrong with it, a line each; nothing if it is in force now."""
