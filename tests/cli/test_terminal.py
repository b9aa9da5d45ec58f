"""The commands at a terminal: what is asked, what is echoed, what has colour."""

import fcntl
import os
import pty
import select
import subprocess
import termios
import time

from tests.cli.conftest import PASSWORD, USERNAME, Place


def converse(rotator: Place, command: list[str], *answers: tuple[str, str]) -> tuple[int, str]:
    """Run a command at a terminal of its own; give each answer once its question stands there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=rotator.environ, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads of ours in the child
    )  # fmt: skip
    os.close(slave)
    shown, pending = "", list(answers)
    deadline = time.monotonic() + 30
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
                os.write(master, pending.pop(0)[1].encode() + b"\n")
        assert process.wait(20) is not None
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert not pending, shown
    return process.returncode, shown


def test_the_password_is_asked_for_and_not_echoed(rotator: Place) -> None:
    """The user name is shown as it is typed, the password is not."""
    code, shown = converse(
        rotator,
        rotator.command("login", "home"),
        ("User name for home:", USERNAME),
        ("Password (not shown):", PASSWORD),
    )
    assert code == 0, shown
    assert PASSWORD not in shown
    assert "home: logged in, generation 1" in shown


def test_ctrl_c_at_the_password_is_one_word(rotator: Place) -> None:
    """An interrupted login shows no traceback."""
    code, shown = converse(rotator, rotator.command("login", "home"), ("User name for home:", "\x03"))
    assert code == 130
    assert shown.rstrip().endswith("rotator: interrupted")
    assert "Traceback" not in shown


def test_status_has_colour_at_a_terminal_unless_unwanted(rotator: Place) -> None:
    """NO_COLOR is honoured."""
    rotator.login()
    assert "\x1b[" not in converse(rotator, rotator.command("status"))[1]
    rotator.environment["NO_COLOR"] = ""
    assert "\x1b[32mvalid" in converse(rotator, rotator.command("status"))[1]
