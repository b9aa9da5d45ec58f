"""Whatever ends the daemon, systemd starts it again, no token is lost and consumers keep what they have."""

import time

import pytest

from tests.testbed.systemd.installed import UNIT, Installed

AT_ONCE = "RestartSec=100ms"
"""Instead of the unit's 5 s, which a test need not wait for."""


@pytest.fixture
def running(installed: Installed) -> Installed:
    """A daemon that is logged in and started again at once."""
    installed.drop_in("at-once", AT_ONCE)
    installed.machine.run("systemctl", "daemon-reload")
    installed.start()
    installed.login()
    return installed


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_a_killed_daemon_is_started_again(running: Installed, signal: str) -> None:
    """Killed or crashed while it waits: started again, with its state, without a token call; the token stays."""
    before = running.token_stamp()
    running.kill(signal)
    running.wait_until(lambda: running.restarts() == 1 and running.state() == "active", "it is started again")
    assert running.shown()["generation"] == 1
    assert running.token_stamp() == before
    assert running.books.token_requests == {"granted": 1}
    assert running.rotate()["generation"] == 2
    assert running.books.replays_outside_grace == 0


def test_a_hook_that_is_killed_takes_nobody_with_it(running: Installed) -> None:
    """As the kernel does when a hook takes too much memory: it is told of the hook, and the daemon goes on.

    That systemd does not stop the unit then, which OOMPolicy= says, shows only where the memory controller counts.
    """
    running.configure(defaults="hooks = [{ command = ['/bin/sh', '-c', 'kill -KILL $$'] }]")
    running.machine.run("systemctl", "reload", UNIT)
    assert running.machine.show(UNIT, "OOMPolicy")["OOMPolicy"] == "continue"
    pid = running.main_pid()
    assert running.rotate()["generation"] == 2
    told = "the hook /bin/sh was ended by signal 9, as when memory runs out"
    running.wait_until(lambda: told in running.log(), "it is told")
    assert (running.state(), running.main_pid(), running.restarts()) == ("active", pid, 0)
    assert running.has_good_token()


def test_a_kill_during_a_token_call_heals(running: Installed) -> None:
    """As the kernel does when memory runs out: the server has rotated already; the next daemon asks once more."""
    running.server.sandbox.change(grace_seconds=60)
    running.server.sandbox.script(["after:hang"])
    running.begin_rotation()
    running.kill("SIGKILL")
    running.wait_until(lambda: running.restarts() == 1, "it is started again")
    running.server.sandbox.change()
    running.wait_for_generation(2)
    assert running.books.replays_in_grace == 1
    assert running.books.replays_outside_grace == 0
    assert running.books.families_revoked == 0


def test_the_watchdog_kills_a_hung_daemon_and_no_hanging_token_call(running: Installed) -> None:
    """I3, I9: a server that hangs for longer than the watchdog's time is waited for; a daemon that hangs is killed.

    The sweep feeds the watchdog, and a token call does not hold it up. Hung, with that call under way, the
    daemon is started again within the limit and asks for the lost answer once more.
    """
    running.drop_in("watchdog", "WatchdogSec=2s")
    running.machine.run("systemctl", "daemon-reload")
    running.machine.run("systemctl", "restart", UNIT)
    running.server.sandbox.change(grace_seconds=60)
    running.server.sandbox.script(["after:hang"])
    running.begin_rotation()
    pid, hung_at = running.main_pid(), time.monotonic()
    running.wait_until(lambda: time.monotonic() > hung_at + 5, "the call has hung for more than twice the time")
    assert running.shown()["refreshing"]
    assert (running.main_pid(), running.restarts()) == (pid, 0)
    running.kill("SIGSTOP")
    running.wait_until(lambda: running.restarts() == 1, "the hung daemon is started again")
    assert "Watchdog timeout (limit 2s)!" in running.log()
    running.server.sandbox.change()
    running.wait_for_generation(2)
    assert running.books.replays_in_grace == 1
    assert running.books.families_revoked == 0


def test_a_watchdog_that_comes_with_a_drop_in_kills_nobody(running: Installed) -> None:
    """I1: the daemon reads the time at its start alone; a shorter one that comes meanwhile is in force at the next."""
    pid, changed_at = running.main_pid(), time.monotonic()
    running.drop_in("watchdog", "WatchdogSec=2s")
    running.machine.run("systemctl", "daemon-reload")
    running.wait_until(lambda: time.monotonic() > changed_at + 5, "more than twice the time is over")
    assert (running.main_pid(), running.restarts()) == (pid, 0)
    running.machine.run("systemctl", "restart", UNIT)
    assert running.machine.show(UNIT, "WatchdogUSec")["WatchdogUSec"] == "2s"


def test_a_restart_storm_ends(running: Installed) -> None:
    """What dies at each start is given up on after twenty, and shows as failed; the token stays, a repair heals it."""
    running.drop_in("broken", "ExecStart=", "ExecStart=/bin/sh -c 'kill -SEGV $$$$'")
    running.machine.run("systemctl", "daemon-reload")
    running.kill("SIGKILL")
    running.wait_until(lambda: running.state() == "failed", "it is given up on")
    assert 20 <= running.restarts() <= 21
    assert "Start request repeated too quickly." in running.log()
    assert running.has_good_token()
    running.drop_in("broken")
    running.machine.run("systemctl", "daemon-reload")
    running.machine.run("systemctl", "reset-failed", UNIT)
    running.start()
    assert running.shown()["generation"] == 1
    assert running.books.token_requests == {"granted": 1}
