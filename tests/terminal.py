"""A terminal, and somebody who types at it."""

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path

from tests.process.rig import PATIENCE, wait_until


def converse(
    environ: Mapping[str, str], command: list[str], *answers: tuple[str, str], patience: float = PATIENCE
) -> tuple[int, str]:
    """Run a command at a terminal of its own; give each answer once its question stands there. Patience: seconds."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environ, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads of ours in the child
    )  # fmt: skip
    os.close(slave)
    shown, pending, status = "", list(answers), Path(f"/proc/{process.pid}/status")
    deadline = time.monotonic() + patience
    try:
        while time.monotonic() < deadline:
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                part = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            shown += part.decode()
            if pending and pending[0][0] in shown:
                # It sleeps: while it still flushes its question, Python's `input` forgets a Ctrl-C.
                wait_until(lambda: "\nState:\tS" in status.read_text(), "it waits for an answer")
                os.write(master, pending.pop(0)[1].encode() + b"\n")
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            signals = [line for line in status.read_text().splitlines() if "Sig" in line]
            raise AssertionError(f"it goes on, having said {shown!r}, with {signals}") from None
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert not pending, shown
    return process.returncode, shown
