"""The measure for `memory` and `start`: an interpreter that merely imports what rotator imports."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_IMPORTS: Final = (
    "import httpx, apscheduler, tenacity, prometheus_client, pythonjsonlogger, pydantic, starlette, uvicorn\n"
)
_POST: Final = """
import sys
form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "bench", "client_secret": "secret-of-bench"}
token = httpx.post(sys.argv[1], data=form, trust_env=False).json()["access_token"]
with open(sys.argv[2], "w") as output:
    output.write(token)
"""


@contextlib.contextmanager
def idle() -> Iterator[int]:
    """Keep one waiting; yield its process id once it has imported everything."""
    argv = [sys.executable, "-c", f"{_IMPORTS}print(flush=True); input()"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        process.stdout.readline()
        yield process.pid
        process.communicate(b"\n")


@contextlib.contextmanager
def posting(url: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start one that sends one POST and writes the access token to `output`."""
    with subprocess.Popen([sys.executable, "-c", _IMPORTS + _POST, url, str(output)]) as process:
        yield process
