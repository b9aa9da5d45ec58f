"""A configured credential while the process lives: its plan, and the one true copy of its state."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final

from rotator.core.grant import is_another_scope
from rotator.core.model import Fingerprinter, Grant, Oddity, RotationPolicy
from rotator.core.schedule import SinkRef, spread_of
from rotator.core.standing import CredentialView, Standing, view
from rotator.core.state import CredentialState
from rotator.ports import Problem, Sink, TokenEndpoint

UNSEEN: Final = object()
"""The inputs' stamp before they were first looked at."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one credential is to be renewed and published: its configuration, made ready. Shared where equal."""

    policy: RotationPolicy
    grant: Grant
    scope: str
    extra: Callable[[], tuple[tuple[str, str], ...] | Problem]
    """Read the further form fields of a token request; they may be secret."""
    endpoint: TokenEndpoint
    server: str
    """Requests to one server are limited together: its host and port."""
    sinks: tuple[Sink, ...]
    sink_refs: tuple[SinkRef, ...]
    seed: Callable[[], str | Problem] | None = None
    """Read the seed: a refresh token or a token answer."""
    stamp: Callable[[], object] | None = None
    """Tell cheaply whether an input (client secret, CA, seed) has changed: a value to compare."""
    required: tuple[str, ...] = ()
    """The outputs that count for readiness."""
    longest_request: float = 0.0
    """Seconds that a token request may take, repetitions included."""

    def asks_as(self, fingerprint: Fingerprinter) -> str:
        """Return a fingerprint of all that a request says besides the token; secrets are read, commands run."""
        return fingerprint(repr((self.endpoint.identity(), self.grant, self.scope, self.extra())))


class Credential:
    """One configured credential while the process lives: its plan and the one true copy of its state."""

    __slots__ = (
        "asked",
        "busy",
        "coming",
        "delivering",
        "due_at",
        "durable_generation",
        "errands",
        "leaving",
        "lock",
        "name",
        "oddities",
        "plan",
        "problem",
        "save_problem",
        "seen_stamp",
        "served",
        "state",
        "telling",
        "term",
        "unsaved",
        "waiters",
    )

    def __init__(self, name: str, plan: Plan) -> None:
        """Begin unopened: `state` is None until the store has been read."""
        self.name = name
        self.plan = plan
        self.coming: tuple[Plan, bool] | None = None
        """The plan of a reload, for the next step to take up; and whether it may heal what was refused."""
        self.lock = threading.Lock()
        self.delivering = threading.Lock()
        """Held while an output is written."""
        self.telling = False
        """One of its hooks runs, or waits for a thread to run in."""
        self.state: CredentialState | None = None
        self.problem: Problem | None = None
        """Why the state cannot be read."""
        self.save_problem: Problem | None = None
        """Why the last save failed."""
        self.term: int | None = 0
        """The term of ownership that memory was taken up in (0: none yet, or there is one owner only); None: a
        follower, whose memory is a copy."""
        self.unsaved = False
        self.durable_generation = 0
        self.seen_stamp: object = UNSEEN
        self.oddities: tuple[Oddity, ...] = ()
        """What was odd in its answers and has been told."""
        self.asked = False
        self.waiters: tuple[Future[CredentialView], ...] = ()
        self.served: tuple[Future[CredentialView], ...] = ()
        """Whose request is done; they are answered at the end of the step."""
        self.due_at = 0.0
        self.busy = False
        self.errands = 0
        """How many logins are under way. Counted by the event loop alone."""
        self.leaving = False
        """No longer configured: what is unsaved is saved, and nothing else is done."""

    @property
    def in_use(self) -> bool:
        """Whether somebody is at work on it, or memory holds what the store does not."""
        # In this order: who is done has set `unsaved` before.
        return self.telling or self.busy or self.errands > 0 or self.unsaved

    @property
    def only_in_memory(self) -> bool:
        """Whether the newest token set is durable nowhere: it ends with the process."""
        return self.unsaved and self.durable_generation < (self.state.generation if self.state else 0)

    @property
    def spread(self) -> float:
        """Return this generation's share of the jitter, in [0, 1)."""
        return spread_of(self.name, self.state.generation if self.state else 0)

    @property
    def free_sinks(self) -> tuple[SinkRef, ...]:
        """Return the sinks that may be published now: no hook while another one runs."""
        refs = self.plan.sink_refs
        return tuple(ref for ref in refs if not ref.is_hook) if self.telling else refs

    def view(self, fingerprint: Fingerprinter, now: float) -> CredentialView:
        """Show this credential as it is at this moment, the instant `now`."""
        state = self.state
        tokens = state.tokens if state else None
        access, refresh = (tokens.access_token, tokens.refresh_token) if tokens else (None, None)
        shown = view(
            self.name,
            state or CredentialState(),
            self.plan.policy,
            self.plan.grant,
            self.plan.sink_refs,
            now,
            unsaved=self.only_in_memory,
            fingerprints=(fingerprint(access), fingerprint(refresh)),
        )
        if tokens is not None and is_another_scope(tokens.scope, self.plan.scope):
            shown = replace(shown, scope_changed=True)
        if self.problem is not None:
            return replace(
                shown, standing=Standing.STATE_UNREADABLE, reason=self.problem.reason, text=self.problem.text
            )
        if self.save_problem is not None:  # no refresh leaves until it is mended (case E2)
            shown = replace(shown, reason=self.save_problem.reason, text=self.save_problem.text, save_failing=True)
        if self.leaving:
            text = "; ".join(filter(None, ("no longer configured", shown.text)))
            shown = replace(shown, next_at=None, text=text)
        # Until the store has been read nothing is due.
        return shown if state is not None else replace(shown, standing=Standing.STARTING, next_at=None)
