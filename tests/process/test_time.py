"""Clocks that jump, machines that sleep, days that have 23 or 25 hours: the real daemon, the real C library's clock."""

import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from rotator.adapters.control_client import ControlClient
from tests.needs import FAKETIME, needs
from tests.process.life import Life, events, rotate, wait_for_generation
from tests.process.rig import PATIENCE, DaemonProcess

HOUR: Final = 3600


class FakedClock:
    """A wall clock for one daemon, so many seconds away from the true one; changed while it runs."""

    def __init__(self, directory: Path, offset: float = 0) -> None:
        needs("faketime")
        self._file = directory / "faketime"
        self.set(offset)
        self.environment = {
            "LD_PRELOAD": FAKETIME,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",  # it cannot be set on a real machine either
            "NO_FAKE_STAT": "1",
        }

    def set(self, offset: float) -> None:
        """Set the clock."""
        temporary = self._file.with_suffix(".new")
        temporary.write_text(f"{offset:+.3f}")
        temporary.rename(self._file)


def _steps(daemon: DaemonProcess) -> float:
    """Return by how many jumps the clock is ahead; faketime, read by many threads, may show the true time once."""
    forward, backward = (
        daemon.sample("rotator_clock_jumps_total", direction=direction) for direction in ("forward", "backward")
    )
    return forward - backward


def _expires_in(daemon: DaemonProcess, step: float) -> float:
    """Return how long the token lasts for whoever compares it with a clock that was set; see `_steps`, too."""
    expiry = daemon.sample("rotator_access_token_expiry_timestamp_seconds", credential="home")
    return expiry - (time.time() + step)


def _cycle(daemon: DaemonProcess) -> None:
    wait_for_generation(daemon, daemon.shown()["generation"] + 1)


@pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["backward", "forward"])
def test_a_clock_that_is_set_while_running_causes_no_lapse(life: Life, step: float) -> None:
    """D10, L2: the wall clock is set by an hour and back again: refreshes go on, jumps are counted, no call fails."""
    life.server.sandbox.change(access_lifetime=20)
    life.refresh["ratio"] = 0.2  # a refresh each four seconds, and no lapse because this machine is slow
    life.configure()
    clock = FakedClock(life.directory)
    life.put_pair(age=0, lifetime=20)
    with life.daemon(environment=clock.environment) as daemon:
        daemon.wait_until(life.has_good_token, "the token is published")
        with life.consumer() as consumer:
            _cycle(daemon)
            clock.set(step)
            daemon.wait_until(lambda: _steps(daemon) == (1 if step > 0 else -1), "the jump is counted")
            _cycle(daemon)
            daemon.wait_until(lambda: abs(_expires_in(daemon, step)) < 60, "the expiry is told in terms of that clock")
            clock.set(0)
            daemon.wait_until(lambda: _steps(daemon) == 0, "both are counted")
            _cycle(daemon)
            consumer.go_on()
        assert consumer.refused == 0
        assert daemon.stop() == 0
    assert life.books.replays_outside_grace == 0


def test_a_clock_that_was_set_back_before_the_start_is_not_believed(life: Life) -> None:
    """D9: no battery: the clock is two weeks behind what was saved, so the credential is refreshed at once."""
    life.server.sandbox.change(access_lifetime=HOUR)
    clock = FakedClock(life.directory, -14 * 24 * HOUR)
    life.put_pair(age=0, lifetime=HOUR)
    with life.daemon(environment=clock.environment) as daemon:
        wait_for_generation(daemon, 2)
        assert events(daemon, "clock_suspect")
        daemon.wait_until(life.has_good_token, "the new token is published")
        assert daemon.sample("rotator_clock_suspect", credential="home") == 0
        assert daemon.shown()["standing"] == "valid"
        assert daemon.stop() == 0
    with life.daemon() as daemon:  # the clock is right again
        wait_for_generation(daemon, 3)  # two weeks have passed, for all anybody knows
        assert rotate(daemon)["standing"] == "valid"


@pytest.mark.parametrize(
    "change", [datetime(2026, 10, 25, 1, tzinfo=UTC), datetime(2027, 3, 28, 1, tzinfo=UTC)], ids=["autumn", "spring"]
)
def test_a_day_of_23_or_25_hours_is_a_day_like_any_other(life: Life, change: datetime) -> None:
    """D5: across both changes in Amsterdam a token of an hour is not refreshed and no jump is seen."""
    needs("tzdata")
    life.server.sandbox.change(access_lifetime=HOUR)
    now = datetime.now(UTC)
    clock = FakedClock(life.directory, (change - timedelta(minutes=10) - now).total_seconds())
    with life.daemon(environment=clock.environment | {"TZ": "Europe/Amsterdam"}) as daemon:
        ControlClient(life.socket, PATIENCE).post("/v1/adopt/home", {"pair": life.sandbox.issue()["refresh_token"]})
        wait_for_generation(daemon, 2)
        books = life.books
        clock.set((change - timedelta(seconds=4) - datetime.now(UTC)).total_seconds())  # a jump of minutes, counted
        daemon.wait_until(lambda: _steps(daemon) == 1, "ten minutes have passed")
        daemon.wait_until(lambda: _fake_now(daemon) > change.timestamp() + 4, "the change of the hour is over")
        assert _steps(daemon) == 1
        assert daemon.shown()["generation"] == 2
        assert life.books == books
        assert daemon.stop() == 0


def _fake_now(daemon: DaemonProcess) -> float:
    """Return the daemon's wall clock."""
    issued = daemon.sample("rotator_access_token_issued_timestamp_seconds", credential="home")
    return issued + daemon.sample("rotator_access_token_age_seconds", credential="home")


def test_the_boot_clock_of_another_boot_means_nothing(life: Life) -> None:
    """D1: what is saved is independent of the boot clock: in a time namespace hours ahead nothing is due."""
    needs("time namespace")
    life.server.sandbox.change(access_lifetime=HOUR)
    life.put_pair(age=0, lifetime=HOUR)
    namespace = ("unshare", "--time", "--boottime", "7200", "--monotonic", "100", "--fork")
    with life.daemon(prefix=namespace) as daemon:
        daemon.wait_until(life.has_good_token, "the token is published")
        assert daemon.shown()["standing"] == "valid"
        assert 0 <= daemon.sample("rotator_access_token_age_seconds", credential="home") < 60
        assert daemon.stop() == 0
    with life.daemon() as daemon:
        daemon.wait_until(lambda: daemon.shown()["generation"] == 1, "generation 1 is read")
        assert not events(daemon, "clock_suspect")
        assert rotate(daemon)["generation"] == 2
        assert daemon.stop() == 0
    with life.daemon(prefix=namespace) as daemon:
        daemon.wait_until(lambda: daemon.shown()["generation"] == 2, "generation 2 is read")
        assert not events(daemon, "clock_suspect")
    assert life.books.refresh_grants == 1


def test_a_stopped_process_wakes_up_to_the_truth(life: Life) -> None:
    """D1, D2: SIGSTOP for longer than the access token lives; after SIGCONT a good one is there within seconds."""
    life.put_pair(age=0, lifetime=4)
    with life.daemon() as daemon:
        wait_for_generation(daemon, 2)
        os.kill(daemon.pid, signal.SIGSTOP)
        daemon.wait_until(lambda: not life.has_good_token(), "the token is over")
        os.kill(daemon.pid, signal.SIGCONT)
        assert _seconds(daemon, life.has_good_token) < 15
        assert daemon.shown()["standing"] == "valid"
        _cycle(daemon)
    assert life.books.replays_outside_grace == 0


def _seconds(daemon: DaemonProcess, until: Callable[[], object]) -> float:
    started = time.monotonic()
    daemon.wait_until(until, "a good token")
    return time.monotonic() - started
