"""`make observe`: rotator, sandbox and Prometheus from what is installed, until Ctrl-C."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.children import ROOT
from tests.needs import needs
from tests.process.rig import PATIENCE, wait_until


@pytest.fixture(autouse=True)
def _nobody_else() -> Iterator[None]:
    """Two that start at the same moment, perhaps from another clone, would find the same ports free."""
    with Path(tempfile.gettempdir(), f"rotator-observe-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_it_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    """The addresses that it prints answer, Prometheus scrapes rotator and knows the alerts; Ctrl-C ends all of it."""
    needs("prometheus")
    command = [sys.executable, "-m", "deploy.observe"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
            place, rotator, prometheus = (
                re.search(rf"^{word} +(\S+)", said, re.MULTILINE)[1]  # type: ignore[index]
                for word in ("files", "rotator", "Prometheus")
            )
            assert _get(f"{rotator}readyz")["credentials"] == 3
            api = f"{prometheus}api/v1"
            wait_until(lambda: _get(f"{api}/query?query=rotator_build_info")["data"]["result"], "a scrape")
            assert len(_get(f"{api}/rules")["data"]["groups"]) > 2
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    assert not Path(place).exists()
    for url in re.findall(r"^\w+ +(http://\S+)", said, re.MULTILINE):
        with pytest.raises(URLError, match="refused"):
            urlopen(url, timeout=5)  # noqa: S310 - loopback


def test_without_prometheus_there_is_still_the_status_page() -> None:
    """What is missing is said, with the package that brings it, and the rest runs; SIGTERM ends it like Ctrl-C."""
    command = [sys.executable, "-m", "deploy.observe"]
    environment = {**os.environ, "PATH": "/nonexistent"}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            said = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
            assert re.search("^Prometheus +is not installed.*apt install prometheus$", said, re.MULTILINE)
            [rotator] = re.findall(r"^rotator +(\S+)$", said, re.MULTILINE)
            assert _get(f"{rotator}readyz")["credentials"] == 3
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def _get(url: str) -> Any:
    with urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310 - loopback
        return json.load(answer)
