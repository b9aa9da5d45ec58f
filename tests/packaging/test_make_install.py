"""`make install` and `make uninstall`, into a tree and on a machine with systemd."""

import os
import re
import subprocess
from pathlib import Path
from typing import Final

from rotator import VERSION
from tests.needs import needs
from tests.packaging.builds import DEBIAN_PYTHON, check_out, make
from tests.packaging.debian import bare_machine, sandbox
from tests.process.rig import PATIENCE
from tests.testbed.systemd.installed import UNIT, UNITS, Installed
from tests.testbed.systemd.machine import Machine

FROM_HERE: Final = re.compile("PIP_|.*_PROXY$|SSL_CERT_FILE|REQUESTS_CA_BUNDLE", re.IGNORECASE)
"""Variables that say how packages are reached."""


def files_in(directory: Path) -> dict[str, bytes]:
    """Return the contents of all files below a directory."""
    found = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def test_installing_again_changes_nothing_but_what_is_new(tmp_path: Path) -> None:
    """The same files, configuration as it was edited, and nothing left that only an earlier version had.

    What is to be typed or copied names the command where it is; the Kubernetes client is there if it is asked for.
    """
    needs("git checkout", "Debian's Python", "package index")
    tree = check_out(tmp_path / "tree")
    root = tmp_path / "root"
    settings = (f"DESTDIR={root}", "PREFIX=/opt/tools", f"PYTHON={DEBIAN_PYTHON}", "KUBERNETES=1")
    make(tree, "install", *settings)
    first = files_in(root)
    assert b"\nExecStart=/opt/tools/bin/rotator run\n" in first["opt/tools/lib/systemd/system/rotator.service"]
    documents = {name: text for name, text in first.items() if name.startswith("opt/tools/share/doc/rotator/")}
    assert b"ExecStartPre=+/opt/tools/bin/rotator wait " in b"".join(documents.values())
    assert [name for name, text in documents.items() if b"/usr/bin/rotator" in text] == []
    assert [name for name in first if name.endswith("/site-packages/lightkube/__init__.py")]
    assert [name for name, content in first.items() if str(tmp_path).encode() in content] == []
    (root / "etc/rotator/rotator.toml").write_text("# edited\n")
    (root / "opt/tools/bin/former").touch()
    with (root / "opt/tools/lib/rotator/files").open("a") as files:
        files.write("/opt/tools/bin/former\n")
    make(tree, "install", *settings)
    assert files_in(root) == first | {"etc/rotator/rotator.toml": b"# edited\n"}
    said = make(tree, "uninstall", *settings).stdout
    assert "Left as they are: /etc/rotator (configuration), /var/lib/rotator* (tokens)" in said
    assert files_in(root) == {"etc/rotator/rotator.toml": b"# edited\n"}
    again = make(tree, "uninstall", *settings, check=False)
    assert "no rotator at" in again.stderr


def test_a_python_in_a_home_directory_is_refused(tmp_path: Path) -> None:
    """The units hide home directories: a service that cannot start is not installed."""
    needs("root", "git checkout", "mount namespace")
    tree = check_out(tmp_path / "tree")
    script = 'mount -t tmpfs tmpfs /home; cp "$(realpath /usr/bin/python3)" /home/python; exec "$@"'
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", str(tree / "packaging/install")]
    environment = os.environ | {"PYTHON": "/home/python", "DESTDIR": str(tmp_path / "root")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "/home/python lies in one: name another Python, e.g. make install PYTHON=/usr/bin/python3" in done.stderr
    assert not (tmp_path / "root").exists()


def make_on(machine: Machine, target: str) -> str:
    """Run make in the copy of the source on a machine; return what it printed."""
    passed = [f"{name}={value}" for name, value in os.environ.items() if FROM_HERE.match(name)]
    command = ("env", *passed, "make", "-C", "/usr/src/rotator", target, f"PYTHON={DEBIAN_PYTHON}")
    done = machine.run(*command, patience=4 * PATIENCE)
    return done.stdout + done.stderr


def test_a_machine_gets_a_daemon_and_is_rid_of_it_again(tmp_path: Path) -> None:
    """User and units are known at once; a new version leaves the restart to the administrator; tokens outlive all."""
    needs("git checkout", "Debian's Python", "package index", "systemd-nspawn")
    with sandbox() as server, bare_machine(tmp_path) as machine:
        check_out(machine.disk / "usr/src/rotator")
        assert "Installed, nothing started." in make_on(machine, "install")
        assert machine.run("rotator", "version").stdout == f"rotator {VERSION}\n"
        assert "/usr/local/lib/systemd/system" in machine.show(UNIT, "FragmentPath")["FragmentPath"]
        installed = Installed(machine, server)
        for unit in UNITS.glob("rotator*.*"):  # the installed ones are meant, below /usr/local
            (machine.disk / "usr/lib/systemd/system" / unit.name).unlink()
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "enable", "--now", UNIT)
        installed.login()
        assert installed.has_good_token()
        said = make_on(machine, "install")
        assert f"The old version still runs; take the new one into use: systemctl restart {UNIT}" in said
        machine.run("systemctl", "restart", UNIT)
        installed.rotate()
        installed.wait_for_generation(2)
        make_on(machine, "uninstall")
        assert machine.show(UNIT, "LoadState", "ActiveState") == {"ActiveState": "inactive", "LoadState": "not-found"}
        assert machine.run("sh", "-c", "command -v rotator", check=False).stdout == ""
        assert installed.stored()["tokens"]["generation"] == 2
        assert (machine.disk / "etc/rotator/rotator.toml").exists()
