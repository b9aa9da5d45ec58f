"""deploy/compose/compose.yaml with the real image: what it says of sandbox, login and rotator is carried out by podman.

Docker's own network is not there: the three share one that leads nowhere, in which their names mean the machine itself.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.children import ROOT
from tests.process.rig import wait_until
from tests.testbed.image.rig import IMAGE, Containers

PLACE: Final = ROOT / "deploy" / "compose"
SERVICES: Final[dict[str, dict[str, Any]]] = yaml.safe_load((PLACE / "compose.yaml").read_text())["services"]
OURS: Final = ("sandbox", "login", "rotator")
NUMBER: Final = os.getpid()


def options(name: str, *more: str) -> list[str]:
    """Return what podman is to run for a service of the composition."""
    service = SERVICES[name]
    network = "none" if name == "sandbox" else f"container:sandbox-{NUMBER}"
    given = [f"--name={name}-{NUMBER}", f"--network={network}", *more]
    given += ["--read-only", "--read-only-tmpfs=false"] * service["read_only"]
    given += [f"--cap-drop={capability}" for capability in service["cap_drop"]]
    given += [f"--security-opt={each.removesuffix(':true')}" for each in service["security_opt"]]
    for volume in service.get("volumes", []):
        source, target = volume.split(":", 1)
        there = PLACE / source if source.startswith(".") else f"{source}-{NUMBER}"
        given.append(f"--volume={there}:{target}")
    if "entrypoint" in service:
        given.append(f"--entrypoint={json.dumps(service['entrypoint'])}")
    return [*given, IMAGE, *(word.replace("$$", "$") for word in service.get("command", []))]


def run(containers: Containers, name: str, *more: str) -> None:
    """Run one service; it must succeed."""
    limits = ("--pull=never", "--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096")
    containers.podman("run", *limits, *options(name, *more))


@pytest.fixture
def composition(containers: Containers) -> Iterator[Containers]:
    """Whatever was started is gone afterwards."""
    yield containers
    for name in reversed(OURS):
        containers.podman("rm", "--force", "--time=5", f"{name}-{NUMBER}", check=False)
    containers.podman("volume", "rm", "--force", f"state-{NUMBER}", f"run-{NUMBER}", check=False)


def test_everybody_is_logged_in_without_a_person_and_prometheus_is_answered(
    composition: Containers, tmp_path: Path
) -> None:
    """The sandbox becomes healthy, the login ends well, rotator publishes; `up` again, while it runs, does no harm."""
    containers = composition
    (tmp_path / "hosts").write_text("127.0.0.1 localhost sandbox rotator\n")
    hosts = f"--volume={tmp_path}/hosts:/etc/hosts:ro"
    run(containers, "sandbox", "--detach", hosts)
    health = containers.command("exec", f"sandbox-{NUMBER}", *SERVICES["sandbox"]["healthcheck"]["test"][1:])
    wait_until(lambda: subprocess.run(health, capture_output=True, check=False).returncode == 0, "healthy")
    run(containers, "login", "--rm", hosts)
    run(containers, "rotator", "--detach", hosts)
    name = f"rotator-{NUMBER}"
    for credential in ("household-1", "household-2", "household-3"):
        containers.podman("exec", name, "rotator", "wait", credential, "--timeout", "30s")
    page = "import urllib.request as ask; print(ask.urlopen('http://rotator:9774/metrics').read().decode())"
    assert containers.podman("exec", name, "python3", "-c", page).count("\nrotator_access_token_valid{") == 3
    run(containers, "login", "--rm", hosts)
