"""A machine on which rotator is what its Debian package installs."""

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from tests.process.rig import CLIENT_SECRET, PASSWORD, PATIENCE, USERNAME
from tests.secrets_scan import assert_no_secrets
from tests.testbed.systemd.installed import Installed
from tests.testbed.systemd.machine import Machine, new_machine


@contextmanager
def bare_machine(directory: Path, *, own_network: bool = False) -> Generator[Machine]:
    """A machine that is up and has no rotator."""
    with new_machine(directory, own_network=own_network) as machine:
        (machine.disk / "usr/bin/rotator").unlink()
        machine.boot()
        yield machine
        assert_no_secrets(json.dumps(machine.journal()))


@contextmanager
def sandbox(**switches: Any) -> Generator[SandboxServer]:
    """A sandbox that the machine reaches."""
    turned = Switches(client_secret=CLIENT_SECRET).changed(switches)
    with SandboxServer(Sandbox(switches=turned, users={USERNAME: PASSWORD})) as server:
        yield server


def apt(machine: Machine, action: str, package: str | Path = "rotator") -> str:
    """Install, remove or purge; return what was printed."""
    if isinstance(package, Path):
        shutil.copy(package, machine.disk / "srv")
        package = f"/srv/{package.name}"
    command = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--yes", action, package)
    done = machine.run(*command, patience=4 * PATIENCE)
    return done.stdout + done.stderr


@contextmanager
def packaged(directory: Path, deb: Path, **switches: Any) -> Generator[Installed]:
    """Rotator from a package on a machine that is up, configured to use a sandbox; nothing is started yet."""
    with sandbox(**switches) as server, bare_machine(directory) as machine:
        apt(machine, "install", deb)
        installed = Installed(machine, server)  # the units that it writes are those of the package
        machine.run("systemctl", "daemon-reload")
        yield installed
