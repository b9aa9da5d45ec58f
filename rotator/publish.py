"""Publishing: each output has its own turn and its own retry, and never causes a token call (case E9)."""

import time
from collections.abc import Callable
from functools import partial

from rotator.core import state as transitions
from rotator.core.model import Publish, Reason, TokenSet
from rotator.core.schedule import next_action
from rotator.core.state import CredentialState
from rotator.credential import Credential
from rotator.ports import Clock, Notice, Observer, Problem, PublishFinished, Sink


class Publisher:
    """Brings outputs up to date, then tells the hooks: of one credential one output and one hook at a time."""

    def __init__(self, clock: Clock, observer: Observer) -> None:
        """Take the ports."""
        self._clock = clock
        self._observer = observer
        self.run_hook: Callable[[Credential, Callable[[], None]], object] = lambda _, hook: hook()
        """Runs a hook: here and now, until a daemon knows better. The credential is to be stepped again after it."""

    def publish_due(self, credential: Credential) -> None:
        """Bring every output up to date that is due, and do nothing else: a login need not wait for a hung request."""
        while (state := credential.state) is not None:
            plan = credential.plan
            now, free = self._clock.now(), credential.free_sinks
            action = next_action(state, plan.policy, plan.grant, free, now, credential.spread)
            if not isinstance(action, Publish):
                return
            self.publish(credential, action.sink, state)

    def publish(self, credential: Credential, sink_name: str, decided_on: CredentialState) -> None:
        """Bring one sink up to date, as is due by the state `decided_on`; a hook where it holds up nobody."""
        plan = credential.plan
        sink, is_hook = next(
            (sink, ref.is_hook) for sink, ref in zip(plan.sinks, plan.sink_refs, strict=True) if sink.name == sink_name
        )
        if not is_hook:
            with credential.delivering:
                self._deliver(credential, sink)
            return
        with credential.lock:
            if credential.telling:
                return  # somebody else was quicker
            credential.telling = True
        self.run_hook(credential, partial(self._tell, credential, sink, decided_on.generation))

    def _tell(self, credential: Credential, sink: Sink, generation: int) -> None:
        try:
            self._deliver(credential, sink, generation)
        finally:
            credential.telling = False

    def _deliver(self, credential: Credential, sink: Sink, generation: int | None = None) -> None:
        """Bring a sink to the current generation: to `generation` or none, for a later one's outputs may be behind."""
        with credential.lock:  # not between an answer's save and its lifetime being read
            state = credential.state
        if state is None or state.tokens is None or state.delivery(sink.name).generation >= state.generation:
            return  # somebody else was quicker
        if generation not in (None, state.generation):
            return
        started = time.monotonic()
        problem = self._publish(credential.name, sink, state.tokens, state.delivery(sink.name).text)
        seconds = time.monotonic() - started
        reason, text, retry_after = (problem.reason, problem.text, problem.retry_after) if problem else (None, "", None)
        with credential.lock:
            credential.state = transitions.after_publish(
                credential.state or state, sink.name, state.tokens, reason, text, self._clock.now(), retry_after
            )
            failures = credential.state.delivery(sink.name).failures
        self._observer.notify(PublishFinished(credential.name, sink.name, problem, state.generation, seconds, failures))

    def _publish(self, name: str, sink: Sink, tokens: TokenSet, told: str) -> Problem | None:
        """Publish; a bug in a sink is a failed delivery, for no refresh may depend on it. `told`: the last failure."""
        try:
            return sink.publish(tokens)
        except Exception as error:  # noqa: BLE001 - no refresh may depend on a sink
            output = sink.name.replace("{name}", name)
            text = f"{output} failed by a bug: {type(error).__name__}; please report it"
            if text != told:
                self._observer.notify(Notice("bug", text, name, "critical", {"exception": error}))
            return Problem(Reason.IO_ERROR, text)

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
                output = sink.name.replace("{name}", credential.name)
                text = f"output {output} was deleted or changed by somebody else; it is written again"
                self._observer.notify(Notice("output_changed", text, credential.name, "warning"))
        return found
