"""Python programs run as processes of their own: to be killed, limited or denied things."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.process.rig import PATIENCE

ROOT: Final = Path(__file__).parent.parent
STATES: Final = """
import sys
from pathlib import Path
from rotator.adapters.file_sink import FileSink
from rotator.adapters.file_store import FileStore
from rotator.ports import Loaded, Problem
from tests.fakes import FixedClock
from tests.samples import state_of, token_set
"""
"""What most programs here begin with."""


def command(code: str, *arguments: object) -> list[str]:
    """Return the argument vector for a program."""
    return [sys.executable, "-B", "-c", STATES + code, *map(str, arguments)]


def run(*argv: object, check: bool = True, lines: str = "") -> str:
    """Run an argument vector to its end and return what it printed."""
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        input=lines,
        timeout=PATIENCE,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def sleeper() -> Generator[subprocess.Popen[bytes]]:
    """Start a program that waits until it is ended, and end it."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield process
        finally:
            process.kill()


def in_mount_namespace(script: str, code: str, *arguments: object) -> str:
    """Run a shell script that mounts things, then a program; `$1` and so on are the arguments."""
    shell = ["unshare", "--mount", "sh", "-ec", f'{script}\nexec "$PYTHON" -c "$CODE" "$@"', "sh"]
    environment = [f"PYTHON={sys.executable}", f"CODE={STATES + code}"]
    return run("env", *environment, *shell, *arguments)
