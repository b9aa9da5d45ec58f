"""`rotator wait`: what a consumer's unit runs before it starts."""

import signal
import subprocess
import time

from rotator.sandbox.server import SandboxServer
from tests.cli.conftest import Place, wait_for
from tests.process.rig import PATIENCE


def test_a_token_that_is_there_is_not_waited_for(rotator: Place) -> None:
    """With a valid token in every output the command ends at once, silently, with status 0."""
    rotator.login()
    with rotator.daemon():
        wait_for(rotator.output.exists)
        run = rotator("wait", "home", "--timeout", "20s")
        assert (run.code, run.out, run.err) == (0, "", "")


def test_daemon_and_first_login_are_waited_for(rotator: Place) -> None:
    """I8: begun before the daemon, with secrets that cannot be read, it ends once somebody has logged in."""
    rotator.environment["RUNTIME_DIRECTORY"] = str(rotator.socket.parent)
    command = [*rotator.command("wait", "home", "--timeout", "30")]
    command[command.index("-c") + 1] = "/not/for/consumers.toml"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=rotator.environ) as waiting:
        assert waiting.stderr is not None
        with rotator.daemon():
            assert waiting.poll() is None
            assert rotator.login().code == 0
            assert waiting.wait(PATIENCE) == 0
        assert waiting.stderr.read() == ""


def test_what_is_lacking_is_told_when_the_time_is_over(rotator: Place, server: SandboxServer) -> None:
    """Status 75 and one line that names the cause and the cure: no daemon, no login, no output."""
    run = rotator("wait", "home", "--timeout", "1")
    text = f"no daemon listens at {rotator.socket}; start it: rotator run"
    assert (run.code, run.lines) == (75, [f"rotator: no valid token within 1 s: {text}"])
    with rotator.daemon():
        wait_for(lambda: "login_required" in rotator("status").out)
        run = rotator("wait", "home", "--timeout", "1")
        text = "home: login_required: log in: rotator login home"
        assert (run.code, run.lines) == (75, [f"rotator: no valid token within 1 s: {text}"])
        rotator.output.mkdir()
        rotator.login()
        run = rotator("wait", "home", "--timeout", "1")
        assert run.code == 75
        assert f"home: cannot write {rotator.output}" in run.lines[0]


def test_a_daemon_that_hangs_is_no_reason_to_hang(rotator: Place) -> None:
    """A daemon that does not answer is waited for like one that is not there."""
    with rotator.daemon() as daemon:
        daemon.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        run = rotator("wait", "home", "--timeout", "0.5")
        daemon.send_signal(signal.SIGCONT)
    assert run.code == 75
    assert time.monotonic() - started < 5
    assert run.lines[0].startswith(
        f"rotator: no valid token within 0.5 s: the daemon at {rotator.socket} gives no good"
    )


def test_a_name_that_nobody_has_is_not_waited_for(rotator: Place) -> None:
    """A typing error is told at once, not after a minute."""
    with rotator.daemon():
        run = rotator("wait", "hom")
        assert (run.code, run.lines) == (64, ["rotator: no credential is named 'hom'; did you mean home?"])


def test_a_time_that_is_none_is_told(rotator: Place) -> None:
    """`--timeout` takes seconds, with or without their unit."""
    run = rotator("wait", "home", "--timeout", "soon")
    assert run.code == 64
    assert "'--timeout': 'soon' is not a valid number of seconds" in run.err
