"""The Debian package on a machine with systemd: installed, upgraded, removed and purged."""

import filecmp
from collections.abc import Iterator
from pathlib import Path

import pytest

from rotator import VERSION
from rotator.config import Config, load
from tests.needs import needs
from tests.packaging.builds import EARLIER, Built, check_out, make
from tests.packaging.debian import apt, bare_machine, packaged
from tests.process.rig import NAME
from tests.testbed.systemd.installed import UNIT, UNITS, Installed
from tests.testbed.systemd.machine import Machine


@pytest.fixture
def machine(tmp_path: Path, built: Built) -> Iterator[Machine]:
    """A machine without rotator."""
    needs("systemd-nspawn")
    with bare_machine(tmp_path) as machine:
        yield machine


@pytest.fixture
def earlier(tmp_path: Path, built: Built) -> Iterator[Installed]:
    """A daemon of an earlier version, that holds tokens and is enabled at boot."""
    needs("systemd-nspawn")
    with packaged(tmp_path, built.earlier) as installed:
        installed.machine.run("systemctl", "enable", "--now", UNIT)
        installed.login()
        yield installed


def version_of(machine: Machine) -> str:
    """Return the version that the command says it is."""
    return machine.run("rotator", "version").stdout


def test_a_package_is_the_same_whenever_and_wherever_it_is_built(built: Built, tmp_path: Path) -> None:
    """Two builds of one tree, in different directories, do not differ by a byte."""
    make(check_out(tmp_path / "elsewhere"), "deb")
    assert filecmp.cmp(tmp_path / "elsewhere/dist" / built.deb.name, built.deb, shallow=False)


def test_installing_starts_nothing_and_says_what_to_do(machine: Machine, built: Built) -> None:
    """Command, units, user, manual pages and completion are there; the daemon waits to be configured."""
    said = apt(machine, "install", built.deb)
    assert "Write /etc/rotator/rotator.toml, then: systemctl enable --now rotator" in said
    assert version_of(machine) == f"rotator {VERSION}\n"
    for unit in UNITS.glob("rotator*.*"):
        assert (machine.disk / "usr/lib/systemd/system" / unit.name).read_text() == unit.read_text()
    assert machine.show(UNIT, "ActiveState", "UnitFileState", "LoadState") == {
        "ActiveState": "inactive",
        "LoadState": "loaded",
        "UnitFileState": "disabled",
    }
    assert "rotator-readers" in machine.run("id", "rotator").stdout
    files = machine.run("dpkg", "--listfiles", "rotator").stdout.split()
    assert {"/usr/share/man/man1/rotator.1.gz", "/usr/share/man/man5/rotator.toml.5.gz"} < set(files)
    complete = "source /usr/share/bash-completion/completions/rotator; complete -p rotator"
    assert "_rotator_completion" in machine.run("bash", "-c", complete).stdout
    verify = machine.run("systemd-analyze", "verify", UNIT, "rotator@home.service", "rotator-once.timer", check=False)
    assert (verify.returncode, verify.stdout + verify.stderr) == (0, "")


def test_an_upgrade_loses_no_token_and_presents_none_twice(earlier: Installed, built: Built) -> None:
    """In the middle of a rotation: the answer is waited for and saved, and the new version goes on from there."""
    machine = earlier.machine
    configuration = (machine.disk / "etc/rotator/rotator.toml").read_text()
    assert version_of(machine) == f"rotator {EARLIER}\n"
    earlier.server.sandbox.change(latency_seconds=2.0)
    earlier.begin_rotation()
    before = earlier.main_pid()
    apt(machine, "install", built.deb)
    earlier.server.sandbox.change(latency_seconds=0.0)
    assert version_of(machine) == f"rotator {VERSION}\n"
    assert earlier.state() == "active"
    assert earlier.main_pid() != before
    assert earlier.stored()["tokens"]["generation"] == 2
    assert earlier.has_good_token()
    earlier.rotate()
    earlier.wait_for_generation(3)
    assert (earlier.books.refresh_grants, earlier.books.password_grants) == (2, 1)
    assert (earlier.books.replays_in_grace, earlier.books.replays_outside_grace) == (0, 0)
    assert (machine.disk / "etc/rotator/rotator.toml").read_text() == configuration
    assert not (machine.root / "run/rotator.upgrade").exists()


def test_an_upgrade_starts_what_ran_and_nothing_else(earlier: Installed, built: Built) -> None:
    """Instances and the timer are started again; a daemon that an administrator stopped stays stopped."""
    machine = earlier.machine
    machine.run("systemctl", "stop", UNIT)
    machine.write(
        "/etc/rotator/second/rotator.toml",
        "daemon = { state_directory = '/var/lib/rotator-second', runtime_directory = '/run/rotator-second' }\n"
        "metrics = { enabled = false }\n",
    )
    machine.run("systemctl", "start", "rotator@second.service", "rotator-once.timer")
    apt(machine, "install", built.deb)
    units = (UNIT, "rotator@second.service", "rotator-once.timer")
    assert [machine.show(unit, "ActiveState")["ActiveState"] for unit in units] == ["inactive", "active", "active"]


def test_an_upgrade_that_cannot_start_says_so(earlier: Installed, built: Built) -> None:
    """A configuration that the new version refuses does not spoil the installation; a message says where to look."""
    earlier.configure(daemon="no_such_key = 1")
    said = apt(earlier.machine, "install", built.deb)
    assert f"rotator: {UNIT} does not start; see: journalctl -u {UNIT}" in said
    assert "install ok installed" in earlier.machine.run("dpkg-query", "-W", "-f", "${Status}", "rotator").stdout


def test_remove_keeps_the_tokens_and_purge_deletes_them(earlier: Installed, built: Built) -> None:
    """After a remove, a new installation needs no login; a purge leaves nothing but the administrator's own files."""
    machine = earlier.machine
    apt(machine, "remove")
    assert not (machine.disk / "opt/rotator").exists()
    assert earlier.stored()["tokens"]["generation"] == 1
    assert earlier.has_good_token()
    apt(machine, "install", built.deb)
    earlier.start()
    earlier.rotate()
    earlier.wait_for_generation(2)
    said = apt(machine, "purge")
    assert "rotator: deleting /var/lib/rotator with all tokens in it" in said
    assert "rotator: left what you put into /etc/rotator: client-secret" in said
    places = ("/etc/rotator/*", "/opt/rotator*", "/var/lib/rotator*", "/run/rotator*", "/etc/systemd/system/*/rotator*")
    left = machine.run("sh", "-c", f"ls -d {' '.join(places)}", check=False)
    assert left.stdout.split() == ["/etc/rotator/client-secret"]
    assert machine.show(UNIT, "LoadState")["LoadState"] == "not-found"
    assert NAME not in machine.run("sh", "-c", "ls /run").stdout


def test_the_first_configuration_is_good(built: Built, tmp_path: Path) -> None:
    """As it is installed it configures nothing; with the marks taken away, a credential."""
    text = (built.tree / "packaging/rotator.toml").read_text()
    file = tmp_path / "rotator.toml"
    file.write_text(text)
    empty = load(file, None, {})
    assert isinstance(empty, Config)
    assert empty.credentials == {}
    _, _, rest = text.partition("\n\n")
    file.write_text("\n".join(line.removeprefix("# ") for line in rest.splitlines()))
    full = load(file, None, {})
    assert isinstance(full, Config), full
    assert (list(full.credentials), full.warnings) == (["home"], ())
