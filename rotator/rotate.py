"""The line: ask what is due, do it, take the outcome, ask again.

One credential is stepped by one worker thread at a time. Its lock is held while its state moves and is saved,
never while a token request is under way: a login need not wait for a server that hangs. What comes back from
such a server after the login is late, and the mark tells.
"""

import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Final

from rotator.core import state as transitions
from rotator.core.grant import refresh_request
from rotator.core.model import (
    Action,
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
from rotator.core.schedule import SHORTEST_GAP, held_back, next_action
from rotator.core.standing import CredentialView
from rotator.core.state import DEAD, CredentialState, Status
from rotator.credential import Credential, Plan
from rotator.intake import Intake
from rotator.ports import (
    Clock,
    Observer,
    Problem,
    RefreshFinished,
    RefreshStarted,
    StatusChanged,
    Store,
)
from rotator.publish import Publisher
from rotator.save import SAVE_RETRY, Saver

_UNREADABLE_RETRY: Final = 30.0
_NEVER: Final = float("inf")


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
        self._left = threading.Lock()
        """Guards what the event loop leaves for a step to find: held for a moment, never while anything is saved."""
        self._saver = Saver(store, clock, observer)
        self.publisher = Publisher(clock, observer)
        self.intake = Intake(store, self._saver, clock, observer)

    def step(self, credential: Credential) -> Wait | Halt:
        """Do everything that is due for one credential; say when to ask again."""
        try:
            if credential.leaving:
                return self._see_off(credential)
            self.take_up_plan(credential)
            return self._step(credential)
        except BaseException:
            # A bug on the way from the answer to the store: the request may have been carried out.
            if credential.lock.acquire(timeout=SAVE_RETRY):
                try:
                    self._presume_interrupted(credential)
                finally:
                    credential.lock.release()
            raise

    def _presume_interrupted(self, credential: Credential) -> None:
        if credential.state is not None:
            policy, now = credential.plan.policy, self._clock.now()
            credential.state = transitions.opened(credential.state, policy, now, credential.spread)

    def _see_off(self, credential: Credential) -> Wait:
        """Save what only memory holds of a credential that was taken out of the configuration; answer who waits."""
        saved = not credential.unsaved or self.save_unsaved(credential)
        with self._left:
            # Put back by a reload meanwhile, it may have been asked for since: that is for the next step.
            credential.asked = credential.asked and not credential.leaving
        self._answer_waiters(credential)
        return Wait(_NEVER, "removed") if saved else Wait(self._clock.now() + SAVE_RETRY, Reason.SAVE_FAILED)

    def _step(self, credential: Credential) -> Wait | Halt:
        outcome: Wait | Halt
        if credential.state is None and not self.intake.open(credential):
            credential.asked = False
            outcome = Wait(self._clock.now() + _UNREADABLE_RETRY, Reason.STATE_UNREADABLE)
        else:
            self.intake.heed_inputs(credential, self._fingerprint)
            outcome = self._work(credential)
            if isinstance(outcome, Wait) and outcome.why == Reason.SAVE_FAILED:
                credential.asked = False  # whoever asked is told now, not when the disk has room again
        self._answer_waiters(credential)
        return outcome

    def refusal(self, credential: Credential) -> Problem | None:  # noqa: ARG002 - one owner: no reason
        """Say why nobody may log in or rotate here; None if all may."""
        return None

    def follows(self, credential: Credential) -> bool:  # noqa: ARG002 - one owner: nobody is followed
        """Tell whether another replica owns the credential."""
        return False

    def shown(self, credential: Credential, now: float) -> CredentialView:
        """Show the credential as it is at `now`."""
        return credential.view(self._fingerprint, now)

    def follow(self, credential: Credential, stored: CredentialState) -> bool:  # noqa: ARG002 - as above
        """Take over a copy of the owner's state; False if it changes nothing here."""
        return False

    def ask(self, credential: Credential) -> Future[CredentialView]:
        """Ask for a rotation now; the future is done when the request that serves all who asked is."""
        waiter: Future[CredentialView] = Future()
        with self._left:
            credential.waiters = (*credential.waiters, waiter)
            credential.asked = True
        return waiter

    def replan(self, credential: Credential, plan: Plan, *, heals: bool) -> None:
        """Leave another plan for the next step. `heals`: what was refused may be granted by it."""
        with self._left:
            credential.coming = plan, heals or (credential.coming is not None and credential.coming[1])

    def take_up_plan(self, credential: Credential) -> None:
        """Take up the plan that a reload has left, if it has."""
        with credential.lock:
            with self._left:
                coming, credential.coming = credential.coming, None
            if coming is None:
                return
            credential.plan, heals = coming
            if credential.state is not None:
                # What changed may be what an output holds, or who may write it.
                hooks = tuple(sink.name for sink in credential.plan.sink_refs if sink.is_hook)
                state = transitions.with_sinks(credential.state, hooks)
                credential.state = transitions.with_fixed_end(state, credential.plan.policy)
                if heals:
                    credential.state = transitions.retry_now(credential.state, self._clock.now())

    def _work(self, credential: Credential) -> Wait | Halt:
        save_tried = False
        while True:
            state = credential.state
            assert state is not None  # noqa: S101 - opened by `step`
            now = self._clock.now()
            action = self._due(credential, state, now, save_tried=save_tried)
            match action:
                case Save():
                    save_tried = True
                    with credential.lock:
                        self._saver.save(credential, credential.state or state)
                case Publish(sink):
                    self.publisher.publish(credential, sink, state)
                case Refresh(why):
                    if self._stopping.is_set():
                        return Wait(now + SAVE_RETRY, "stopping")
                    if (credential.unsaved and save_tried) or not self._refresh(credential, state, why):
                        return Wait(self._clock.now() + SAVE_RETRY, Reason.SAVE_FAILED)
                    save_tried = False
                case Wait() | Halt():
                    if not credential.unsaved and credential.save_problem is None:
                        return action
                    until = action.until if isinstance(action, Wait) else _NEVER
                    return Wait(min(until, now + SAVE_RETRY), Reason.SAVE_FAILED)

    def _due(self, credential: Credential, state: CredentialState, now: float, *, save_tried: bool) -> Action:
        plan = credential.plan
        action = next_action(
            state, plan.policy, plan.grant, credential.free_sinks, now, credential.spread,
            unsaved=credential.unsaved and not save_tried,
        )  # fmt: skip
        if credential.asked and isinstance(action, Wait | Halt):
            action = self._asked(credential, state, now, action)
        if credential.save_problem is not None and not save_tried and isinstance(action, Wait | Halt):
            return Save()  # a reservation failed, and nothing else is due that would find out when that is over
        return action

    def has_lost(self, credential: Credential) -> bool:
        """Tell whether the stored state was removed behind our back: it is to be saved again."""
        return self._saver.has_lost(credential)

    def save_unsaved(self, credential: Credential) -> bool:
        """Try once more to save what only memory holds; True if nothing is left unsaved."""
        return self._saver.save_unsaved(credential)

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
        with self._left:
            if not credential.asked:
                credential.served, credential.waiters = (*credential.served, *credential.waiters), ()
            served, credential.served = credential.served, ()
        if served:
            shown = credential.view(self._fingerprint, self._clock.now())
            for waiter in served:
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
            if not self._saver.save(credential, reserved, reserving=True):
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
            # A person who asks now may know that the client has been put right at the server.
            wait = 0.0 if why == "asked" else plan.policy.refused_retry
            form = replace(
                refresh_request(plan.grant, tokens, plan.scope, extra),
                held_back=lambda: self._held_back(credential, reserved, why),
                refused_wait=wait,
            )
            answer = plan.endpoint.request(form, _secrets(tokens))
        seconds = time.monotonic() - started
        ours = isinstance(answer, Refused) or (isinstance(answer, Unavailable) and answer.reason is Reason.BAD_INPUT)
        asked_as = plan.asks_as(self._fingerprint) if ours else ""
        if asked_as and self.intake.inputs_changed(credential):
            asked_as = ""  # while we asked: nobody can tell as whom
        with credential.lock:
            # Whoever asked up to this moment has been served by this request.
            with self._left:
                credential.asked = False
                credential.served, credential.waiters = (*credential.served, *credential.waiters), ()
            # The pair is made durable here, before a single other field of the answer is looked at.
            current = credential.state
            late = current.refresh_started_at != reserved.refresh_started_at
            oddities: tuple[Oddity, ...] = ()
            if not late and isinstance(answer, Granted):
                granted = transitions.received(current, answer, plan.policy, self._clock.now())
                self._saver.save(credential, granted, holds_new_pair=True)
                oddities = self._judge(credential, answer, why)
                if answer.form_encoded:
                    oddities = (*oddities, Oddity.FORM_ENCODED)
            elif not late:
                failed = self._after_failure(credential, current, answer)
                self._saver.save(credential, transitions.asked_as(failed, asked_as))
        self._tell(credential, reserved, answer, seconds, oddities, why, late=late)
        self.intake.tell_oddities(credential, oddities)
        return True

    def _held_back(self, credential: Credential, reserved: CredentialState, why: str) -> Unavailable | None:
        """Say why a request that was begun must not leave any more; asked just before it does."""
        return held_back(reserved, credential.plan.policy, self._clock.now()) if why == "replay" else None

    def _after_failure(self, credential: Credential, reserved: CredentialState, answer: Answer) -> CredentialState:
        plan, now = credential.plan, self._clock.now()
        if isinstance(answer, Refused):
            if answer.reason in DEAD:
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

    def _judge(self, credential: Credential, granted: Granted, why: str) -> tuple[Oddity, ...]:
        """Read the saved answer's other fields. Lock held: nobody publishes a lifetime that is only assumed."""
        assert credential.state is not None  # noqa: S101 - there was an answer
        plan = credential.plan
        credential.state, oddities = transitions.judged(
            credential.state, plan.policy, plan.grant, plan.scope, granted.served_at,
            on_schedule=why in ("due", Reason.FUSE_BLOWN, "refresh_token_aging"),
        )  # fmt: skip
        return oddities

    def _tell(
        self,
        credential: Credential,
        before: CredentialState,
        answer: Answer,
        seconds: float,
        oddities: tuple[Oddity, ...],
        why: str,
        *,
        late: bool,
    ) -> None:
        after = credential.state or before
        reason, text = (None, "") if isinstance(answer, Granted) else (answer.reason, answer.text)
        if isinstance(answer, Granted):
            outcome = "granted"
        elif isinstance(answer, Refused):
            outcome = "refused" if answer.retry_after is None else "held"
        else:
            outcome = (
                "ambiguous" if answer.delivered and credential.plan.grant is Grant.REFRESH_TOKEN else "unavailable"
            )
        failures = after.trouble.failures if after.trouble else 0
        news = before.trouble is None or before.trouble.reason != reason
        outcome = "late" if late else outcome
        self._observer.notify(
            RefreshFinished(
                credential.name, outcome, reason, text, seconds, after.generation, failures, oddities, news, why
            )
        )
        if before.status != after.status:
            told = after.trouble.text if after.trouble else text
            self._observer.notify(StatusChanged(credential.name, before.status, after.status, told))


def _secrets(tokens: TokenSet | None) -> tuple[str, ...]:
    """Return what no text from this request may show."""
    if tokens is None:
        return ()
    return tuple(secret for secret in (tokens.refresh_token, tokens.access_token, tokens.id_token) if secret)
