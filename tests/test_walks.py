"""Random walks over the real line: whatever happens, in whatever order, the promises hold."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rotator.core.model import HOUR, RotationPolicy
from rotator.core.state import Status
from tests.world import Crash, ModelServer, World

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
    assert total == 8  # before and after: reserve, request, save, publish
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

    @initialize(grace=st.sampled_from([0.0, 10.0]), rotates=st.booleans())
    def begin(self, grace: float, rotates: bool) -> None:
        """Log in once."""
        self.world = World(ModelServer(grace=grace, rotates=rotates), POLICY)
        self.world.login()
        self.generation = 0
        self.killed = False

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

    @rule(error=st.sampled_from([0.0, 0.0, 3.0, 86400.0, -3.0, -86400.0]))
    def crash(self, error: float) -> None:
        """Kill the process between two steps; the clock may be another one afterwards."""
        memory, disk = self.world.newest()
        if memory != disk and memory is not None:
            self.world.excused = True  # an unsaved pair dies with the process
        self.world.received = None
        self.world.reopen(error)
        self.generation = 0

    @rule(calls=st.integers(1, 12))
    def die_soon(self, calls: int) -> None:
        """Choose a call to die at."""
        self.world.crash_at = self.world.calls + calls

    @rule(mishap=st.sampled_from(MISHAPS))
    def mishap(self, mishap: str) -> None:
        """Spoil the next request."""
        self.world.mishap = mishap

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        """Fill the disk, or make room."""
        self.world.disk_full = full

    @rule(full=st.booleans())
    def output(self, full: bool) -> None:
        """Fill the disk of the output, or make room."""
        self.world.sink_full = full

    @rule(seconds=st.sampled_from([10.0, 3600.0, 86400.0]))
    def clock_jumps_forward(self, seconds: float) -> None:
        """Set the wall clock forward, which the timeline follows."""
        self.world.clock.at += seconds

    @rule()
    def login(self) -> None:
        """Log in anew."""
        try:
            self.world.login()
        except Crash:
            self.crash(0.0)

    @rule()
    def login_during_a_request(self) -> None:
        """Log in while the next request is out."""
        self.world.hangs = self.world.login

    @rule()
    def new_seed(self) -> None:
        """Change the seed."""
        self.world.seed = self.world.server.login().refresh_token or ""
        self.world.stamp += 1
        self.world.received = None  # it counts no longer

    @rule()
    def touch_inputs(self) -> None:
        """Change the client secret."""
        self.world.stamp += 1

    @rule(disabled=st.booleans())
    def user(self, disabled: bool) -> None:
        """Disable the user, or enable him again."""
        self.world.server.disabled = disabled
        self.world.excused = True

    @rule(ratio=st.sampled_from([0.1, 0.5, 0.9]), margin=st.sampled_from([0.0, 90.0, 1e6]))
    def reload(self, ratio: float, margin: float) -> None:
        """Change the configuration."""
        self.world.policy = replace(POLICY, lifetime_ratio=ratio, min_remaining=margin)
        self.world.credential.plan = self.world.plan()

    @invariant()
    def a_received_pair_is_kept(self) -> None:
        """A pair whose answer arrived is in memory, or on disk, and usable."""
        if hasattr(self, "world") and self.world.received is not None and self.world.credential.state is not None:
            tokens = self.world.credential.state.tokens
            kept = {tokens.refresh_token if tokens else None}
            kept |= {one.refresh_token for one in self.world.credential.state.earlier}
            assert self.world.received in kept, self.world.standstill()

    @invariant()
    def nobody_is_asked_to_log_in_for_nothing(self) -> None:
        """Reauthorization is required only after an answer was lost, or the user was disabled."""
        if hasattr(self, "world") and self.world.status() is Status.REAUTHORIZATION_REQUIRED:
            assert self.world.excused, self.world.standstill()

    @invariant()
    def the_generation_never_goes_down(self) -> None:
        """In memory it grows while the process lives, and it is never behind the disk's."""
        if hasattr(self, "world") and self.world.credential.state is not None:
            generation = self.world.credential.state.generation
            durable = self.world.durable()
            assert generation >= self.generation
            assert generation >= (durable.generation if durable else 0)
            self.generation = generation

    @invariant()
    def calls_are_bounded(self) -> None:
        """No two calls within a second, and no hour with more than the fuse lets through."""
        if hasattr(self, "world"):
            starts = self.world.starts[-300:]
            assert sum(start > self.world.true - HOUR for start in starts) <= 250


Walk.TestCase.settings = settings(
    max_examples=300, stateful_step_count=50, derandomize=True, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
TestWalk = Walk.TestCase
