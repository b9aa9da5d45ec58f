"""The image: built, and run as the manifests run it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from rotator.cli.exits import ExitCode
from tests.children import ROOT
from tests.needs import needs
from tests.process.rig import CLIENT_SECRET, PASSWORD, PATIENCE, USERNAME, SandboxProcess, run_sandbox
from tests.secrets_scan import secrets_in
from tests.testbed.image.rig import IMAGE, Containers

ROTATOR_UID: Final = 10001
HADOLINT: Final = Path(sys.executable).with_name("hadolint")


@dataclass(frozen=True, slots=True)
class Place:
    """What one container is given: configuration, and room for state and outputs."""

    directory: Path

    @property
    def mounts(self) -> tuple[str, ...]:
        """The options that mount it."""
        at = self.directory
        return (
            f"--volume={at}/etc:/etc/rotator:ro",
            f"--volume={at}/state:/var/lib/rotator",
            f"--volume={at}/run:/run/rotator",
            "--network=host",
        )

    @property
    def token(self) -> Path:
        """What consumers read."""
        return self.directory / "run" / "token"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxProcess]:
    """A sandbox on this machine."""
    with run_sandbox(tmp_path, access_lifetime=6) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path, sandbox: SandboxProcess) -> Place:
    """A configuration that only the container's user may read."""
    for name in ("etc", "state", "run"):
        (tmp_path / name).mkdir(0o700)
    config = {
        "token_url": f"{sandbox.url}/v2/token",
        "client_id": "sandbox-client",
        "client_secret": {"file": "/etc/rotator/secret"},
    }
    lines = "\n".join(f"{key} = {_toml(value)}" for key, value in config.items())
    outputs = 'outputs = [{ path = "/run/rotator/token" }]'
    metrics = "[metrics]\nenabled = false"
    (tmp_path / "etc" / "rotator.toml").write_text(f"{metrics}\n[defaults]\n{lines}\n[credentials.home]\n{outputs}\n")
    (tmp_path / "etc" / "secret").write_text(CLIENT_SECRET)
    (tmp_path / "etc" / "secret").chmod(0o600)
    for path in (tmp_path / "etc", tmp_path / "etc" / "secret", tmp_path / "state", tmp_path / "run"):
        os.chown(path, ROTATOR_UID, ROTATOR_UID)
    return Place(tmp_path)


def wait_for(met: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.2)


def _toml(value: object) -> str:
    return "{ file = " + json.dumps(value["file"]) + " }" if isinstance(value, dict) else json.dumps(value)


def test_the_image_keeps_a_token_fresh_without_root_shell_or_a_writable_root(
    containers: Containers, place: Place, sandbox: SandboxProcess
) -> None:
    """The main job under everything the manifests take away: login, rotation, health check, stop."""
    name = f"rotator-{os.getpid()}"
    with containers.running(name, *place.mounts, IMAGE):
        wait_for(lambda: containers.podman("exec", name, "rotator", "health", check=False) == "live\n", PATIENCE)
        login = ["login", "home", "--username", USERNAME, "--password-stdin"]
        given = containers.command("exec", "--interactive", name, "rotator", *login)
        subprocess.run(given, input=PASSWORD, capture_output=True, text=True, timeout=PATIENCE * 2, check=True)
        containers.podman("exec", name, "rotator", "wait", "home", "--timeout", "20s")
        first = place.token.read_text()
        assert sandbox.accepts(first)
        generation = _shown(containers, name)["generation"]
        containers.podman("exec", name, "rotator", "rotate", "home")
        assert _shown(containers, name)["generation"] > generation
        assert sandbox.accepts(place.token.read_text())
        assert place.token.stat().st_uid == ROTATOR_UID
        containers.podman("healthcheck", "run", name)
        containers.podman("exec", name, "test", "-s", "/run/rotator/token")  # a mirror's startup probe
        containers.podman("stop", "--time=30", name)
        (ended,) = json.loads(containers.podman("inspect", name))
        assert ended["State"]["ExitCode"] == 0
        log = containers.podman("logs", name)
    assert not secrets_in(log)
    assert sandbox.books()["replays_in_grace"] + sandbox.books()["replays_outside_grace"] == 0


def _shown(containers: Containers, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(containers.podman("exec", name, "rotator", "status", "--json"))["credentials"][0]
    return shown


def test_a_container_without_room_for_its_state_says_so(containers: Containers, place: Place) -> None:
    """A forgotten volume is told at start, by name, and no token is asked for."""
    options = ("--rm", "--network=none", f"--volume={place.directory}/etc:/etc/rotator:ro", IMAGE, "run", "--once")
    run = subprocess.run(containers.run(*options), capture_output=True, text=True, timeout=PATIENCE * 2, check=False)
    assert run.returncode == ExitCode.IOERR
    line = run.stderr.splitlines()[-1]
    assert "/var/lib/rotator" in line
    assert "mount it writable" in line


def test_the_image_asks_for_no_root_and_starts_no_shell(containers: Containers) -> None:
    """User, health check, entry point and labels are as a restricted cluster wants them."""
    (image,) = json.loads(containers.podman("inspect", IMAGE))
    settings = image["Config"]
    assert settings["User"] == f"{ROTATOR_UID}:{ROTATOR_UID}"
    assert settings["Entrypoint"] == ["rotator"]
    assert settings["Cmd"] == ["run"]
    assert image["Healthcheck"]["Test"] == ["CMD", "rotator", "health"]
    assert settings["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_nothing_is_compiled_at_a_start(containers: Containers) -> None:
    """All that the daemon imports is there as bytecode, Python's own library too: nothing could be kept later."""
    program = (
        "import os, sys, rotator.cli.composition, rotator.adapters.kubernetes.cluster\n"
        "made = [module.__cached__ for module in list(sys.modules.values()) if getattr(module, '__cached__', None)]\n"
        "print(len(made), *(path for path in made if not os.path.exists(path)))\n"
    )
    options = ("--rm", "--network=none", "--entrypoint=/opt/rotator/bin/python", IMAGE, "-c", program)
    run = subprocess.run(containers.run(*options), capture_output=True, text=True, timeout=PATIENCE * 2, check=True)
    number, *missing = run.stdout.split()
    assert int(number) > 200  # so the question was understood
    assert missing == []


def test_the_dockerfile_is_as_the_linter_wants_it() -> None:
    """The linter, hadolint, finds nothing."""
    needs("hadolint")
    run = subprocess.run([str(HADOLINT), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
