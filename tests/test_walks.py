"""Random walks over the real line: whatever happens, in whatever order, the promises hold."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rotator.core.model import HOUR, RotationPolicy
from rotator.core.state import Status
from tests.model_server import ModelServer
from tests.world import Crash, World

POLICY = RotationPolicy(jitter=0.0)
MISHAPS = (
    "refused connection",
    "no name",
    "busy",
    "lost before",
    "5xx before",
    "invalid_client",
    "lost after",
    "5xx after",
)
ODDITIES = ("same again", "no access token")
LIFETIMES: tuple[object, ...] = (0, 1, 60, 1e9, "3600", "soon", True)
FIELDS: tuple[dict[str, object] | None, ...] = (None, {}, *({"expires_in": odd} for odd in LIFETIMES))


def logged_in(grace: float, *, rotates: bool = True) -> World:
    """Return a world in which somebody logged in and the token is about to be due."""
    world = World(ModelServer(grace=grace, rotates=rotates), POLICY)
    world.login()
    world.step()
    world.pass_time(2400)
    world.calls = 0
    return world


def calls_of_a_rotation() -> int:
    """Return how many chances to die a rotation has."""
    world = logged_in(10)
    world.step()
    return world.calls


@pytest.mark.parametrize("grace", [10.0, 0.0])
@pytest.mark.parametrize("off", [0, 1, 8])
def test_a_process_that_dies_anywhere_needs_no_human(grace: float, off: int) -> None:
    """B1 B12 invariants 1 2: dead at any call of a rotation and up again within the server's grace, it goes on.

    Without a grace window the same holds, but for the one stretch between the server's commit and the save.
    """
    total = calls_of_a_rotation()
    assert total == 12  # before and after: reserve, request, save, publish twice, tell the hook
    for crash_at in range(1, total + 1):
        world = logged_in(grace)
        world.crash_at = crash_at
        assert not world.step()
        world.pass_time(off)
        world.reopen()
        world.step_for(4000)
        lost = crash_at in (4, 5) and not grace
        assert (world.status() is Status.OK) == (not lost), crash_at
        assert world.server.reuses == lost
        if not lost:
            assert world.server.alive(world.newest()[0])
            assert world.published[-1].expires_at > world.clock.now()


@pytest.mark.parametrize(("mishap", "second"), [*itertools.product(MISHAPS, ("", "refused connection", "busy"))])
def test_a_mishap_needs_no_human(mishap: str, second: str) -> None:
    """B9 B12 B13 E13: one failure of any kind, and a try in between that did not arrive, heal within a lifetime."""
    world = logged_in(10)
    world.mishap = mishap
    world.step()
    world.mishap = second
    world.step_for(4000)
    if mishap in ("lost after", "5xx after") and second == "busy":
        return  # a server that is busy for longer than its own grace window has lost the answer for good
    assert (world.status(), world.server.reuses) == (Status.OK, 0)
    assert world.server.alive(world.newest()[0])


@pytest.mark.parametrize("second", MISHAPS)
def test_a_token_of_unknown_fate_is_not_risked_while_another_is_good(second: str) -> None:
    """B13: after a lost answer nothing is sent between the replay window's end and the access token's last minutes."""
    world = logged_in(0)
    lost_at, good_until = world.true, world.true + 1200
    world.mishap = "lost after"
    world.step()
    world.mishap = second
    while world.true < good_until - 121:
        world.pass_time(1)
        world.step()
        world.mishap = world.mishap or second
    assert [at for at in world.starts if at > lost_at + 10] == []


class Walk(RuleBasedStateMachine):
    """Anything at all may happen to a credential."""

    world: World

    @initialize(grace=st.sampled_from([0.0, 10.0]), rotates=st.booleans(), spills=st.booleans())
    def begin(self, grace: float, rotates: bool, spills: bool) -> None:
        """Log in once."""
        self.world = World(ModelServer(grace=grace, rotates=rotates), POLICY)
        self.world.spill = {} if spills else None
        self.world.login()
        self.generation = 0
        self.backup = dict(self.world.disk)
        self.shortest = HOUR

    # -- what always happens -------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 1, 5, 30, 600, 2400, 3600, 9000]))
    def time_passes(self, seconds: float) -> None:
        """Let time pass and step."""
        self.world.pass_time(seconds)
        self.step()

    @rule()
    def step(self) -> None:
        """Step once; a process that dies is started again."""
        if not self.world.step():
            self.crash(0.0)

    @rule()
    def due(self) -> None:
        """Let the time come at which something is due."""
        state = self.world.credential.state
        if state is not None and state.tokens is not None:
            self.world.pass_time(max(0.0, state.tokens.expires_at - 1000 - self.world.clock.at))
        self.step()

    @rule()
    def ask(self) -> None:
        """Ask for a rotation now."""
        self.world.ask()

    # -- the process ---------------------------------------------------------------------------

    @rule(error=st.sampled_from([0.0, 0.0, 3.0, 86400.0, -3.0, -86400.0]))
    def crash(self, error: float) -> None:
        """Kill the process between two steps; the clock may be another one afterwards."""
        self.world.reopen(error)

    @rule()
    def reboot(self) -> None:
        """Boot the machine, which empties what lies in memory."""
        if self.world.spill:
            self.world.spill.clear()
        self.crash(0.0)

    @rule(calls=st.integers(1, 12))
    def die_soon(self, calls: int) -> None:
        """Choose a call to die at."""
        self.world.crash_at = self.world.calls + calls

    @rule(seconds=st.sampled_from([10.0, 3600.0, 86400.0]))
    def clock_jumps_forward(self, seconds: float) -> None:
        """Set the wall clock forward, which the timeline follows."""
        self.world.clock.at += seconds
        self.world.error += seconds

    @rule(ratio=st.sampled_from([0.1, 0.5, 0.9]), margin=st.sampled_from([0.0, 90.0, 1e6]))
    def reload(self, ratio: float, margin: float) -> None:
        """Change the configuration."""
        self.world.policy = replace(POLICY, lifetime_ratio=ratio, min_remaining=margin)
        self.world.reload()

    @rule(lifetime=st.sampled_from([None, 7200.0, 2592000.0]), slides=st.booleans())
    def refresh_tokens_live(self, lifetime: float | None, slides: bool) -> None:
        """Say in the configuration how long refresh tokens live."""
        self.world.policy = replace(POLICY, refresh_token_lifetime=lifetime, refresh_token_slides=slides)
        self.world.reload()

    @rule(configured=st.booleans())
    def configured(self, configured: bool) -> None:
        """Take the credential out of the configuration, or put it back."""
        self.world.reload(configured=configured)

    # -- the machine ---------------------------------------------------------------------------

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        """Fill the disk, or make room."""
        self.world.disk_full = full

    @rule(when=st.sampled_from(["before", "after"]))
    def store_is_at_fault(self, when: str) -> None:
        """Let the next save fail by a bug."""
        self.world.store_fault = when

    @rule(full=st.booleans())
    def output(self, full: bool) -> None:
        """Fill the disk of the output, or make room."""
        self.world.sink_full = full

    @rule(hangs=st.booleans())
    def hook(self, hangs: bool) -> None:
        """Let hooks hang, or end."""
        self.world.hook_hangs = hangs

    @rule()
    def state_is_removed(self) -> None:
        """Remove the stored state; a patrol comes by."""
        self.world.change_disk({})
        self.world.rotator.has_lost(self.world.credential)

    @rule()
    def output_is_removed(self) -> None:
        """Remove what was published; a patrol comes by."""
        self.world.outputs[0].tampered = True
        self.world.rotator.publisher.reconcile(self.world.credential)

    @rule()
    def back_up(self) -> None:
        """Copy the stored state."""
        self.backup = dict(self.world.disk)

    @rule(running=st.booleans())
    def restore(self, running: bool) -> None:
        """Put the copy in the place of the stored state: under a running process only if it is older than memory."""
        self.world.change_disk(self.backup)
        memory, disk = self.world.credential.state, self.world.durable()
        if not running or (memory and disk and disk.generation > memory.generation):
            self.crash(0.0)

    # -- the server and the way there ----------------------------------------------------------

    @rule(mishap=st.sampled_from((*MISHAPS, *ODDITIES)))
    def mishap(self, mishap: str) -> None:
        """Spoil the next request."""
        self.world.mishap = mishap

    @rule(fields=st.sampled_from(FIELDS))
    def answers_are_odd(self, fields: dict[str, object] | None) -> None:
        """Let the server say something else of its tokens."""
        self.world.fields = fields
        self.shortest = 1.0 if fields else self.shortest

    @rule(rotates=st.booleans())
    def server_rotates(self, rotates: bool) -> None:
        """Let the server hand out new refresh tokens from now on, or no longer."""
        self.world.server.rotates = rotates

    @rule()
    def server_revokes(self) -> None:
        """Revoke everything."""
        self.world.server.revoked.update(one.family for one in self.world.server.issued.values())
        self.world.excused = True

    @rule(disabled=st.booleans())
    def user(self, disabled: bool) -> None:
        """Disable the user, or enable him again."""
        self.world.server.disabled = disabled
        self.world.excused = True

    # -- people, also while a request is out ---------------------------------------------------

    @rule()
    def login(self) -> None:
        """Log in anew."""
        try:
            self.world.login()
        except Crash:
            self.crash(0.0)

    @rule()
    def new_seed(self) -> None:
        """Change the seed."""
        self.world.new_seed()

    @rule()
    def touch_inputs(self) -> None:
        """Change the client secret."""
        self.world.stamp += 1

    @rule(
        when=st.sampled_from(["before", "hangs"]),
        what=st.sampled_from(["login", "new_seed", "ask", "out", "out and back", "sleep", "full", "room"]),
    )
    def during_a_request(self, when: str, what: str) -> None:
        """Let something happen between the next reservation and its request, or before its answer arrives."""
        world = self.world

        def happens() -> None:
            if what in ("out", "out and back"):
                world.reload(configured=False)
            if what == "out and back":
                world.reload()
            elif what == "sleep":
                world.pass_time(4 * HOUR)
            elif what in ("full", "room"):
                world.disk_full = what == "full"
            elif what != "out":
                getattr(world, what)()

        setattr(world, when, happens)

    # -- what holds ----------------------------------------------------------------------------

    @invariant()
    def a_received_pair_is_kept(self) -> None:
        """A pair whose answer arrived is in memory, or on disk, and usable."""
        if self.world.received is not None and self.world.credential.state is not None:
            tokens = self.world.credential.state.tokens
            kept = {tokens.refresh_token if tokens else None}
            kept |= {one.refresh_token for one in self.world.credential.state.earlier}
            assert self.world.received in kept, self.world.standstill()

    @invariant()
    def outputs_get_what_they_were_promised(self) -> None:
        """No empty token, none that is over in the place of a good one, and hooks last."""
        assert not self.world.broken

    @invariant()
    def nobody_is_asked_to_log_in_for_nothing(self) -> None:
        """Reauthorization is required only after an answer was lost, or the user was disabled."""
        if self.world.status() is Status.REAUTHORIZATION_REQUIRED:
            assert self.world.excused, self.world.standstill()

    @invariant()
    def the_generation_never_goes_down(self) -> None:
        """In memory it grows while the process lives, and it is never behind the disk's."""
        if self.world.credential.state is None:
            self.generation = 0
        else:
            generation = self.world.credential.state.generation
            durable = self.world.durable()
            assert generation >= self.generation
            assert generation >= (durable.generation if durable else 0)
            self.generation = generation

    @invariant()
    def calls_are_bounded(self) -> None:
        """No hour has more calls than the fuse lets through, unless access tokens live for seconds."""
        starts = self.world.starts[-300:]
        assert sum(start > self.world.true - HOUR for start in starts) <= 250 * HOUR / self.shortest

    def teardown(self) -> None:
        """After a day of peace all is well again, at most after a login."""
        if hasattr(self, "world"):
            self.world.make_peace()
            if self.world.status() is Status.REAUTHORIZATION_REQUIRED or self.world.newest()[0] is None:
                assert self.world.excused, self.world.standstill()
                self.world.login()
                self.world.rest(HOUR)
            self.world.assert_well()


Walk.TestCase.settings = settings(
    max_examples=200, stateful_step_count=50, derandomize=True, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
TestWalk = Walk.TestCase
