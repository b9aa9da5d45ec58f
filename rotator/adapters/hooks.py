"""Sinks that only tell that there is a new token: a command, a signal, a web request.

None of them gets the token. They run after the outputs of their generation, so who is told can read it.
"""

import contextlib
import http.client
import json
import os
import selectors
import signal as signals
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rotator.adapters import atomic
from rotator.core.grant import scrub
from rotator.core.model import Reason, TokenSet
from rotator.ports import Clock, Problem

_INHERITED: Final = ("HOME", "LANG", "LC_ALL", "PATH", "TZ", "USER")
"""All that a command gets of our environment: the rest may hold client secrets."""
_OUTPUT_KEPT: Final = 4096
_STOP_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.25


class _Hook:
    """What the hooks have in common: a name, and nothing that somebody could tamper with."""

    def __init__(self, name: str) -> None:
        self.name = name

    def intact(self) -> bool:
        """Return True: what was told stays told."""
        return True


class CommandHook(_Hook):
    """Runs a command: no shell, no input, its own process group, a time limit.

    The command finds ROTATOR_CREDENTIAL, ROTATOR_GENERATION and ROTATOR_EXPIRES_AT (seconds since
    the epoch) in its environment. What it leaves running in the background is left alone, unless
    the time limit passed.
    """

    def __init__(
        self,
        name: str,
        credential: str,
        argv: Sequence[str],
        timeout: float,
        clock: Clock,
        stopping: threading.Event | None = None,
    ) -> None:
        """Take the argument vector and the limit in seconds; once `stopping` is set the command has half a second."""
        super().__init__(name)
        self._credential = credential
        self._argv = tuple(argv)
        self._stopping = stopping or threading.Event()
        self._timeout = timeout
        self._clock = clock

    def publish(self, tokens: TokenSet) -> Problem | None:
        """Run the command to its end; see `rotator.ports.Sink`."""
        environment = {key: os.environ[key] for key in _INHERITED if key in os.environ}
        environment |= {
            "ROTATOR_CREDENTIAL": self._credential,
            "ROTATOR_GENERATION": str(tokens.generation),
            "ROTATOR_EXPIRES_AT": str(int(self._clock.wall(tokens.expires_at))),
        }
        try:
            process = subprocess.Popen(  # noqa: S603 - the configured command, without a shell
                self._argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
                cwd="/",
            )
        except OSError as error:
            problem = atomic.problem_of(error, self._argv[0], "run the hook")
            if problem.reason is Reason.MISSING_DIRECTORY:
                text = f"cannot run the hook {self._argv[0]}: there is no such program; give its path"
                return Problem(Reason.HOOK_FAILED, text)
            return Problem(Reason.HOOK_FAILED, problem.text)
        output, cut_short = _run_to_end(process, self._timeout, self._stopping)
        secrets = (tokens.access_token, tokens.refresh_token or "", tokens.id_token or "")
        last = scrub((output.decode(errors="replace").strip().splitlines() or [""])[-1], secrets)
        told = f"; its last line: {last}" if last else "; it printed nothing"
        if process.returncode == 0:
            return None
        if cut_short:
            why = "rotator stops" if self._stopping.is_set() else f"the time limit is {self._timeout:g} s"
            killed = (
                "was killed" if process.returncode else "cannot be killed, perhaps it is another user's: it runs on"
            )
            end = f"{killed} ({why})"
        elif process.returncode < 0:
            memory = ", as when memory runs out" if process.returncode == -signals.SIGKILL else ""
            end = f"was ended by signal {-process.returncode}{memory}"
        else:
            end = f"failed with exit status {process.returncode}"
        return Problem(Reason.HOOK_FAILED, f"the hook {self._argv[0]} {end}{told}")


def _run_to_end(process: subprocess.Popen[bytes], timeout: float, stopping: threading.Event) -> tuple[bytes, bool]:
    """Wait for the process itself, not for children that keep its output open; return the tail, and if we killed it.

    A stop does not wait for a hook (case E16): it is run again at the next start.
    """
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    deadline = time.monotonic() + timeout
    output, cut_short = b"", False
    with process.stdout, selectors.PollSelector() as selector:  # which needs no file descriptor
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if stopping.is_set():
                deadline = min(deadline, time.monotonic() + _STOP_SECONDS)
                stopping = threading.Event()  # seen
            seconds = max(0.0, min(deadline - time.monotonic(), _LOOK_SECONDS))
            if not selector.get_map():
                if _has_ended(process, seconds):
                    break
            elif selector.select(seconds):
                piece = os.read(process.stdout.fileno(), 1 << 16)
                output = (output + piece)[-_OUTPUT_KEPT:]
                if not piece:
                    selector.unregister(process.stdout)
            elif _has_ended(process):
                break
            if time.monotonic() >= deadline:
                cut_short = True
                # Not reaped yet, so its id, and with it the group's, is still its own.
                with contextlib.suppress(OSError):  # gone already, or another user's
                    os.killpg(process.pid, signals.SIGKILL)
                _has_ended(process, _STOP_SECONDS)
                break
    return output, cut_short


def _has_ended(process: subprocess.Popen[bytes], seconds: float = 0.0) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


class SignalHook(_Hook):
    """Sends a signal to the process whose id stands in a file."""

    def __init__(self, name: str, pid_file: Path, signal: str) -> None:
        """Take the signal's name without `SIG`, e.g. `HUP`."""
        super().__init__(name)
        self._pid_file = pid_file
        self._signal = signals.Signals[f"SIG{signal}"]

    def publish(self, tokens: TokenSet) -> Problem | None:  # noqa: ARG002 - nothing is passed on
        """Send the signal; see `rotator.ports.Sink`."""
        try:
            text = self._pid_file.read_bytes()[:32].decode("ascii", "replace").strip()
        except OSError as error:
            problem = atomic.problem_of(error, self._pid_file, "read the pid file")
            cure = "is the program running, and does it write that file?"
            return Problem(Reason.HOOK_FAILED, f"{problem.text.rpartition(';')[0]}; {cure}")
        pid = int(text) if text.isdecimal() else 0
        if pid <= 1 or pid == os.getpid():  # 0 and below are groups, 1 is the system
            return self._problem(f"holds no process id that may be signalled: {text[:20]!r}")
        try:
            os.kill(pid, self._signal)
        except (ProcessLookupError, OverflowError):
            return self._problem(f"names process {pid}, which does not run; start the program")
        except PermissionError:
            return self._problem(f"names process {pid}, which rotator may not signal; run both as the same user")
        return None

    def _problem(self, what: str) -> Problem:
        return Problem(Reason.HOOK_FAILED, f"{atomic.shown(self._pid_file)} {what}")


class WebhookHook(_Hook):
    """Posts JSON with credential, generation and expires_at to a URL; redirects are not followed.

    The URL is often itself a secret: only its host is ever shown.
    """

    def __init__(
        self,
        name: str,
        credential: str,
        url: Callable[[], str | Problem],
        timeout: float,
        clock: Clock,
        stopping: threading.Event | None = None,
    ) -> None:
        """Take a reader of the URL, asked each time, and the limit in seconds; a stop gives it half a second."""
        super().__init__(name)
        self._stopping = stopping or threading.Event()
        self._credential = credential
        self._url = url
        self._timeout = timeout
        self._clock = clock

    def publish(self, tokens: TokenSet) -> Problem | None:
        """Send the request and take any 2xx for success; see `rotator.ports.Sink`."""
        url = self._url()
        if isinstance(url, Problem):
            return url
        body = {
            "credential": self._credential,
            "generation": tokens.generation,
            "expires_at": int(self._clock.wall(tokens.expires_at)),
        }
        host = "its host"
        try:
            parts = urlsplit(url)
            host = parts.hostname or host
            status = self._post(parts.scheme, parts.hostname or "", parts.port, _target(url), body)
        except TimeoutError:
            problem = "rotator stops" if self._stopping.is_set() else f"no answer within {self._timeout:g} s"
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Of these only an OSError's words are sure not to repeat the URL.
            words = error.strerror if isinstance(error, OSError) else None
            problem = words or type(error).__name__
        else:
            if 200 <= status < 300:  # noqa: PLR2004 - status classes read best as numbers
                return None
            problem = f"it answered {status}"
            if 300 <= status < 400:  # noqa: PLR2004
                problem += ", and redirects are not followed: configure the new URL"
        return Problem(Reason.HOOK_FAILED, f"webhook at {host} failed: {problem}")

    def _post(self, scheme: str, host: str, port: int | None, target: str, body: dict[str, object]) -> int:
        connection: http.client.HTTPConnection
        if scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
        answer: Future[int] = Future()

        def post() -> None:
            try:
                headers = {"Content-Type": "application/json", "Connection": "close"}
                connection.request("POST", target, json.dumps(body), headers)
                answer.set_result(connection.getresponse().status)
            except Exception as error:  # noqa: BLE001 - it is raised where somebody waits for the answer
                answer.set_exception(error)
            finally:
                connection.close()

        # A thread, as nothing else ends a name that is looked up, or an answer that comes byte by byte.
        threading.Thread(target=post, name="webhook", daemon=True).start()
        deadline, stopping = time.monotonic() + self._timeout, self._stopping
        while not wait([answer], min(max(0.0, deadline - time.monotonic()), _LOOK_SECONDS)).done:
            if stopping.is_set():
                deadline = min(deadline, time.monotonic() + _STOP_SECONDS)
                stopping = threading.Event()  # seen
            if time.monotonic() >= deadline:
                sock = connection.sock
                if sock is not None:
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
                raise TimeoutError
        return answer.result()


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
