"""The daemon's clock under wall clocks that jump."""

import time

from hypothesis import given
from hypothesis import strategies as st

from rotator.adapters.clock import BootClock

DAY = 86400.0
START = 1_700_000_000.0


class Machine:
    """A machine's two clocks: the wall clock can be set, the boot clock only goes on."""

    def __init__(self) -> None:
        self.wall = START
        self.boot = 1000.0
        self.clock = BootClock(lambda: self.wall, lambda: self.boot)

    def passes(self, seconds: float) -> None:
        """Let time pass on both clocks, awake or asleep: CLOCK_BOOTTIME counts suspend."""
        self.wall += seconds
        self.boot += seconds

    def jumps(self) -> tuple[int, int]:
        """Return the jumps that were counted, forward and backward."""
        return self.clock.jumps_forward, self.clock.jumps_backward


def test_suspend_is_time_that_passed() -> None:
    """D1 D2: after eight hours asleep the clock is eight hours on, and that is no jump."""
    machine = Machine()
    machine.passes(8 * 3600)
    assert machine.clock.now() == START + 8 * 3600
    assert machine.jumps() == (0, 0)


def test_a_wall_clock_that_stood_still_in_suspend_does_not_matter() -> None:
    """D1: where only the boot clock counted the sleep, the timeline has it all the same."""
    machine = Machine()
    machine.boot += 8 * 3600
    assert machine.clock.now() == START + 8 * 3600
    assert machine.jumps() == (0, 1)


def test_a_clock_that_is_set_back_makes_nothing_younger() -> None:
    """D9 D10: with the wall clock two weeks back, time goes on as the boot clock says."""
    machine = Machine()
    machine.passes(100)
    machine.clock.now()
    machine.wall -= 14 * DAY
    assert machine.clock.now() == START + 100
    machine.passes(50)
    assert machine.clock.now() == START + 150
    assert machine.jumps() == (0, 1)


def test_a_clock_that_is_set_forward_is_followed() -> None:
    """D9: a machine that boots without a clock and gets the time later has the right time at once."""
    machine = Machine()
    machine.wall += 3650 * DAY
    assert machine.clock.now() == START + 3650 * DAY
    assert machine.jumps() == (1, 0)
    machine.passes(10)
    assert machine.clock.now() == START + 3650 * DAY + 10
    assert machine.jumps() == (1, 0)


def test_outputs_show_what_the_wall_clock_will_show() -> None:
    """D10: after a step back an instant of the timeline is told in the wall clock's own terms."""
    machine = Machine()
    instant = machine.clock.now() + 3600
    assert machine.clock.wall(instant) == instant
    machine.wall -= DAY
    assert machine.clock.wall(instant) == instant - DAY
    machine.passes(3600)
    assert machine.clock.wall(instant) == machine.wall


def test_small_corrections_are_no_jumps() -> None:
    """D10: a second's correction is followed without being counted, and shifts no published instant."""
    machine = Machine()
    for step in (1.0, -1.5, 0.9):
        machine.wall += step
        machine.clock.now()
    assert machine.jumps() == (0, 0)
    assert machine.clock.wall(START + 9) == START + 9


def test_the_real_clocks_agree() -> None:
    """D7: without arguments the clock shows the machine's own time, in any zone."""
    clock = BootClock()
    before = time.time()
    assert before - 1 <= clock.now() <= time.time() + 1


@given(st.lists(st.tuples(st.floats(0, DAY), st.floats(-30 * DAY, 30 * DAY) | st.just(0.0)), max_size=30))
def test_never_backward(moves: list[tuple[float, float]]) -> None:
    """D9 D10: whatever the wall clock is set to, time never goes back, and never slower than the boot clock."""
    machine = Machine()
    last = machine.clock.now()
    for passing, step in moves:
        machine.passes(passing)
        machine.wall += step
        now = machine.clock.now()
        assert now >= machine.wall
        assert now - last >= passing - 1e-3
        assert abs(machine.clock.wall(now) - machine.wall) <= 2
        last = now


@given(st.lists(st.floats(-30 * DAY, 30 * DAY), max_size=20))
def test_every_jump_is_counted_once(steps: list[float]) -> None:
    """D9 L4: each step of more than two seconds counts once, in its direction, however often one looks."""
    machine = Machine()
    forward = backward = 0
    for step in steps:
        large = step if abs(step) > 3 else 0.0
        machine.wall += large
        forward += large > 0
        backward += large < 0
        for _ in range(3):
            machine.passes(1)
            machine.clock.now()
    assert machine.jumps() == (forward, backward)
