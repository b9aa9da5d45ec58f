"""Fakes of the ports: they pass the same contract suites as the real ones and fail on request."""

import json
from collections import deque

from rotator.core.model import Reason, TokenSet
from rotator.core.record import from_record, to_record
from rotator.core.state import CredentialState
from rotator.ports import Loaded, Problem


class FixedClock:
    """A `rotator.ports.Clock` that stands until a test moves it. `offset`: wall minus timeline."""

    def __init__(self, at: float = 1_700_000_000.0, offset: float = 0.0) -> None:
        self.at = at
        self.offset = offset

    def now(self) -> float:
        """Return the instant the clock stands at."""
        return self.at

    def wall(self, instant: float) -> float:
        """Return the wall time of an instant."""
        return instant + self.offset


class MemoryStore:
    """A `rotator.ports.Store` in a dict of JSON texts.

    Two stores over the same dict are two lives of one process: what the first saved, the second loads.
    `fail_saves` and `fail_loads` are used up call by call; None in them lets one call pass, an exception is raised.
    """

    def __init__(self, disk: dict[str, str] | None = None) -> None:
        self.disk: dict[str, str] = {} if disk is None else disk
        self.fail_saves: deque[Problem | Exception | None] = deque()
        self.fail_loads: deque[Problem | None] = deque()
        self.saved: list[tuple[str, CredentialState]] = []
        """Every state that was made durable, in order."""

    def load(self, name: str) -> Loaded | Problem:
        """Return what was saved, or the next scripted failure."""
        problem = self.fail_loads.popleft() if self.fail_loads else None
        if problem:
            return problem
        text = self.disk.get(name)
        return Loaded(None if text is None else from_record(json.loads(text)))

    def save(self, name: str, state: CredentialState) -> Problem | None:
        """Keep the state, or return the next scripted failure."""
        problem = self.fail_saves.popleft() if self.fail_saves else None
        if isinstance(problem, Exception):
            raise problem
        if problem:
            return problem
        if name in self.disk:
            before = from_record(json.loads(self.disk[name]))
            if _mark(state) < _mark(before):
                text = f"generation {state.generation} must not replace {before.generation}"
                return Problem(Reason.SAVE_FAILED, text)
        self.disk[name] = json.dumps(to_record(state))
        self.saved.append((name, state))
        return None

    def names(self) -> tuple[str, ...]:
        """Return the names that were saved."""
        return tuple(self.disk)

    def vanished(self, name: str) -> bool:
        """Tell whether this life saved a state that is no longer there."""
        return name not in self.disk and any(saved == name for saved, _ in self.saved)


class MemorySink:
    """A `rotator.ports.Sink` that keeps what it was given. `fail` is used up call by call; an exception is raised."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.fail: deque[Problem | Exception | None] = deque()
        self.published: list[TokenSet] = []
        self.tampered = False

    def publish(self, tokens: TokenSet) -> Problem | None:
        """Keep the tokens, or return the next scripted failure."""
        problem = self.fail.popleft() if self.fail else None
        if isinstance(problem, Exception):
            raise problem
        if problem is None and not tokens.access_token:
            problem = Problem(Reason.BAD_INPUT, "there is no access token to publish")
        if problem is None:
            self.published.append(tokens)
            self.tampered = False
        return problem

    def intact(self) -> bool:
        """Return False from the moment a test sets `tampered`."""
        return not self.tampered


def _mark(state: CredentialState) -> tuple[int, bool]:
    return state.generation, state.tokens is not None and state.tokens.expires_at > 0
