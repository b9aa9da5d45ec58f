"""How the service ends: an answer under way is waited for, and what a restart cannot heal is not started again."""

import pytest

from tests.testbed.systemd.installed import UNIT, Installed


def test_a_stop_during_a_token_call_waits_for_the_answer(installed: Installed) -> None:
    """The answer is waited for and saved within TimeoutStopSec, which says meanwhile what is waited for."""
    installed.start()
    installed.login()
    installed.server.sandbox.change(latency_seconds=3)
    installed.begin_rotation()
    installed.machine.run("systemctl", "--no-block", "stop", UNIT)
    installed.wait_until(lambda: installed.state() == "deactivating", "the stop has begun")
    said = installed.says()
    assert said == "stopping: token requests under way, whose answers are waited for: 1"
    installed.wait_until(lambda: installed.state() == "inactive", "it has stopped")
    assert installed.machine.show(UNIT, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}
    assert installed.stored()["tokens"]["generation"] == 2
    assert installed.stored().get("refresh_started_at") is None
    assert installed.books.token_requests == {"granted": 2}


def test_a_stop_may_take_longer_than_the_unit_says_if_the_daemon_needs_it(installed: Installed) -> None:
    """A TimeoutStopSec that is too short for the configuration's own limits cuts off no answer."""
    installed.drop_in("short", "TimeoutStopSec=1s")
    installed.machine.run("systemctl", "daemon-reload")
    installed.start()
    installed.login()
    installed.server.sandbox.change(latency_seconds=3)
    installed.begin_rotation()
    installed.machine.run("systemctl", "stop", UNIT)
    assert installed.machine.show(UNIT, "Result")["Result"] == "success"
    assert installed.stored()["tokens"]["generation"] == 2


LINGERER = """#!/bin/sh
# Leaves a child behind, which notes whether it is asked to end.
(
    trap 'echo asked >/run/rotator/lingerer' TERM
    echo there >/run/rotator/lingerer
    while :; do sleep 0.1; done
) >/dev/null 2>&1 &
"""


def test_a_stop_asks_the_daemon_alone_and_leaves_nothing_running(installed: Installed) -> None:
    """KillMode=mixed: no command that the daemon waits for is hit by SIGTERM; what outlives the daemon is killed."""
    installed.machine.write("/usr/local/bin/lingerer", LINGERER, 0o755)
    installed.configure(defaults='hooks = [{ command = ["/usr/local/bin/lingerer"] }]')
    installed.start()
    installed.login()
    noted = installed.machine.root / "run/rotator/lingerer"
    installed.wait_until(lambda: noted.exists() and noted.read_text() == "there\n", "the hook has left a child behind")
    installed.machine.run("systemctl", "stop", UNIT)
    assert installed.machine.show(UNIT, "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    assert noted.read_text() == "there\n"
    assert installed.machine.run("pgrep", "--full", "lingerer", check=False).stdout == ""


def test_the_unit_gives_a_stop_more_time_than_the_daemon_takes_by_default(installed: Installed) -> None:
    """TimeoutStopSec is longer than the longest token request and its save."""
    assert installed.machine.show(UNIT, "TimeoutStopUSec")["TimeoutStopUSec"] == "2min"
    assert 'drain_timeout = "105s"' in installed.machine.run("rotator", "config", "show").stdout


def test_a_stop_takes_no_token_away(installed: Installed) -> None:
    """After a stop the token is still there for its readers, good and as it was; only the socket is gone."""
    installed.start()
    installed.login()
    before = installed.token_stamp()
    installed.machine.run("systemctl", "stop", UNIT)
    assert installed.token_stamp() == before
    assert installed.has_good_token()
    assert [path.name for path in installed.token_file().parent.iterdir()] == ["home.token"]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("printf '[daemon\\n' > /etc/rotator/rotator.toml", "is not TOML"),
        ("rm /etc/rotator/rotator.toml", "cannot be read (No such file or directory): create it"),
        ("chmod 600 /etc/rotator/rotator.toml", "cannot be read (Permission denied): correct its permissions"),
    ],
    ids=["wrong", "missing", "closed"],
)
def test_a_configuration_that_is_wrong_is_not_tried_again(installed: Installed, command: str, told: str) -> None:
    """Status 78: the start fails once, with the reason and the cure in the journal, and there it ends."""
    installed.machine.run("sh", "-c", command)
    assert installed.machine.run("systemctl", "start", UNIT, check=False).returncode != 0
    shown = installed.machine.show(UNIT, "ActiveState", "Result", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78", "NRestarts": "0"}
    assert told in installed.log()
    installed.configure()
    installed.start()


def test_a_dead_grant_alone_is_no_reason_to_end(installed: Installed) -> None:
    """I11: by default the daemon stays and the status says what to do; a login heals it."""
    installed.start()
    installed.login()
    installed.server.sandbox.revoke()
    installed.rotate()
    installed.wait_until(lambda: installed.shown()["standing"] == "reauthorization_required", "the grant is dead")
    installed.wait_until(lambda: "1 needs a login (home)" in installed.says(), "it is told")
    assert installed.state() == "active"
    installed.login()
    assert installed.rotate()["standing"] == "valid"
    assert installed.restarts() == 0


def test_a_dead_grant_ends_the_daemon_where_that_is_wanted(installed: Installed) -> None:
    """I11: with `on_dead_grant = "exit"` it ends with status 77 and is not started again, since that heals nothing."""
    installed.configure(daemon='on_dead_grant = "exit"')
    installed.start()
    installed.login()
    installed.server.sandbox.revoke()
    installed.rotate()
    installed.wait_until(lambda: installed.state() == "failed", "it has ended")
    shown = installed.machine.show(UNIT, "Result", "ExecMainStatus", "NRestarts")
    assert shown == {"Result": "exit-code", "ExecMainStatus": "77", "NRestarts": "0"}


def test_what_may_pass_is_tried_again(installed: Installed) -> None:
    """Status 75: somebody else has the state; started again until he is gone."""
    installed.drop_in("at-once", "RestartSec=200ms")
    installed.machine.run("systemctl", "daemon-reload")
    machine = installed.machine
    machine.run("install", "-d", "-o", "rotator", "-g", "rotator", "-m", "700", "/var/lib/rotator")
    hold = ("flock", "/var/lib/rotator/.lock", "sh", "-c", "echo >/var/lib/rotator/held; sleep 60")
    machine.run("systemd-run", "--unit=holder", "--uid=rotator", *hold)
    installed.wait_until((machine.root / "var/lib/rotator/held").exists, "somebody has the state")
    installed.machine.run("systemctl", "--no-block", "start", UNIT)
    installed.wait_until(lambda: installed.restarts() >= 2, "it is tried again")
    installed.machine.run("systemctl", "stop", "holder")
    installed.wait_until(lambda: installed.state() == "active", "it is up")
