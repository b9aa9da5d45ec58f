"""How the service starts, what it says of itself, and how it takes another configuration or another secret."""

import re

import pytest

from tests.process.rig import CLIENT_SECRET, USERNAME
from tests.secrets_scan import planted
from tests.testbed.systemd.installed import UNIT, Installed


def test_ready_comes_before_the_first_token(installed: Installed) -> None:
    """I2: nobody has logged in, the server is away; the start ends all the same once the daemon works, and says so."""
    installed.server.stop()
    installed.start()
    assert installed.shown()["standing"] in ("starting", "login_required")
    shown = installed.machine.show(UNIT, "ActiveState", "SubState", "WatchdogUSec", "NRestarts")
    assert shown == {"ActiveState": "active", "SubState": "running", "WatchdogUSec": "30s", "NRestarts": "0"}
    installed.wait_until(lambda: installed.says() == "1 credential, 1 needs a login (home)", "the status tells")
    assert not installed.token_file().exists()


def test_the_status_says_how_things_stand_and_what_comes_next(installed: Installed) -> None:
    """`systemctl status` shows a line that a person can use."""
    installed.start()
    installed.login()
    line = "1 credential, next refresh home in (39|40) min"
    installed.wait_until(lambda: re.fullmatch(line, installed.says()), "the status has changed")
    assert re.search(f'Status: "{line}"', installed.machine.run("systemctl", "status", UNIT).stdout)


def test_a_good_configuration_is_taken_by_a_reload(installed: Installed) -> None:
    """`systemctl reload` ends when the new configuration is in force; the daemon is the same and keeps its tokens."""
    installed.start()
    installed.login()
    pid = installed.main_pid()
    installed.configure(credentials="[credentials.home]\n[credentials.office]")
    installed.machine.run("systemctl", "reload", UNIT)
    assert installed.shown("office")["standing"] == "login_required"
    assert installed.shown()["generation"] == 1
    assert (installed.state(), installed.main_pid()) == ("active", pid)


def test_a_bad_configuration_fails_the_reload_and_nothing_else(installed: Installed) -> None:
    """`systemctl reload` fails and the journal has the reason; the daemon goes on with what it had."""
    installed.start()
    installed.login()
    pid = installed.main_pid()
    installed.configure(credentials="[credentials.home]\nclient_idd = 'x'")
    assert installed.machine.run("systemctl", "reload", UNIT, check=False).returncode != 0
    assert "client_idd" in installed.log()
    assert (installed.state(), installed.main_pid()) == ("active", pid)
    assert installed.rotate()["generation"] == 2
    assert "the last reload was refused" in installed.says()
    installed.configure()
    installed.machine.run("systemctl", "reload", UNIT)
    assert "refused" not in installed.says()


def test_a_secret_in_a_file_is_changed_without_a_restart(installed: Installed) -> None:
    """The server has another client secret: its refusal is told, and the new file is noticed by itself."""
    installed.configure(secret='file = "/etc/rotator/own-secret"')
    _write_own_secret(installed, CLIENT_SECRET)
    installed.start()
    installed.login()
    installed.server.sandbox.change(client_secret=planted("client-secret-2"))
    assert installed.rotate()["reason"] == "invalid_client"
    assert installed.has_good_token()
    _write_own_secret(installed, planted("client-secret-2"))
    installed.wait_for_generation(2)
    assert installed.restarts() == 0


def test_a_secret_from_a_credential_is_changed_by_a_restart(installed: Installed) -> None:
    """I5: the unit's own copy of the credential is accepted as it is; after a restart it is the new one, tried at once.

    The token in the file outlives the restart, so that no consumer notices it.
    """
    installed.start()
    installed.login()
    installed.server.sandbox.change(client_secret=planted("client-secret-2"))
    installed.write_secret(planted("client-secret-2"))
    assert installed.rotate()["reason"] == "invalid_client"
    before, token = installed.token_stamp(), installed.token_file().read_text()
    installed.machine.run("systemctl", "stop", UNIT)
    assert installed.token_stamp() == before
    assert installed.has_good_token()
    installed.start()
    installed.wait_for_generation(2)
    assert installed.token_file().read_text() != token
    assert installed.books.replays_outside_grace == 0


def test_a_seed_is_a_credential_too(installed: Installed) -> None:
    """A first refresh token that was got elsewhere: root's own file, and nobody logs in; a new one is a new login."""
    loaded = [f"LoadCredential={name}:/etc/rotator/{name}" for name in ("client-secret", "seed-home")]
    installed.drop_in("credentials", *loaded)
    installed.configure(defaults='seed = { credential = "seed-{name}" }')
    installed.machine.run("systemctl", "daemon-reload")
    for generation in (2, 4):
        pair = installed.server.sandbox.issue(USERNAME)
        installed.machine.write("/etc/rotator/seed-home", str(pair["refresh_token"]), 0o600)
        installed.machine.run("systemctl", "restart", UNIT)
        installed.wait_for_generation(generation)
        installed.machine.run("systemctl", "restart", UNIT)  # the same seed, spent by now: state beats seed
        installed.wait_for_generation(generation)
    assert installed.rotate()["generation"] == 5
    assert installed.books.replays_outside_grace == 0


@pytest.mark.parametrize("lines_as", ["auto", "json"])
def test_the_journal_gets_priorities_and_no_second_time(installed: Installed, lines_as: str) -> None:
    """`journalctl -p warning` finds what matters; no line begins with a priority or a time, which the journal has."""
    installed.configure(log=f'format = "{lines_as}"')
    installed.start()
    installed.login()
    installed.server.sandbox.change(client_secret=planted("client-secret-2"))
    installed.rotate()
    entries = [entry for entry in installed.machine.journal(UNIT) if entry.get("_COMM") != "systemd"]
    lines = {entry["MESSAGE"]: entry["PRIORITY"] for entry in entries if entry["SYSLOG_IDENTIFIER"] == "rotator"}
    started = [line for line in lines if "watching over 1 credential" in line]
    refused = [line for line in lines if "invalid_client" in line]
    assert [lines[line] for line in started] == ["6"]
    assert refused
    assert {lines[line] for line in refused} <= {"3", "4"}
    assert all(re.match(r"[A-Z]+ |\{", line) and not re.search(r"\d\d:\d\d:\d\d", line) for line in lines), lines


@pytest.mark.parametrize("setting", ["LoadCredentialEncrypted", "SetCredential"])
def test_credentials_of_other_kinds_are_taken(installed: Installed, setting: str) -> None:
    """A client secret that lies encrypted on the disk, and one that the unit itself sets."""
    if setting == "SetCredential":
        value = f"client-secret:{CLIENT_SECRET}"
    else:
        value = "client-secret:/etc/rotator/client-secret.cred"
        encrypt = ("systemd-creds", "encrypt", "--with-key=host", "--name=client-secret", "-", value.partition(":")[2])
        installed.machine.run(*encrypt, stdin=CLIENT_SECRET)
    installed.drop_in("credentials", f"{setting}={value}")
    installed.machine.run("systemctl", "daemon-reload")
    installed.start()
    installed.login()
    assert installed.rotate()["generation"] == 2


def _write_own_secret(installed: Installed, secret: str) -> None:
    installed.machine.write("/etc/rotator/own-secret.new", secret, 0o600)
    installed.machine.run("chown", "rotator:", "/etc/rotator/own-secret.new")
    installed.machine.run("mv", "/etc/rotator/own-secret.new", "/etc/rotator/own-secret")
