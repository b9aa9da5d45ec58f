"""The line: ask what is due, do it, take the outcome, ask again.

One credential is stepped by one worker thread at a time. Its lock is held while its state moves and is saved,
never while a token request is under way: a login need not wait for a server that hangs. What comes back from
such a server after the login is late, and the mark tells.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Final

from rotator.core import state as transitions
from rotator.core.grant import refresh_request
from rotator.core.login import parse_pair
from rotator.core.model import (
    Answer,
    Fingerprinter,
    Grant,
    Granted,
    Halt,
    Oddity,
    Publish,
    Reason,
    Refresh,
    Refused,
    Save,
    TokenSet,
    Unavailable,
    Wait,
)
from rotator.core.schedule import SHORTEST_GAP, next_action, refresh_due, spread_of
from rotator.core.standing import CredentialView
from rotator.core.state import CredentialState, Status
from rotator.credential import UNSEEN, Credential
from rotator.ports import (
    Clock,
    Notice,
    Observer,
    Problem,
    PublishFinished,
    RefreshFinished,
    RefreshStarted,
    SaveFinished,
    StatusChanged,
    Store,
)

SAVE_RETRY: Final = 1.0
_UNREADABLE_RETRY: Final = 30.0
_DEAD: Final = (Reason.INVALID_GRANT, Reason.TOKEN_REUSE)


class Rotator:
    """Steps credentials. Holds no credential itself, so that any number can be stepped side by side."""

    def __init__(
        self, store: Store, clock: Clock, observer: Observer, fingerprint: Fingerprinter, stopping: threading.Event
    ) -> None:
        """Take the ports. Once `stopping` is set no new token request leaves (invariant 13)."""
        self._store = store
        self._clock = clock
        self._observer = observer
        self._fingerprint = fingerprint
        self._stopping = stopping

    def step(self, credential: Credential) -> Wait | Halt:
        """Do everything that is due for one credential; say when to ask again."""
        outcome: Wait | Halt
        if credential.state is None and not self._open(credential):
            credential.asked = False
            outcome = Wait(self._clock.now() + _UNREADABLE_RETRY, Reason.STATE_UNREADABLE)
        else:
            self._heed_inputs(credential)
            outcome = self._work(credential)
            if isinstance(outcome, Wait) and outcome.why == Reason.SAVE_FAILED:
                credential.asked = False  # whoever asked is told now, not when the disk has room again
        self._answer_waiters(credential)
        return outcome

    def ask(self, credential: Credential) -> Future[CredentialView]:
        """Ask for a rotation now; the future is done when the request that serves all who asked is."""
        waiter: Future[CredentialView] = Future()
        with credential.lock:
            credential.waiters.append(waiter)
            credential.asked = True
        return waiter

    def _work(self, credential: Credential) -> Wait | Halt:
        save_tried = False
        while True:
            state = credential.state
            assert state is not None  # noqa: S101 - opened by `step`
            plan, now = credential.plan, self._clock.now()
            action = next_action(
                state, plan.policy, plan.grant, plan.sink_refs, now, credential.spread,
                unsaved=credential.unsaved and not save_tried,
            )  # fmt: skip
            if credential.asked and isinstance(action, Wait | Halt):
                action = self._asked(credential, state, now, action)
            match action:
                case Save():
                    save_tried = True
                    with credential.lock:
                        self._save(credential, credential.state or state)
                case Publish(sink):
                    self._publish(credential, sink)
                case Refresh(why):
                    if self._stopping.is_set():
                        return Wait(now + SAVE_RETRY, "stopping")
                    if (credential.unsaved and save_tried) or not self._refresh(credential, state, why):
                        return Wait(self._clock.now() + SAVE_RETRY, Reason.SAVE_FAILED)
                    save_tried = False
                case Wait(until, why):
                    return Wait(min(until, now + SAVE_RETRY), Reason.SAVE_FAILED) if credential.unsaved else action
                case Halt():
                    return Wait(now + SAVE_RETRY, Reason.SAVE_FAILED) if credential.unsaved else action

    def _asked(
        self, credential: Credential, state: CredentialState, now: float, otherwise: Wait | Halt
    ) -> Refresh | Wait | Halt:
        """Serve a person who asked for a rotation now: all who ask until it is done share the one request."""
        possible = credential.plan.grant is Grant.CLIENT_CREDENTIALS or (state.tokens and state.tokens.refresh_token)
        if not possible:
            credential.asked = False
            return otherwise
        earliest = state.last_attempt_at + SHORTEST_GAP
        return Refresh("asked") if earliest <= now else Wait(earliest, "asked")

    def _answer_waiters(self, credential: Credential) -> None:
        with credential.lock:
            if credential.asked:
                return  # still to come
            waiters, credential.waiters = credential.waiters, []
        if waiters:
            shown = credential.view(self._fingerprint)
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(shown)

    # -- refresh ---------------------------------------------------------------------------------

    def _refresh(self, credential: Credential, state: CredentialState, why: str) -> bool:
        """Reserve, request, save. False: nothing was sent because the reservation could not be saved."""
        plan = credential.plan
        with credential.lock:
            if credential.state is not state:
                return True  # somebody logged in meanwhile: ask again what is due
            reserved = transitions.begin_refresh(state, self._clock.now())
            if not self._save(credential, reserved, reserving=True):
                newer = self._newer_in_store(credential, state)
                if newer is not None:
                    credential.state, credential.durable_generation, credential.unsaved = newer, newer.generation, False
                return newer is not None
            reserved = credential.state
        self._observer.notify(RefreshStarted(credential.name, why))
        tokens = reserved.tokens
        started = time.monotonic()
        answer: Answer
        extra = plan.extra()
        if isinstance(extra, Problem):
            answer = Unavailable(extra.reason, delivered=False, text=extra.text)
        else:
            request = refresh_request(plan.grant, tokens, plan.scope, extra)
            answer = plan.endpoint.request(request, _secrets(tokens))
        seconds = time.monotonic() - started
        with credential.lock:
            # The pair is made durable here, before a single other field of the answer is looked at.
            late = credential.state.refresh_started_at != reserved.refresh_started_at
            if not late and isinstance(answer, Granted):
                granted = transitions.received(reserved, answer, plan.policy, self._clock.now())
                self._save(credential, granted, holds_new_pair=True)
            elif not late:
                self._save(credential, self._after_failure(credential, reserved, answer))
        credential.asked = False
        oddities: tuple[Oddity, ...] = ()
        if not late and isinstance(answer, Granted):
            oddities = self._judge(credential, on_schedule=why in ("due", Reason.FUSE_BLOWN, "refresh_token_aging"))
            if answer.form_encoded:
                oddities = (*oddities, Oddity.FORM_ENCODED)
        self._tell(credential, reserved, answer, seconds, oddities, late=late)
        return True

    def _after_failure(self, credential: Credential, reserved: CredentialState, answer: Answer) -> CredentialState:
        plan, now = credential.plan, self._clock.now()
        if isinstance(answer, Refused):
            if answer.reason in _DEAD:
                newer = self._newer_in_store(credential, reserved)
                if newer is not None:
                    return newer
            return transitions.after_refused(reserved, answer, plan.policy, now)
        assert isinstance(answer, Unavailable)  # noqa: S101 - Granted is dealt with by the caller
        return transitions.after_unavailable(reserved, answer, plan.policy, plan.grant, now, credential.spread)

    def _newer_in_store(self, credential: Credential, state: CredentialState) -> CredentialState | None:
        """Return what somebody stored behind our back: believe the store before the server (invariant 7, case C14)."""
        stored = self._store.load(credential.name)
        found = None if isinstance(stored, Problem) else stored.state
        if found is None or found.tokens is None or found.generation <= state.generation:
            return None
        if state.tokens is not None and found.tokens.refresh_token == state.tokens.refresh_token:
            return None
        return replace(found, refresh_started_at=None, trouble=None, status=Status.OK)

    def _judge(self, credential: Credential, *, on_schedule: bool) -> tuple[Oddity, ...]:
        with credential.lock:
            assert credential.state is not None  # noqa: S101 - there was an answer
            plan = credential.plan
            credential.state, oddities = transitions.judged(
                credential.state, plan.policy, plan.grant, plan.scope, on_schedule=on_schedule
            )
        return oddities

    def _tell(
        self,
        credential: Credential,
        before: CredentialState,
        answer: Answer,
        seconds: float,
        oddities: tuple[Oddity, ...],
        *,
        late: bool,
    ) -> None:
        after = credential.state or before
        reason, text = (None, "") if isinstance(answer, Granted) else (answer.reason, answer.text)
        if isinstance(answer, Granted):
            outcome = "granted"
        elif isinstance(answer, Refused):
            outcome = "refused"
        else:
            outcome = (
                "ambiguous" if answer.delivered and credential.plan.grant is Grant.REFRESH_TOKEN else "unavailable"
            )
        failures = after.trouble.failures if after.trouble else 0
        news = before.trouble is None or before.trouble.reason != reason
        outcome = "late" if late else outcome
        self._observer.notify(
            RefreshFinished(
                credential.name, outcome, reason, text, seconds, after.generation, failures, oddities, news=news
            )
        )
        if before.status != after.status:
            self._observer.notify(StatusChanged(credential.name, before.status, after.status, text))

    # -- save ------------------------------------------------------------------------------------

    def _save(
        self, credential: Credential, state: CredentialState, *, reserving: bool = False, holds_new_pair: bool = False
    ) -> bool:
        """Make a state durable and, unless it is only a reservation that failed, the one in memory. Lock held."""
        stamped = replace(state, saved_at=self._clock.now())
        started = time.monotonic()
        problem = self._store.save(credential.name, stamped)
        seconds = time.monotonic() - started
        if problem is None:
            credential.unsaved = False
            credential.durable_generation = stamped.generation
        if problem is None or not reserving:
            credential.state = stamped
            credential.unsaved = problem is not None
        at_stake = holds_new_pair or credential.durable_generation < stamped.generation
        self._observer.notify(SaveFinished(credential.name, problem, seconds, at_stake))
        return problem is None

    def save_unsaved(self, credential: Credential) -> bool:
        """Try once more to save what only memory holds; True if nothing is left unsaved."""
        with credential.lock:
            if credential.unsaved and credential.state is not None:
                self._save(credential, credential.state)
            return not credential.unsaved

    # -- publish ---------------------------------------------------------------------------------

    def publish_due(self, credential: Credential) -> None:
        """Bring every output up to date that is due, and do nothing else: a login need not wait for a hung request."""
        while (state := credential.state) is not None:
            plan = credential.plan
            action = next_action(state, plan.policy, plan.grant, plan.sink_refs, self._clock.now(), credential.spread)
            if not isinstance(action, Publish):
                return
            self._publish(credential, action.sink)

    def _publish(self, credential: Credential, sink_name: str) -> None:
        sink = next(sink for sink in credential.plan.sinks if sink.name == sink_name)
        with credential.delivering:
            state = credential.state
            if state is None or state.tokens is None or state.delivery(sink_name).generation >= state.generation:
                return  # somebody else was quicker
            started = time.monotonic()
            problem = sink.publish(state.tokens)
            seconds = time.monotonic() - started
            reason, text = (problem.reason, problem.text) if problem else (None, "")
            with credential.lock:
                credential.state = transitions.after_publish(
                    credential.state or state, sink_name, state.tokens, reason, text, self._clock.now()
                )
                failures = credential.state.delivery(sink_name).failures
        self._observer.notify(PublishFinished(credential.name, sink_name, problem, state.generation, seconds, failures))

    def reconcile(self, credential: Credential) -> bool:
        """Notice outputs that somebody deleted or edited; True if one is due again. No token call comes of it."""
        state = credential.state
        if state is None or state.tokens is None:
            return False
        found = False
        for sink in credential.plan.sinks:
            if state.delivery(sink.name).generation == state.generation and not sink.intact():
                with credential.lock:
                    if credential.state is not None:
                        credential.state = transitions.withdrawn(credential.state, sink.name)
                found = True
                text = f"output {sink.name} was deleted or changed by somebody else; it is written again"
                self._observer.notify(Notice("output_changed", text, credential.name, "warning"))
        return found

    # -- open, login, seed -----------------------------------------------------------------------

    def _open(self, credential: Credential) -> bool:
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
            credential.durable_generation = state.generation
            opened = transitions.opened(state, plan.policy, now, spread_of(credential.name, state.generation))
            opened = transitions.with_sinks(opened, tuple(sink.name for sink in plan.sinks))
            credential.state, _ = transitions.judged(opened, plan.policy, plan.grant, plan.scope, on_schedule=False)
        if opened.clock_suspect:
            text = "the clock is behind the last saved instant: lifetimes are not trusted, refreshing at once"
            self._observer.notify(Notice("clock_suspect", text, credential.name, "warning"))
        if state.refresh_started_at is not None:
            text = "the last run stopped between sending a refresh and saving its answer; the same token is tried again"
            self._observer.notify(Notice("refresh_interrupted", text, credential.name, "warning"))
        return True

    def adopt(self, credential: Credential, tokens: TokenSet, seed_fingerprint: str | None = None) -> Problem | None:
        """Take over the tokens of a login or a seed; a Problem says that only memory holds them so far."""
        if credential.state is None:
            self._open(credential)  # a login may come before the first step, and continues what is stored
        with credential.lock:
            state = credential.state or CredentialState()
            keep = credential.plan.policy.keep_generations
            adopted = transitions.adopted(state, tokens, seed_fingerprint, self._clock.now(), keep)
            credential.problem = None
            self._save(credential, adopted, holds_new_pair=True)
            unsaved = credential.unsaved
        self._observer.notify(
            Notice("tokens_adopted", f"generation {adopted.generation} comes from a login", credential.name)
        )
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

    def _heed_inputs(self, credential: Credential) -> None:
        plan = credential.plan
        stamp = plan.stamp() if plan.stamp else None
        if stamp == credential.seen_stamp:
            return
        first, credential.seen_stamp = credential.seen_stamp is UNSEEN, stamp
        adopted = self._take_seed(credential, plan.seed) if plan.seed else False
        if not first and not adopted:
            with credential.lock:
                if credential.state is not None:
                    credential.state = transitions.retry_now(credential.state, self._clock.now())
            self._observer.notify(Notice("inputs_changed", "a secret or certificate file has changed", credential.name))

    def _take_seed(self, credential: Credential, read: Callable[[], str | Problem]) -> bool:
        """State beats seed; a seed that changed since it was last seen is a deliberate new login (B20, B21)."""
        state = credential.state
        assert state is not None  # noqa: S101 - opened by `step`
        text = read()
        pair = text.text if isinstance(text, Problem) else parse_pair(text)
        if isinstance(pair, str):
            self._observer.notify(
                Notice("seed_unusable", f"seed of {credential.name}: {pair}", credential.name, "error")
            )
            return False
        # Without a key: a lost key must not make an old, spent seed look like a new one.
        fingerprint = hashlib.sha256((pair.refresh_token or "").encode()).hexdigest()[:32]
        if fingerprint == state.seed_fingerprint:
            return False
        wanted = state.tokens is None or state.status is Status.REAUTHORIZATION_REQUIRED or state.seed_fingerprint
        if not wanted:
            with credential.lock:
                self._save(credential, replace(credential.state or state, seed_fingerprint=fingerprint))
            text_ = "the seed is ignored: the state is newer; change the seed to log in anew"
            self._observer.notify(Notice("seed_ignored", text_, credential.name))
            return False
        tokens = transitions.from_refresh_token(pair.refresh_token or "", credential.plan.policy, self._clock.now())
        self.adopt(credential, tokens, fingerprint)
        return True

    def next_refresh_at(self, credential: Credential) -> float | None:
        """Return when the next token request is due (instant); None if none is."""
        state = credential.state
        if state is None:
            return None
        due = refresh_due(state, credential.plan.policy, credential.plan.grant, credential.spread)
        return None if due.at == float("inf") else due.at


def _secrets(tokens: TokenSet | None) -> tuple[str, ...]:
    """Return what no text from this request may show."""
    if tokens is None:
        return ()
    return tuple(secret for secret in (tokens.refresh_token, tokens.access_token, tokens.id_token) if secret)
