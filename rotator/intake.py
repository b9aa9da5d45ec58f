"""Where tokens come from, apart from a refresh: the store at start, a login, a seed."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from rotator.core import state as transitions
from rotator.core.login import parse_pair
from rotator.core.model import Fingerprinter, Granted, Oddity, Reason, TokenSet
from rotator.core.schedule import spread_of
from rotator.core.state import CredentialState, Status
from rotator.core.words import ODDITIES
from rotator.credential import UNSEEN, Credential
from rotator.ports import Clock, Notice, Observer, Problem, StatusChanged, Store
from rotator.save import Saver

CLOCK_SUSPECT: Final = "the clock is behind the last saved instant: lifetimes are not trusted, refreshing at once"


class Intake:
    """Opens credentials and takes over pairs that somebody brings."""

    def __init__(self, store: Store, saver: Saver, clock: Clock, observer: Observer) -> None:
        """Take the ports."""
        self._store = store
        self._saver = saver
        self._clock = clock
        self._observer = observer

    def open(self, credential: Credential) -> bool:
        """Read the durable state; False if it cannot be read now. The store is read once, at start (invariant 4)."""
        loaded = self._store.load(credential.name)
        if isinstance(loaded, Problem):
            if credential.problem != loaded:
                self._observer.notify(Notice("state_unreadable", loaded.text, credential.name, "error"))
            credential.problem = loaded
            return False
        state = loaded.state or CredentialState()
        plan, now = credential.plan, self._clock.now()
        with credential.lock:
            if credential.state is not None:
                return True  # somebody else was quicker
            credential.problem = None
            credential.durable_generation, credential.unsaved = state.generation, loaded.kept
            opened = transitions.opened(state, plan.policy, now, spread_of(credential.name, state.generation))
            # What an output holds is looked at, not remembered: after a boot the files in /run are gone.
            opened = transitions.with_sinks(opened, tuple(sink.name for sink in plan.sink_refs if sink.is_hook))
            credential.state, oddities = transitions.judged(
                opened, plan.policy, plan.grant, plan.scope, on_schedule=False
            )
        self.tell_oddities(credential, oddities)
        if opened.clock_suspect:
            self._observer.notify(Notice("clock_suspect", CLOCK_SUSPECT, credential.name, "warning"))
        if state.refresh_started_at is not None:
            text = "the last run stopped between sending a refresh and saving its answer; the same token is tried again"
            self._observer.notify(Notice("refresh_interrupted", text, credential.name, "warning"))
        return True

    def closed(self, credential: Credential) -> Problem | None:
        """Say why nobody may log in yet; None if all may. A login may come before the first step, and opens it.

        It continues what is stored, and must not replace what cannot be read now: of that it cannot tell how new it is.
        """
        if credential.state is not None or self.open(credential):
            return None
        problem = credential.problem
        if problem is None or problem.reason is Reason.STATE_DAMAGED:
            return None
        return replace(problem, text=f"nobody can log in yet: {problem.text}")

    def tell_oddities(self, credential: Credential, oddities: tuple[Oddity, ...]) -> None:
        """Warn of what had to be tolerated in an answer: once, however often it comes (cases A1, A4, A19)."""
        new = tuple(oddity for oddity in oddities if oddity not in credential.oddities)
        credential.oddities = (*credential.oddities, *new)
        for oddity in new:
            if text := ODDITIES.get(oddity):
                self._observer.notify(Notice("odd_answer", text, credential.name, "warning", {"oddity": oddity}))

    def adopt(
        self, credential: Credential, tokens: TokenSet, seed_fingerprint: str | None = None,
        oddities: tuple[Oddity, ...] = (),
    ) -> Problem | None:  # fmt: skip
        """Take over the tokens of a login or a seed; a Problem: refused, or in memory only so far."""
        if (closed := self.closed(credential)) is not None:
            return closed
        if seed_fingerprint is None and credential.plan.seed is not None:
            # A seed that is there already is older than this login, whether or not it has been looked at.
            seed = _read_seed(credential.plan.seed)
            seed_fingerprint = None if isinstance(seed, str) else _fingerprint_of(seed)
        with credential.lock:
            state = credential.state or CredentialState()
            keep = credential.plan.policy.keep_generations
            adopted = transitions.adopted(state, tokens, seed_fingerprint, self._clock.now(), keep)
            credential.problem = None
            self._saver.save(credential, adopted, holds_new_pair=True)
            unsaved = credential.only_in_memory
        text, fields = f"generation {adopted.generation} comes from a login", {"oddities": list(oddities)}
        self._observer.notify(Notice("tokens_adopted", text, credential.name, fields=fields))
        self.tell_oddities(credential, oddities)
        if state.status != adopted.status:
            self._observer.notify(StatusChanged(credential.name, state.status, adopted.status, "a login heals it"))
        return (
            Problem(Reason.SAVE_FAILED, "the new pair is in memory only; see the log for the store's fault")
            if unsaved
            else None
        )

    def inputs_changed(self, credential: Credential) -> bool:
        """Tell whether a client secret, CA or seed changed since the credential was last stepped."""
        stamp = credential.plan.stamp
        return stamp is not None and credential.seen_stamp is not UNSEEN and stamp() != credential.seen_stamp

    def heed_inputs(self, credential: Credential, fingerprint: Fingerprinter) -> None:
        """Read a seed that is new; end a back-off that may have been due to an input that has changed (case K8).

        What changed while nobody looked, between two runs, is told by whom the refused request came from.
        """
        plan = credential.plan
        stamp = plan.stamp() if plan.stamp else None
        if stamp == credential.seen_stamp:
            return
        first, credential.seen_stamp = credential.seen_stamp is UNSEEN, stamp
        adopted = self._take_seed(credential, plan.seed) if plan.seed else False
        if adopted or _need_not_ask(credential, fingerprint, first=first):
            return
        with credential.lock:
            if credential.state is not None:
                credential.state = transitions.retry_now(credential.state, self._clock.now())
        what = "what was refused is configured otherwise now" if first else "a secret or certificate file has changed"
        self._observer.notify(Notice("inputs_changed", what, credential.name))

    def _take_seed(self, credential: Credential, read: Callable[[], str | Problem]) -> bool:
        """State beats seed; a seed that changed since it was last seen is a deliberate new login (B20, B21)."""
        state = credential.state
        assert state is not None  # noqa: S101 - opened by `step`
        pair = _read_seed(read)
        if isinstance(pair, str):
            self._observer.notify(
                Notice("seed_unusable", f"seed of {credential.name}: {pair}", credential.name, "error")
            )
            return False
        fingerprint = _fingerprint_of(pair)
        if fingerprint == state.seed_fingerprint:
            self._ignore_seed(credential, "it was taken, or ignored, before")
            return False
        wanted = state.tokens is None or state.status is Status.REAUTHORIZATION_REQUIRED or state.seed_fingerprint
        if not wanted:
            with credential.lock:
                self._saver.save(credential, replace(credential.state or state, seed_fingerprint=fingerprint))
            self._ignore_seed(credential, "the state is newer")
            return False
        tokens = transitions.from_refresh_token(pair.refresh_token or "", credential.plan.policy, self._clock.now())
        self.adopt(credential, tokens, fingerprint)
        return True

    def _ignore_seed(self, credential: Credential, why: str) -> None:
        """Say so at each start (case B20): whoever has written a seed wonders what has become of it."""
        text = f"the seed is ignored: {why}; change the seed to log in anew"
        self._observer.notify(Notice("seed_ignored", text, credential.name))


def _read_seed(read: Callable[[], str | Problem]) -> Granted | str:
    text = read()
    return text.text if isinstance(text, Problem) else parse_pair(text)


def _fingerprint_of(seed: Granted) -> str:
    # Without a key: a lost key must not make an old, spent seed look like a new one.
    return hashlib.sha256((seed.refresh_token or "").encode()).hexdigest()[:32]


def _need_not_ask(credential: Credential, fingerprint: Fingerprinter, *, first: bool) -> bool:
    """Tell whether what was refused would be asked in the same way again.

    A file that is written anew with the same content changes nothing for a client that was refused (case E1). At the
    first look only what was asked in another way before counts: a start alone is no reason to ask.
    """
    trouble = credential.state.trouble if credential.state else None
    if trouble is None or not trouble.asked_as:
        return first
    if not first and trouble.reason not in (Reason.INVALID_CLIENT, Reason.UNAUTHORIZED_CLIENT):
        return False
    return trouble.asked_as == credential.plan.asks_as(fingerprint)
