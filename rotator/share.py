"""The line where several replicas share a store: the owner of a credential refreshes it, the others follow.

What is added to `rotate`: nobody but the owner reserves, a new owner reads the store before it spends anything,
the lease is looked at again just before the form leaves, and whoever finds that another has written gives way.
"""

import threading
from dataclasses import replace
from typing import Final

from rotator.core.model import Fingerprinter, Halt, Publish, Reason, Unavailable, Wait
from rotator.core.schedule import next_action, refresh_due
from rotator.core.sharing import (
    copied,
    follower_action,
    is_newer,
    is_under_way,
    taken_up,
    without_shared,
    wonders,
)
from rotator.core.standing import CredentialView, span
from rotator.core.state import CLOCK_TOLERANCE, CredentialState
from rotator.credential import UNSEEN, Credential
from rotator.intake import CLOCK_SUSPECT, Intake
from rotator.ports import Clock, Notice, Observer, Ownership, Problem, SaveFinished, SharedStore
from rotator.rotate import Rotator
from rotator.save import SAVE_RETRY, Saver

_NO_COPY_YET: Final = 5.0


class SharingRotator(Rotator):
    """Steps credentials that other replicas step too."""

    def __init__(
        self,
        store: SharedStore,
        clock: Clock,
        observer: Observer,
        fingerprint: Fingerprinter,
        stopping: threading.Event,
        *,
        ownership: Ownership,
        takeover: float,
    ) -> None:
        """Take the ports. `takeover`: seconds after which an owner that dies is replaced, at most."""
        super().__init__(store, clock, observer, fingerprint, stopping)
        self._shared = store
        self._ownership = ownership
        self._takeover = takeover
        self._warned: set[str] = set()
        self._saver = FencedSaver(store, clock, observer, ownership)
        self.intake: SharedIntake = SharedIntake(store, self._saver, clock, observer, ownership)

    def refusal(self, credential: Credential) -> Problem | None:
        """Say why nobody may be served here: another replica owns the credential."""
        if not self.follows(credential):
            return None
        owner = self._ownership.owner(credential.name)
        who = f"{owner} refreshes {credential.name}; ask there" if owner else "no replica has the lease; try again soon"
        return Problem(Reason.NOT_OWNER, f"this replica follows: {who}")

    def follows(self, credential: Credential) -> bool:
        """Tell whether another replica owns the credential, or nobody known does."""
        return self._ownership.term(credential.name) is None

    def shown(self, credential: Credential, now: float) -> CredentialView:
        """Show the credential as it is at `now`; of a follower, only what it sees to itself."""
        view = super().shown(credential, now)
        if not self.follows(credential):
            return view
        shared = {sink.name for sink in credential.plan.sink_refs if sink.shared}
        outputs = tuple(output for output in view.outputs if output.name not in shared)
        return replace(view, outputs=outputs, held_by=self._ownership.owner(credential.name))

    def follow(self, credential: Credential, stored: CredentialState) -> bool:
        """Take over a newer copy; False if it changes nothing here.

        What this process has taken up is no copy's business, unless a former owner was late to save a newer token
        set: then the store is the truth, and is read again before anything is spent.
        """
        with credential.lock:
            mine = credential.state
            if credential.unsaved:
                return False
            if mine is not None and (mine.refresh_started_at is not None or is_newer(mine, stored)):
                return False  # a request is under way, or this is old news
            term = self._ownership.term(credential.name)
            if term is not None and term == credential.term:
                if mine is None or not is_newer(stored, mine):
                    return False
                credential.term = None
            _copy(credential, stored)
        return True

    def _step(self, credential: Credential) -> Wait | Halt:
        term = self._ownership.term(credential.name)
        outcome: Wait | Halt | None
        if term is None:
            outcome = self._follow(credential)
        elif credential.term == term:
            return super()._step(credential)
        else:
            outcome = self._at_rest(credential)
            if outcome is None:
                if self.intake.take_up(credential, term):
                    return super()._step(credential)
                credential.asked = False
                why = Reason.STATE_UNREADABLE if credential.problem else Reason.NOT_OWNER
                outcome = Wait(self._clock.now() + SAVE_RETRY, why)
        self._answer_waiters(credential)
        return outcome

    def _work(self, credential: Credential) -> Wait | Halt:
        outcome = super()._work(credential)
        self._warn_of_short_margin(credential)
        return outcome

    def _warn_of_short_margin(self, credential: Credential) -> None:
        """Warn once if an owner that dies is replaced too late for a token that has fallen due."""
        state, plan = credential.state, credential.plan
        if state is None or state.tokens is None or credential.name in self._warned:
            return
        due = refresh_due(state, plan.policy, plan.grant, credential.spread, self._clock.now())
        margin = state.tokens.expires_at - due.at
        if due.why == "due" and margin < self._takeover:
            self._warned.add(credential.name)
            text = (
                f"the access token falls due {span(margin)} before its end, and a replica that dies is replaced after"
                f" up to {span(self._takeover)}: shorten total_timeout and with it kubernetes.lease_duration, or"
                " refresh earlier (refresh.ratio)"
            )
            self._observer.notify(Notice("margin_short", text, credential.name, "warning"))

    def _at_rest(self, credential: Credential) -> Wait | Halt | None:
        """Publish by the copy of a credential that has come to us and is not due: None if more is to be done.

        So a replica that takes over thousands of credentials reads each from the store when it is due, not at once.
        """
        plan, unseen = credential.plan, credential.seen_stamp is UNSEEN
        news = plan.seed is not None and (unseen or self.intake.inputs_changed(credential))
        trouble = credential.state.trouble if credential.state else None
        news = news or (unseen and trouble is not None and trouble.asked_as != "")
        if credential.state is None or credential.asked or credential.unsaved or news:
            return None
        if credential.state.saved_at > self._clock.now() + CLOCK_TOLERANCE:
            return None  # a clock is wrong, so the copy's plan is void
        self.publisher.publish_due(credential)
        now = self._clock.now()
        action = next_action(credential.state, plan.policy, plan.grant, credential.free_sinks, now, credential.spread)
        if isinstance(action, Publish):
            return Wait(now, "publish")
        if self._shared.vanished(credential.name):
            return None
        return action if isinstance(action, Wait | Halt) else None

    def _follow(self, credential: Credential) -> Wait:
        """Keep this replica's own outputs up to date; save what the answer to our last request brought."""
        credential.asked = False
        plan = credential.plan
        if credential.term is not None:
            with credential.lock:
                credential.term = None
                if credential.state is not None:
                    credential.state = without_shared(credential.state, plan.sink_refs)
        saved, looked = self._saver.save_unsaved(credential), False
        while (state := credential.state) is not None:
            now = self._clock.now()
            action = follower_action(state, credential.free_sinks, now)
            if isinstance(action, Publish):
                self.publisher.publish(credential, action.sink, state)
            elif not saved:
                return Wait(now + SAVE_RETRY, Reason.SAVE_FAILED)
            elif not looked and wonders(state, now):
                looked = True
                self._look(credential)
            else:
                return action
        return Wait(self._clock.now() + _NO_COPY_YET, "follower")

    def _look(self, credential: Credential) -> None:
        loaded = self._shared.look(credential.name)
        if not isinstance(loaded, Problem) and loaded.state is not None:
            self.follow(credential, loaded.state)

    def _refresh(self, credential: Credential, state: CredentialState, why: str) -> bool:
        if not self._may_spend(credential):
            return False
        return super()._refresh(credential, state, why)

    def _may_spend(self, credential: Credential) -> bool:
        """Tell whether the lease that memory was taken up in lasts longer than a request and its save."""
        owner, plan = self._ownership, credential.plan
        return owner.term(credential.name) == credential.term and owner.may_spend(credential.name, plan.longest_request)

    def _held_back(self, credential: Credential, reserved: CredentialState, why: str) -> Unavailable | None:
        if not self._may_spend(credential):
            text = "the lease would be over before the answer is saved; the request was not sent"
            return Unavailable(Reason.NOT_OWNER, delivered=False, text=text)
        longest = self._shared.save_allowance + credential.plan.longest_request
        if not is_under_way(reserved, longest, self._clock.now()):
            text = "so long after its reservation another owner may be asking; the request was not sent"
            return Unavailable(Reason.NOT_OWNER, delivered=False, text=text)
        return super()._held_back(credential, reserved, why)

    def _newer_in_store(self, _credential: Credential, _state: CredentialState) -> CredentialState | None:
        """Look for nothing: the next save finds out whether another replica has written, and gives way."""
        return None


class SharedIntake(Intake):
    """Opens credentials in a store that others write to."""

    def __init__(
        self, store: SharedStore, saver: Saver, clock: Clock, observer: Observer, ownership: Ownership
    ) -> None:
        """Take the ports."""
        super().__init__(store, saver, clock, observer)
        self._shared = store
        self._ownership = ownership

    def take_up(self, credential: Credential, term: int) -> bool:
        """Read the durable state at the beginning of a term: memory is not the truth then.

        False: it cannot be read, or another is refreshing at this moment.
        """
        with credential.lock:
            if credential.term == term:
                return True
            loaded = self._store.load(credential.name)
            if isinstance(loaded, Problem):
                if credential.problem != loaded:
                    self._observer.notify(Notice("state_unreadable", loaded.text, credential.name, "error"))
                credential.problem = loaded
                return False
            stored = loaded.state or CredentialState()
            if waits(credential, stored, self._shared.save_allowance, self._clock.now()):
                return False
            ahead = resume(credential, stored, self._clock.now())
            credential.term = term
            suspect = credential.state is not None and credential.state.clock_suspect
        if suspect:
            self._observer.notify(Notice("clock_suspect", CLOCK_SUSPECT, credential.name, "warning"))
        if ahead:
            text = "the store is behind this replica's memory: what memory holds is saved"
            self._observer.notify(Notice("store_behind", text, credential.name, "warning"))
        elif stored.refresh_started_at is not None:
            text = "the last owner stopped between sending a refresh and saving its answer"
            self._observer.notify(Notice("refresh_interrupted", text, credential.name, "warning"))
        return True

    def open(self, credential: Credential) -> bool:
        """Read the durable state as an owner; False if it cannot be read now, or is another's."""
        term = self._ownership.term(credential.name)
        return term is not None and self.take_up(credential, term)

    def closed(self, credential: Credential) -> Problem | None:
        """Say why nobody may log in: a login goes on top of what is stored, by the owner."""
        if self.open(credential):
            return None
        return credential.problem or Problem(Reason.NOT_OWNER, f"another replica refreshes {credential.name} now")


class FencedSaver(Saver):
    """Writes states where another replica may have written before; the token set that was issued last counts."""

    def __init__(self, store: SharedStore, clock: Clock, observer: Observer, ownership: Ownership) -> None:
        """Take the ports."""
        super().__init__(store, clock, observer)
        self._shared = store
        self._ownership = ownership

    def has_lost(self, credential: Credential) -> bool:
        """Tell whether the stored state was removed behind our back: its owner, and nobody else, sees to that.

        An owner that goes by a copy reads the store then, and saves the copy if it finds nothing newer.
        """
        term = self._ownership.term(credential.name)
        if term is None or term == credential.term:
            return term is not None and super().has_lost(credential)
        return self._store.vanished(credential.name)

    def save(
        self, credential: Credential, state: CredentialState, *, reserving: bool = False, holds_new_pair: bool = False
    ) -> bool:
        """Save as the base does. When another has written: save over an older state, give way to a newer one."""
        if super().save(credential, state, reserving=reserving, holds_new_pair=holds_new_pair):
            return True
        problem = credential.save_problem
        if problem is None or problem.reason is not Reason.FENCED:
            return False
        loaded = self._store.load(credential.name)
        if isinstance(loaded, Problem):  # tried again each second, and as conditional as before
            credential.save_problem = loaded
            at_stake = holds_new_pair or credential.only_in_memory
            super()._tell(SaveFinished(credential.name, loaded, 0.0, at_stake))
            return False
        stored = loaded.state or CredentialState()
        credential.save_problem = None
        if waits(credential, stored, self._shared.save_allowance, self._clock.now()):
            text = "another replica is refreshing it; what comes of that is waited for"
            self._observer.notify(Notice("gave_way", text, credential.name, "warning"))
            return False
        if resume(credential, stored, self._clock.now()):
            text = "another replica has written an older state meanwhile: what memory holds is saved over it"
            self._observer.notify(Notice("store_behind", text, credential.name, "warning"))
            return not reserving and super().save(credential, state, holds_new_pair=holds_new_pair)
        text = "another replica has written a newer state; it is taken up"
        self._observer.notify(Notice("gave_way", text, credential.name, "warning"))
        return False

    def _tell(self, finished: SaveFinished) -> None:
        """Tell of a save, but of none that another's forestalled: `save` says what comes of that."""
        if finished.problem is None or finished.problem.reason is not Reason.FENCED:
            super()._tell(finished)


def waits(credential: Credential, stored: CredentialState, save_allowance: float, now: float) -> bool:
    """Take a copy and no more if another may be refreshing: then this term has yet to begin. Lock held."""
    mine = credential.state
    newer = mine is not None and is_newer(mine, stored)
    if newer or not is_under_way(stored, save_allowance + credential.plan.longest_request, now):
        return False
    _copy(credential, stored)
    credential.term, credential.unsaved = None, False
    return True


def _copy(credential: Credential, stored: CredentialState) -> None:
    plan = credential.plan
    credential.state = copied(stored, credential.state, plan.policy, plan.grant, plan.scope)
    credential.durable_generation, credential.problem = stored.generation, None


def resume(credential: Credential, stored: CredentialState, now: float) -> bool:
    """Go on with the stored state, or with memory if that holds a newer token set: True then. Lock held."""
    mine = credential.state
    credential.problem, credential.durable_generation = None, stored.generation
    if mine is not None and is_newer(mine, stored):
        credential.unsaved = True
        return True
    plan = credential.plan
    names = tuple(sink.name for sink in plan.sinks)
    credential.state = taken_up(credential.name, stored, mine, plan.policy, plan.grant, plan.scope, names, now)
    credential.unsaved = False
    return False
