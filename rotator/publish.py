"""Publishing: each output has its own turn and its own retry, and never causes a token call (case E9)."""

import time

from rotator.core import state as transitions
from rotator.core.model import Publish
from rotator.core.schedule import next_action
from rotator.credential import Credential
from rotator.ports import Clock, Notice, Observer, PublishFinished


class Publisher:
    """Brings outputs up to date, one thread at a time for each credential."""

    def __init__(self, clock: Clock, observer: Observer) -> None:
        """Take the ports."""
        self._clock = clock
        self._observer = observer

    def publish_due(self, credential: Credential) -> None:
        """Bring every output up to date that is due, and do nothing else: a login need not wait for a hung request."""
        while (state := credential.state) is not None:
            plan = credential.plan
            action = next_action(state, plan.policy, plan.grant, plan.sink_refs, self._clock.now(), credential.spread)
            if not isinstance(action, Publish):
                return
            self.publish(credential, action.sink)

    def publish(self, credential: Credential, sink_name: str) -> None:
        """Bring one sink up to the current generation, unless somebody else just did."""
        sink = next(sink for sink in credential.plan.sinks if sink.name == sink_name)
        with credential.delivering:
            with credential.lock:  # not between an answer's save and its lifetime being read
                state = credential.state
            if state is None or state.tokens is None or state.delivery(sink_name).generation >= state.generation:
                return  # somebody else was quicker
            started = time.monotonic()
            problem = sink.publish(state.tokens)
            seconds = time.monotonic() - started
            reason, text, retry_after = (
                (problem.reason, problem.text, problem.retry_after) if problem else (None, "", None)
            )
            with credential.lock:
                credential.state = transitions.after_publish(
                    credential.state or state, sink_name, state.tokens, reason, text, self._clock.now(), retry_after
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
                output = sink.name.replace("{name}", credential.name)
                text = f"output {output} was deleted or changed by somebody else; it is written again"
                self._observer.notify(Notice("output_changed", text, credential.name, "warning"))
        return found
