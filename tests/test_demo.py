"""`rotator demo` as a person sees it: its lines, its screen, its exit status, and what it leaves behind."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import pytest

from rotator.adapters.control_client import ControlClient
from tests.process.rig import PATIENCE

ROOT: Final = Path(__file__).parents[1]


class Demo:
    """Starts demos whose directories lie in one place."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environ = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "NO_COLOR")} | {
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(place),
            "TERM": "xterm-256color",
        }

    @contextmanager
    def running(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """Run a demo whose lines go into pipes."""
        with subprocess.Popen(
            [sys.executable, "-B", "-m", "rotator.cli", "demo", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environ,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.terminate()

    def leftovers(self) -> list[str]:
        """Return the files and processes that are still there."""
        processes = [
            path.parent.name
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if str(self.place).encode() in _content(path)
        ]
        return [*map(str, self.place.iterdir()), *processes]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""


def read_until(stream: IO[str] | None, wanted: str) -> str:
    """Return the lines up to the one in which `wanted` stands."""
    assert stream is not None
    lines = ""
    for line in stream:
        lines += line
        if wanted in line:
            return lines
    raise AssertionError(f"{wanted!r} is not in:\n{lines}")


@pytest.fixture
def demo() -> Iterator[Demo]:
    """A demo that has not begun; pytest's own directories are too long a path for a control socket."""
    with tempfile.TemporaryDirectory() as place:
        yield Demo(Path(place))


def test_it_rotates_refuses_nothing_and_ends_by_itself(demo: Demo) -> None:
    """Lost answers and all, nothing is refused; a pipe gets plain lines without tokens; nothing is left behind."""
    with demo.running("--for", "9", "--lifetime", "10") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert "household-3: connection_lost: " in out
    assert "household-3: rotated after all, generation 2\n" in out
    assert all(f"{name}: rotated, generation 2\n" in out for name in ("account-api", "household-1", "household-2"))
    last = out.splitlines()[-1]
    found = re.fullmatch(r"good: (\d+) calls, 0 refused; (\d+) rotations; refresh tokens presented twice: 0", last)
    assert found, last
    assert int(found[1]) > 4 * 9
    assert int(found[2]) >= 4
    assert "\x1b" not in out
    assert "demo-AT" not in out
    assert demo.leftovers() == []


def test_a_refused_call_makes_it_fail(demo: Demo) -> None:
    """When the server revokes the grants under way, the exit status and the last line say so."""
    with demo.running("--for", "3") as process:
        url = read_until(process.stdout, "sandbox:").split()[-1].removesuffix("/books")
        read_until(process.stdout, " calls, ")
        urllib.request.urlopen(f"{url}/revoke", data=b"", timeout=PATIENCE).close()  # noqa: S310 - its own
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (1, "")
    assert re.match(r"NOT GOOD: \d+ calls, [1-9]\d* refused; ", out.splitlines()[-1])
    assert demo.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(demo: Demo, number: signal.Signals) -> None:
    """Ctrl-C, a stop and a closed terminal all bring the summary, and nothing is left behind."""
    with demo.running() as process:
        read_until(process.stdout, " calls, ")
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1].startswith("good: ")
    assert demo.leftovers() == []


def test_ctrl_c_before_the_first_tokens(demo: Demo) -> None:
    """An end that comes too early for a verdict is one line, and nothing is left behind."""
    with demo.running() as process:
        _wait_for(lambda: bool(demo.leftovers()), process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert (out, err) == ("", "rotator: demo: ended before the first tokens were there\n")
    assert demo.leftovers() == []


def test_too_long_a_path(demo: Demo) -> None:
    """Where no control socket can be, that is said at once, with the cure."""
    demo.place /= "x" * 80
    demo.place.mkdir()
    demo.environ["TMPDIR"] = str(demo.place)
    with demo.running() as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert (out, err) == ("", f"rotator: demo: {demo.place} is too long a path for a control socket; set TMPDIR=/tmp\n")
    assert demo.leftovers() == []


def test_a_daemon_that_dies_is_told_in_one_line(demo: Demo) -> None:
    """The demo does not go on without its daemon."""
    with demo.running() as process:
        config = Path(read_until(process.stdout, "status:").split()[-2])
        read_until(process.stdout, " calls, ")
        version = ControlClient(config.parent / "run" / "rotator.sock", 5).get("/v1/version")
        assert isinstance(version, dict)
        os.kill(int(version["pid"]), signal.SIGKILL)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert err.startswith("rotator: demo: the daemon ended with status -9: ")
    assert err.count("\n") == 1
    assert demo.leftovers() == []


@pytest.mark.parametrize("no_color", [False, True])
def test_on_a_terminal_it_draws_and_gives_the_terminal_back(demo: Demo, no_color: bool) -> None:
    """80 columns take the table; Ctrl-C leaves the other screen, shows the cursor, and the summary stays."""
    if no_color:
        demo.environ["NO_COLOR"] = "1"
    shown = _at_a_terminal(demo, "valid")  # the first picture may come before any token
    assert "next refresh" in shown
    assert ("\x1b[32m" in shown) is not no_color
    before, _, after = shown.rpartition("\x1b[?1049l")
    assert "\x1b[?1049h" in before
    assert "\x1b[?25h" in after + before[-20:]
    assert "good: " in after
    assert demo.leftovers() == []


def _at_a_terminal(demo: Demo, wanted: str) -> str:
    """Run a demo at a terminal of its own until something is shown, then type Ctrl-C; return all that was shown."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-B", "-m", "rotator.cli", "demo"],
        stdin=slave, stdout=slave, stderr=slave, env=demo.environ, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads of ours in the child
    )  # fmt: skip
    os.close(slave)
    shown, typed = "", False
    try:
        while part := _read(master):
            shown += part.decode(errors="replace")
            if wanted in shown and not typed:
                os.write(master, b"\x03")
                typed = True
        assert process.wait(PATIENCE) == 0, shown
    finally:
        process.terminate()
        process.wait()
        os.close(master)
    return shown


def _read(master: int) -> bytes:
    try:
        return os.read(master, 4096)
    except OSError:  # the other end is closed
        return b""


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None
