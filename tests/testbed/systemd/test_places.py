"""Directories that are full, or that belong to somebody else."""

import re

import pytest

from tests.process.rig import CLIENT_SECRET, PASSWORD, ROOT, USERNAME
from tests.testbed.systemd.installed import UNIT, Installed

STATE = "/var/lib/rotator"


def owner_and_mode(installed: Installed, path: str) -> str:
    """Return what `ls` shows of a path, e.g. `rotator:rotator 700`."""
    return installed.machine.run("stat", "--format=%U:%G %a", path).stdout.strip()


def test_a_full_state_directory_costs_no_refresh_token(installed: Installed) -> None:
    """Full before the start and during it: nothing is sent, nobody is restarted, the status says so; room heals it."""
    machine = installed.machine
    machine.run("mkdir", STATE)
    machine.run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", STATE)
    installed.start()
    installed.login()
    machine.run("sh", "-c", f"cat /dev/zero >{STATE}/filler; chmod 600 {STATE}/filler", check=False)
    machine.run("systemctl", "restart", UNIT)
    shown = installed.rotate()
    assert shown["generation"] == 1
    assert "ENOSPC" in shown["text"]
    assert installed.has_good_token()
    assert installed.books.token_requests == {"granted": 1}
    installed.wait_until(lambda: "1 is failing (home)" in installed.says(), "the status tells")
    assert (installed.state(), installed.restarts()) == ("active", 0)
    machine.run("rm", f"{STATE}/filler")
    assert installed.rotate()["generation"] == 2
    machine.run("systemctl", "stop", UNIT)
    machine.run("umount", STATE)


@pytest.mark.parametrize("end", ["stop", "crash"])
@pytest.mark.parametrize("spill", ["/srv/rotator", "/dev/shm/rotator"])  # noqa: S108 -- another disk, and memory
def test_what_was_spilled_is_there_after_a_stop_and_after_a_crash(installed: Installed, spill: str, end: str) -> None:
    """B25: the disk fills up during a refresh; the new pair is found again, and no spent token is sent."""
    machine = installed.machine
    installed.configure(daemon=f'spill_directory = "{spill}"')
    machine.run("systemd-sysusers")
    machine.run("install", "-d", "-o", "rotator", "-g", "rotator", "-m", "700", "/srv/rotator")
    installed.drop_in("besides", "ReadWritePaths=/srv/rotator", "RestartSec=200ms")
    machine.run("systemctl", "daemon-reload")
    machine.run("mkdir", STATE)
    machine.run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", STATE)
    installed.start()
    installed.login()
    installed.server.sandbox.change(latency_seconds=2)
    installed.begin_rotation()
    machine.run("sh", "-c", f"cat /dev/zero >{STATE}/filler; chmod 600 {STATE}/filler", check=False)
    installed.wait_until(lambda: installed.shown()["save_failing"], "the save fails")
    if end == "stop":
        machine.run("systemctl", "stop", UNIT)
        machine.run("systemctl", "start", UNIT)
    else:
        installed.kill("KILL")
        installed.wait_until(lambda: installed.restarts() == 1 and installed.state() == "active", "it is up again")
    assert installed.shown()["generation"] == 2
    machine.run("rm", f"{STATE}/filler")
    assert installed.rotate()["generation"] == 3
    assert installed.books.token_requests == {"granted": 3}
    machine.run("systemctl", "stop", UNIT)
    machine.run("umount", STATE)


def test_a_removed_state_directory_is_mended_as_the_runbook_says(installed: Installed) -> None:
    """G9, B24: the service may not make it again; a new one that is mounted for it takes all that memory holds."""
    installed.start()
    installed.login()
    installed.machine.run("rm", "-rf", STATE)
    installed.wait_until(lambda: "do not restart rotator" in installed.shown()["text"], "it is noticed")
    assert installed.shown()["unsaved"]
    runbook = (ROOT / "docs/runbooks/RotatorPairUnsaved.md").read_text()
    for line in re.findall(r"^ +((?:install|nsenter) .+)$", runbook, re.MULTILINE):
        installed.machine.run("sh", "-ec", line)
    installed.wait_until(lambda: not installed.shown()["unsaved"], "it is saved")
    assert installed.rotate()["generation"] == 2
    installed.machine.run("systemctl", "restart", UNIT)
    assert installed.rotate()["generation"] == 3


def test_directories_have_the_modes_that_their_users_need(installed: Installed) -> None:
    """The state is the daemon's alone, the runtime directory can be passed through, the socket is the group's."""
    installed.start()
    installed.login()
    assert owner_and_mode(installed, STATE) == "rotator:rotator 700"
    assert owner_and_mode(installed, f"{STATE}/home.json") == "rotator:rotator 600"
    assert owner_and_mode(installed, "/run/rotator") == "rotator:rotator 711"
    assert owner_and_mode(installed, "/run/rotator/rotator.sock") == "rotator:rotator 660"
    assert owner_and_mode(installed, "/run/rotator/home.token") == "rotator:rotator-readers 640"


def test_wrong_owners_and_modes_are_put_right_by_the_start(installed: Installed) -> None:
    """A state directory that was restored as root and open to all is the daemon's alone again."""
    installed.start()
    installed.login()
    installed.machine.run("systemctl", "stop", UNIT)
    installed.machine.run("chown", "-R", "root:", STATE, "/run/rotator")
    installed.machine.run("chmod", "777", STATE, "/run/rotator")
    installed.start()
    assert owner_and_mode(installed, STATE) == "rotator:rotator 700"
    assert owner_and_mode(installed, "/run/rotator") == "rotator:rotator 711"
    assert installed.rotate()["generation"] == 2
    assert installed.has_good_token()


def test_a_state_file_of_somebody_else_is_told_with_the_cure_and_kept(installed: Installed) -> None:
    """One file belongs to root: the daemon is up, says what to do, and asks nobody to log in for it."""
    installed.start()
    installed.login()
    installed.machine.run("systemctl", "stop", UNIT)
    installed.machine.run("chown", "root:", f"{STATE}/home.json")
    installed.start()
    installed.wait_until(lambda: "cannot read the state" in installed.log(), "it is told")
    assert f"do that to {STATE}/home.json (ls -ld {STATE}/home.json)" in installed.log()
    assert installed.shown()["standing"] == "state_unreadable"
    installed.machine.run("chown", "rotator:", f"{STATE}/home.json")
    assert installed.rotate()["generation"] == 2


def test_a_lock_file_of_somebody_else_is_named(installed: Installed) -> None:
    """Root has made the lock file: no restart heals that, so there is none, and the journal names the file."""
    installed.start()
    installed.machine.run("systemctl", "stop", UNIT)
    installed.machine.run("chown", "root:", f"{STATE}/.lock")
    assert installed.machine.run("systemctl", "start", UNIT, check=False).returncode != 0
    assert installed.machine.show(UNIT, "ExecMainStatus", "NRestarts") == {"ExecMainStatus": "77", "NRestarts": "0"}
    assert f"do that to {STATE}/.lock (ls -ld {STATE}/.lock)" in installed.log()
    installed.machine.run("chown", "rotator:", f"{STATE}/.lock")
    installed.start()


def test_a_check_before_the_first_start_says_what_that_will_make(installed: Installed) -> None:
    """Neither state nor runtime directory is there, and that is no fault; after the start nothing is doubted."""
    installed.configure(secret=f'command = ["/bin/echo", "{CLIENT_SECRET}"]')
    check = ("rotator", "check")
    before = installed.machine.run(*check, user="rotator").stdout
    assert f"warn  state directory: {STATE} is not there yet: a start of the systemd service makes it" in before
    assert "warn  outputs: /run/rotator is not there yet: a start of the systemd service makes it" in before
    installed.start()
    after = installed.machine.run(*check, user="rotator").stdout
    assert "warn" not in after.replace("warn  clock:", "")
    assert "outputs: /run/rotator can be written" in after


def test_what_root_does_without_the_daemon_stays_the_daemons(installed: Installed) -> None:
    """A login by root while the service is stopped leaves files that the service can use."""
    installed.start()
    installed.machine.run("systemctl", "stop", UNIT)
    installed.configure(secret=f'command = ["/bin/echo", "{CLIENT_SECRET}"]')
    installed.login()
    installed.start()
    installed.wait_for_generation(1)
    assert owner_and_mode(installed, f"{STATE}/home.json") == "rotator:rotator 600"


@pytest.mark.parametrize(("mode", "cure"), [("644", "chmod 600"), ("000", "let the user with id")])
def test_a_secret_file_with_a_wrong_mode_is_told_with_the_cure(installed: Installed, mode: str, cure: str) -> None:
    """A client secret that others may read, or that the daemon may not: no request, one line; the right mode heals."""
    machine = installed.machine
    installed.configure(secret='file = "/etc/rotator/own-secret"')
    machine.write("/etc/rotator/own-secret", CLIENT_SECRET, 0o600)
    machine.run("chown", "rotator:", "/etc/rotator/own-secret")
    installed.start()
    installed.login()
    machine.run("chmod", mode, "/etc/rotator/own-secret")
    shown = installed.rotate()
    assert cure in shown["text"]
    assert installed.books.token_requests == {"granted": 1}
    machine.run("chmod", "600", "/etc/rotator/own-secret")
    installed.wait_for_generation(2)


def test_whoever_is_in_the_group_uses_the_socket_and_needs_no_secret(installed: Installed) -> None:
    """I8: status, reload and login by a member of the group, who can read neither credentials nor state."""
    machine = installed.machine
    machine.run("useradd", "--system", "--groups=rotator", "desk")
    machine.run("useradd", "--system", "stranger")
    installed.start()
    login = ("rotator", "login", "home", "--username", USERNAME, "--password-stdin")
    machine.run(*login, stdin=PASSWORD, user="desk")
    for command in ("status", "reload"):
        machine.run("rotator", command, user="desk")
        refused = machine.run("rotator", command, user="stranger", check=False)
        assert refused.returncode == 77
        assert "this user may not use the control socket" in refused.stderr
