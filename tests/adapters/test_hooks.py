"""Hooks: who is told of a new token, what they learn, and what happens when they fail or hang."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rotator.adapters.hooks import CommandHook, SignalHook, WebhookHook
from rotator.core.model import Reason
from rotator.ports import Problem
from tests.children import sleeper
from tests.fakes import FixedClock
from tests.needs import needs
from tests.process.rig import PATIENCE
from tests.samples import AT, token_set
from tests.secrets_scan import assert_no_secrets, planted


def run_shell(script: str, *arguments: object, timeout: float = 30.0) -> Problem | None:
    """Run a shell script as a command hook; `$1` and so on are the arguments."""
    argv = ("sh", "-c", script, "sh", *map(str, arguments))
    hook = CommandHook("hook", "solar", argv, timeout, FixedClock(offset=-5.0))
    return hook.publish(token_set(4, id_token=planted("id")))


def failure(problem: Problem | None) -> str:
    """Return the text of a hook's problem, checked for what holds of all of them."""
    assert problem is not None
    assert problem.reason is Reason.HOOK_FAILED
    assert "\n" not in problem.text
    assert_no_secrets(problem.text)
    return problem.text


# -- commands ------------------------------------------------------------------------------------


def test_a_command_learns_name_generation_and_expiry(tmp_path: Path) -> None:
    """Invariant 11: the environment names what is new, in wall time, and holds no token."""
    assert run_shell('env > "$1"', tmp_path / "env") is None
    text = (tmp_path / "env").read_text()
    seen = dict(line.split("=", 1) for line in text.splitlines())
    assert seen["ROTATOR_CREDENTIAL"] == "solar"
    assert seen["ROTATOR_GENERATION"] == "4"
    assert seen["ROTATOR_EXPIRES_AT"] == str(int(AT + 3600 - 5))
    assert_no_secrets(text)


def test_a_command_inherits_no_secret_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 11: our own environment, where client secrets may be, is not passed on."""
    monkeypatch.setenv("CLIENT_SECRET", planted("client-secret"))
    assert run_shell('env > "$1"', tmp_path / "env") is None
    assert "CLIENT_SECRET" not in (tmp_path / "env").read_text()


def test_a_command_has_no_input_and_its_own_group(tmp_path: Path) -> None:
    """A command reads nothing from our terminal, and signals to our group do not reach it."""
    assert run_shell('cat; test "$(ps -o pgid= -p $$ | tr -d " ")" = $$') is None


def test_a_failing_command_is_told_with_its_last_line() -> None:
    """J5: status and last line are told, and a token in it is not."""
    text = failure(run_shell(f"echo first; echo oops {planted('access-4')} >&2; exit 3"))
    assert "sh failed with exit status 3; its last line: oops ***" in text
    assert "it printed nothing" in failure(run_shell("exit 1"))
    assert "ended by signal 15" in failure(run_shell("kill $$"))


def test_a_command_that_is_not_there_is_told() -> None:
    """A missing program, and one that may not be run, are told with the path."""
    clock = FixedClock()
    for program in ("/no/such/program", "/etc/passwd"):
        hook = CommandHook("hook", "solar", (program,), 30, clock)
        assert program in failure(hook.publish(token_set(1)))


def test_a_hanging_command_is_killed_with_all_its_children(tmp_path: Path) -> None:
    """At the time limit the whole process group is killed, not only the first process."""
    script = 'sleep 600 & echo $! > "$1"; echo waiting; wait'
    started_at = time.monotonic()
    text = failure(run_shell(script, tmp_path / "pid", timeout=0.5))
    assert time.monotonic() - started_at < 30
    assert "time limit is 0.5 s" in text
    assert "waiting" in text
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + PATIENCE
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_command_that_somebody_else_kills_is_told() -> None:
    """The kernel kills it because memory runs out: no time limit is blamed."""
    text = failure(run_shell("kill -KILL $$"))
    assert text == "the hook sh was ended by signal 9, as when memory runs out; it printed nothing"


def test_a_background_child_does_not_hold_up_the_hook(tmp_path: Path) -> None:
    """A command that leaves a program running behind it has ended when it itself ends."""
    started_at = time.monotonic()
    assert run_shell('sleep 600 & echo $! > "$1"', tmp_path / "pid") is None
    assert time.monotonic() - started_at < 25
    pid = int((tmp_path / "pid").read_text())
    assert _runs(pid)
    os.kill(pid, 9)


_UNKILLABLE = """
import subprocess, sys
from rotator.adapters.hooks import CommandHook
from rotator.config import source
from tests.fakes import FixedClock
from tests.samples import token_set
argv = ("sh", "-c", 'echo $$ >> "$1"; exec setpriv --reuid 65534 sleep 600', "sh", sys.argv[1])
hook = CommandHook("hook", "solar", argv, 1.0, FixedClock())
print(hook.publish(token_set(1)).text)
print(source._output_of(argv, {"PATH": "/usr/bin:/bin"}, 1.0).text)
"""


def test_a_command_that_cannot_be_killed_is_not_waited_for(tmp_path: Path) -> None:
    """L3: a command that has become another user runs on beyond its limit, and that is told; so is a secret's."""
    needs("root", "setpriv")
    argv = ("setpriv", "--bounding-set", "-kill", sys.executable, "-c", _UNKILLABLE, str(tmp_path / "pids"))
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=True)
    finally:
        for pid in (tmp_path / "pids").read_text().split():
            os.kill(int(pid), 9)
    hook, secret = done.stdout.splitlines()
    assert "cannot be killed" in hook
    assert "the time limit is 1 s" in hook
    assert "did not end within 1 s" in secret


def test_a_command_that_closes_its_output_is_waited_for(tmp_path: Path) -> None:
    """A command has ended when it has, not when it has nothing more to say."""
    assert run_shell('exec >&- 2>&-; sleep 0.6; echo done > "$1"', tmp_path / "done") is None
    assert (tmp_path / "done").read_text() == "done\n"


def test_a_talkative_command_neither_blocks_nor_fills_memory() -> None:
    """A command that prints a lot is read to its end; only its last line is kept."""
    script = "yes | head -c 5000000; echo; echo last; exit 1"
    assert failure(run_shell(script)).endswith("its last line: last")


# -- signals -------------------------------------------------------------------------------------


def test_a_signal_reaches_the_process(tmp_path: Path) -> None:
    """The process whose id stands in the file gets the signal."""
    with sleeper() as process:
        (tmp_path / "pid").write_text(f" {process.pid}\n")
        assert SignalHook("hook", tmp_path / "pid", "USR1").publish(token_set(1)) is None
        assert process.wait(PATIENCE) == -10


@pytest.mark.parametrize("content", ["", "0", "1", "-1", "-5", "x", "12 13", "9" * 40, "٣"])
def test_a_pid_file_with_anything_else_is_a_problem(tmp_path: Path, content: str) -> None:
    """A file that names a group, the first process or nothing never leads to a signal."""
    (tmp_path / "pid").write_text(content)
    text = failure(SignalHook("hook", tmp_path / "pid", "TERM").publish(token_set(1)))
    assert str(tmp_path / "pid") in text


def test_our_own_id_and_ended_processes_are_problems(tmp_path: Path) -> None:
    """A stale pid file is told, whether its id is free or by chance our own."""
    with sleeper() as process:
        pass
    hook = SignalHook("hook", tmp_path / "pid", "TERM")
    (tmp_path / "pid").write_text(str(process.pid))
    assert "does not run" in failure(hook.publish(token_set(1)))
    (tmp_path / "pid").write_text(str(os.getpid()))
    failure(hook.publish(token_set(1)))
    (tmp_path / "pid").unlink()
    assert "is the program running" in failure(hook.publish(token_set(1)))


# -- webhooks ------------------------------------------------------------------------------------


class Receiver(BaseHTTPRequestHandler):
    """Keeps what was posted and answers as told."""

    def do_POST(self) -> None:
        """Take one request."""
        server = self.server
        assert isinstance(server, Listener)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.received.append((self.path, dict(self.headers), body))
        self.send_response(server.status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class Listener(HTTPServer):
    """A web server that remembers."""

    def __init__(self) -> None:
        """Listen on a free port."""
        super().__init__(("127.0.0.1", 0), Receiver)
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 204


@pytest.fixture
def listener() -> Generator[Listener]:
    """Return a running web server."""
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_stop_does_not_wait_for_a_command() -> None:
    """E16: a command that would run for long is killed soon after rotator begins to stop; it runs at the next start."""
    stopping = threading.Event()
    stopping.set()
    hook = CommandHook("hook", "solar", ("sleep", "600"), 900.0, FixedClock(), stopping)
    assert "rotator stops" in failure(hook.publish(token_set(1)))


def webhook(url: str | Problem, timeout: float = 30.0, stopping: threading.Event | None = None) -> WebhookHook:
    """Return a hook that posts to a URL."""
    return WebhookHook("hook", "solar", lambda: url, timeout, FixedClock(offset=-5.0), stopping)


def test_a_webhook_posts_what_is_new_without_the_token(listener: Listener) -> None:
    """Invariant 11: the body has name, generation and expiry, and nothing secret is sent."""
    url = f"http://127.0.0.1:{listener.server_port}/hook/x?y=1"
    assert webhook(url).publish(token_set(4)) is None
    ((path, headers, body),) = listener.received
    assert path == "/hook/x?y=1"
    assert headers["Content-Type"] == "application/json"
    expected = {"credential": "solar", "generation": 4, "expires_at": int(AT + 3600 - 5)}
    assert expected == json.loads(body)
    assert_no_secrets(str(headers), body)


@pytest.mark.parametrize("status", [301, 307, 404, 500])
def test_a_webhook_that_is_not_answered_well_has_failed(listener: Listener, status: int) -> None:
    """A redirect is not followed; it and every refusal is told, without the secret path."""
    listener.status = status
    url = f"http://127.0.0.1:{listener.server_port}/{planted('path')}"
    text = failure(webhook(url).publish(token_set(1)))
    assert f"webhook at 127.0.0.1 failed: it answered {status}" in text
    assert len(listener.received) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/{}", "http://[/{}", "http://h:x/{}", "{}"])
def test_a_webhook_that_cannot_be_sent_has_failed(url: str) -> None:
    """J5: nothing of a URL but its host is told, not even if it is malformed."""
    failure(webhook(url.format(planted("path"))).publish(token_set(1)))
    failure(webhook("http://127.0.0.1/a b\n" + planted("path")).publish(token_set(1)))


def test_a_url_that_cannot_be_read_is_told_as_it_is() -> None:
    """The problem of reading the URL is passed on."""
    problem = Problem(Reason.BAD_INPUT, "webhook: no such file")
    assert problem == webhook(problem).publish(token_set(1))


@contextmanager
def dripping() -> Generator[int]:
    """Serve an answer that never ends, a byte now and then, and give the port."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with server.accept()[0] as peer:
                peer.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not stop.wait(0.05):
                    try:
                        peer.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def test_a_dripping_answer_ends_at_the_time_limit() -> None:
    """The limit is for the whole call: a byte now and then does not extend it."""
    with dripping() as port:
        started_at = time.monotonic()
        text = failure(webhook(f"http://127.0.0.1:{port}/", 0.5).publish(token_set(1)))
        assert "no answer within 0.5 s" in text
        assert time.monotonic() - started_at < 30


def test_a_stop_does_not_wait_for_a_webhook() -> None:
    """E16: whoever was to be told takes his time; soon after rotator begins to stop the call is cut short."""
    stopping = threading.Event()
    stopping.set()
    with dripping() as port:
        text = failure(webhook(f"http://127.0.0.1:{port}/", 900.0, stopping).publish(token_set(1)))
    assert text == "webhook at 127.0.0.1 failed: rotator stops"
