"""For those who prefer timers: refresh what is due, and end."""

import time

import pytest

from tests.testbed.systemd.installed import Installed

ONCE = "rotator-once.service"
TIMER = "rotator-once.timer"


@pytest.fixture
def timed(installed: Installed) -> Installed:
    """A machine without a daemon; its timer does not wait by chance, as it would for up to half a minute."""
    machine = installed.machine
    installed.drop_in("credentials", "LoadCredential=client-secret:/etc/rotator/client-secret", unit=ONCE)
    installed.drop_in("at-once", "RandomizedDelaySec=0", unit=TIMER, section="Timer")
    machine.run("systemctl", "daemon-reload")
    return installed


def log_in(installed: Installed) -> None:
    """Log in through a daemon that is there for that alone."""
    installed.start()
    installed.login()
    installed.machine.run("systemctl", "stop", "rotator")


def ended(installed: Installed) -> dict[str, str]:
    """Return how the last run ended."""
    return installed.machine.show(ONCE, "ActiveState", "Result", "ExecMainStatus")


def run_once(installed: Installed) -> dict[str, str]:
    """Run it as the timer would, and return how that ended."""
    installed.machine.run("systemctl", "start", ONCE, check=False)
    return ended(installed)


def test_the_timer_refreshes_what_is_due(timed: Installed) -> None:
    """Started by the timer, a run refreshes what is due and publishes it; the next run is planned."""
    timed.server.sandbox.change(access_lifetime=4)
    log_in(timed)
    timed.server.sandbox.change(access_lifetime=3600)
    timed.wait_until(lambda: timed.stored()["tokens"]["expires_at"] < time.time(), "the token is over")
    timed.machine.run("systemctl", "start", TIMER)
    timed.wait_until(timed.has_good_token, "the token is published")
    timed.wait_until(lambda: ended(timed)["ActiveState"] == "inactive", "the run has ended")
    assert ended(timed)["Result"] == "success"
    assert timed.machine.show(TIMER, "NextElapseUSecRealtime")["NextElapseUSecRealtime"]
    assert timed.stored()["tokens"]["generation"] == 2


def test_that_nothing_is_due_is_a_success(timed: Installed) -> None:
    """I10: run again and again with nothing to do, the unit never shows as failed, and sends nothing."""
    log_in(timed)
    timed.machine.run("rm", "/run/rotator/home.token")
    for _ in range(2):
        assert run_once(timed) == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}
        assert timed.has_good_token()
    assert timed.books.token_requests == {"granted": 1}


def test_a_credential_without_a_valid_token_fails_the_run(timed: Installed) -> None:
    """I10: the token is over: status 75 while the server is away, 77 if somebody must log in; a login heals it."""
    timed.server.sandbox.change(access_lifetime=4)
    log_in(timed)
    timed.server.sandbox.change(access_lifetime=3600, fault="503")
    timed.wait_until(lambda: timed.stored()["tokens"]["expires_at"] < time.time(), "the token is over")
    assert run_once(timed) == {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "75"}
    timed.server.sandbox.change(fault="")
    timed.server.sandbox.revoke()
    timed.wait_until(lambda: run_once(timed)["ExecMainStatus"] == "77", "somebody must log in")
    log_in(timed)
    assert run_once(timed)["ActiveState"] == "inactive"


def test_a_wrong_configuration_fails_the_run(timed: Installed) -> None:
    """I10: status 78, with the reason in the journal."""
    timed.configure(defaults="ratio = 2")
    assert run_once(timed) == {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78"}
    assert "ratio" in str(timed.machine.journal(ONCE))


def test_a_run_beside_the_daemon_sends_nothing(timed: Installed) -> None:
    """The daemon has the state: status 75, and the daemon's process is named."""
    timed.start()
    assert run_once(timed)["ExecMainStatus"] == "75"
    assert f"in use by another rotator, process {timed.main_pid()}" in str(timed.machine.journal(ONCE))
