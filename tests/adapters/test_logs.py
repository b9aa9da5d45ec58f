"""The log as it comes out of a process: its lines, its volume, and that no library's secret is in it."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from rotator.adapters.logs import Fanout, LogObserver, redact
from rotator.adapters.logs.observer import _MOST_FAILING
from rotator.core.model import Oddity, Reason
from rotator.ports import (
    Event,
    Notice,
    Problem,
    PublishFinished,
    RefreshFinished,
    RefreshStarted,
    SaveFinished,
    StatusChanged,
)
from tests.process.rig import PATIENCE
from tests.secrets_scan import assert_no_secrets, planted, secrets_in

ROOT = Path(__file__).parents[2]
FULL_DISK = Problem(Reason.NO_SPACE, "/var/lib/rotator: no space left; free some")
PRELUDE = """
import logging, os, sys
from rotator.adapters.logs import LogObserver, configure
from rotator.core.model import Oddity, Reason
from rotator.ports import *
from tests.secrets_scan import planted
"""


def log_of(code: str, level: str = "info", format_: str = "json", **environ: str) -> list[str]:
    """Run code in a process that logs to a pipe; return the lines of its stderr."""
    program = f"{PRELUDE}\nconfigure({level!r}, {format_!r})\n{textwrap.dedent(code)}"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env={**os.environ, **environ}, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    return run.stderr.splitlines()


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """Collect what an observer logs, from level info on."""
    found: list[logging.LogRecord] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    collect = Collect(logging.INFO)
    logging.getLogger("rotator").addHandler(collect)
    yield found
    logging.getLogger("rotator").removeHandler(collect)


def events(records: list[logging.LogRecord]) -> list[tuple[str, str]]:
    """Return event names and levels."""
    return [(vars(record)["event"], record.levelname) for record in records]


def failed(failures: int, outcome: str = "unavailable") -> RefreshFinished:
    """Return the end of a token request that failed."""
    return RefreshFinished("web", outcome, Reason.CONNECT, "idp.example:443 refuses connections", 0.1, 4, failures)


# -- volume --------------------------------------------------------------------------------------------


def test_ten_thousand_failures_are_a_handful_of_lines(lines: list[logging.LogRecord]) -> None:
    """E3: the same failure is logged at its occurrences 1, 2, 4, 8, ..., with the count in the line."""
    observer = LogObserver()
    for number in range(1, 10_001):
        observer.notify(failed(number))
    assert [vars(record)["fields"]["failures"] for record in lines] == [2**power for power in range(14)]


def test_failed_saves_and_publishes_are_not_repeated_either(lines: list[logging.LogRecord]) -> None:
    """E3: a disk that is full for hours, with a try each second, does not fill the log's disk too."""
    observer = LogObserver()
    for number in range(1, 10_001):
        observer.notify(SaveFinished("web", FULL_DISK, 0.001, holds_new_pair=True))
        observer.notify(PublishFinished("web", "/run/web", FULL_DISK, 4, 0.001, number))
    assert len(lines) == 28
    lines.clear()
    observer.notify(SaveFinished("web", None, 0.001, holds_new_pair=True))
    observer.notify(SaveFinished("web", FULL_DISK, 0.001, holds_new_pair=False))
    assert events(lines) == [("saved", "INFO"), ("save_failed", "ERROR")]


def test_a_full_disk_under_a_large_fleet_costs_no_memory(lines: list[logging.LogRecord]) -> None:
    """E3: beyond some failing credentials they share one count; the first ones keep theirs."""
    observer = LogObserver()
    for number in range(1_500):
        observer.notify(SaveFinished(f"c{number}", FULL_DISK, 0.001, holds_new_pair=False))
    assert len(observer._failing_saves) == _MOST_FAILING + 1
    assert len(lines) < _MOST_FAILING + 20
    for number in range(1_500):
        observer.notify(SaveFinished(f"c{number}", None, 0.001, holds_new_pair=False))
    assert observer._failing_saves == {}


def test_routine_is_quiet(lines: list[logging.LogRecord]) -> None:
    """A rotation that goes well is one line at level info."""
    observer = LogObserver()
    for event in (
        RefreshStarted("web", "due"),
        SaveFinished("web", None, 0.001, holds_new_pair=False),
        SaveFinished("web", None, 0.001, holds_new_pair=True),
        RefreshFinished("web", "granted", None, "", 0.1, 5, 0, (Oddity.SCOPE_SHAPE,), why="due"),
        PublishFinished("web", "/run/web", None, 5, 0.001, 0),
    ):
        observer.notify(event)
    assert events(lines) == [("refreshed", "INFO")]
    assert vars(lines[0])["fields"] == {
        "credential": "web",
        "why": "due",
        "generation": 5,
        "seconds": 0.1,
        "oddities": ["scope_shape"],
    }


def test_debug_shows_every_step() -> None:
    """At level debug also the repeated failures are there."""
    code = """
    observer = LogObserver()
    for failures in range(1, 8):
        observer.notify(RefreshStarted("web", "retry"))
        observer.notify(RefreshFinished("web", "refused", Reason.INVALID_CLIENT, "no", 0.1, 4, failures))
    """
    names = [json.loads(line)["event"] for line in log_of(code, "debug")]
    assert names == ["refresh_started", "refresh_failed"] * 7


# -- names and levels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "name", "level"),
    [
        (failed(1), "refresh_failed", "WARNING"),
        (RefreshFinished("web", "granted", None, "", 0.1, 5, 0, (Oddity.ROTATION_MISSING,)), "refreshed", "WARNING"),
        (RefreshFinished("web", "late", None, "", 0.1, 5, 0), "refresh_late", "INFO"),
        (SaveFinished("web", FULL_DISK, 0.1, holds_new_pair=True), "pair_unsaved", "CRITICAL"),
        (SaveFinished("web", FULL_DISK, 0.1, holds_new_pair=False), "save_failed", "ERROR"),
        (PublishFinished("web", "/run/web", FULL_DISK, 4, 0.1, 1), "publish_failed", "ERROR"),
        (StatusChanged("web", "ok", "suspect", ""), "status_changed", "WARNING"),
        (StatusChanged("web", "suspect", "reauthorization_required", ""), "status_changed", "ERROR"),
        (StatusChanged("web", "suspect", "ok", ""), "status_changed", "INFO"),
        (Notice("reloaded", "configuration reloaded"), "reloaded", "INFO"),
        (Notice("bug", "a bug", "web", "critical"), "bug", "CRITICAL"),
    ],
)
def test_each_thing_has_a_name_and_a_level(lines: list[logging.LogRecord], event: Event, name: str, level: str) -> None:
    """One stable event name for each thing that happened; what loses tokens is the loudest."""
    LogObserver().notify(event)
    assert events(lines) == [(name, level)]


def test_a_dead_grant_says_what_to_do(lines: list[logging.LogRecord]) -> None:
    """The message names the cure."""
    LogObserver().notify(StatusChanged("web", "suspect", "reauthorization_required", "invalid_grant: revoked"))
    assert lines[0].getMessage() == "the grant is dead: log in anew with `rotator login web`"
    assert vars(lines[0])["fields"]["why"] == "invalid_grant: revoked"


def test_fanout_tells_everyone_in_order() -> None:
    """Each observer hears of each event, those added later too."""
    heard: list[tuple[int, Event]] = []

    class Ear:
        def __init__(self, number: int) -> None:
            self.number = number

        def notify(self, event: Event) -> None:
            heard.append((self.number, event))

    fanout, event = Fanout([Ear(1), Ear(2)]), RefreshStarted("web", "due")
    fanout.add(Ear(3))
    fanout.notify(event)
    assert heard == [(1, event), (2, event), (3, event)]


# -- lines -------------------------------------------------------------------------------------------------

FAILED = 'LogObserver().notify(RefreshFinished("web", "refused", Reason.INVALID_CLIENT, "no\\nway", 0.1, 4, 1))'


def test_json_lines() -> None:
    """A pipe gets one JSON object a line, the time in UTC, the fields beside the message."""
    (line,) = log_of(FAILED, format_="auto")
    document = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document.pop("time"))
    assert document == {
        "level": "warning", "event": "refresh_failed", "message": "no\nway", "logger": "rotator", "credential": "web",
        "outcome": "refused", "reason": "invalid_client", "failures": 1, "generation": 4, "seconds": 0.1,
    }  # fmt: skip


def test_times_are_utc_in_every_zone() -> None:
    """D6: the machine's zone does not show in the log."""
    code = (
        "logging.getLogger('x').handle(logging.makeLogRecord({'name': 'x', 'levelno': 20, 'created': 1e9, 'msg': 'm'}))"
    )
    for zone in ("America/New_York", "Asia/Kolkata"):
        (line,) = log_of(code, TZ=zone)
        assert json.loads(line)["time"] == "2001-09-09T01:46:40.000Z"


def test_text_lines() -> None:
    """Text is one line too, also if a server's words hold a line break (a forged line would be one of ours)."""
    (line,) = log_of(FAILED, format_="text")
    time, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == (
        r"WARNING  refresh_failed: no\x0away credential=web outcome=refused reason=invalid_client failures=1"
        " generation=4 seconds=0.1"
    )


@pytest.mark.parametrize("format_", ["json", "text", "auto"])
def test_the_journal_gets_priorities_and_no_times(format_: str) -> None:
    """Each line has its priority, a traceback's too, the journal adds the time; `auto` is text, for people read it."""
    code = """
    try:
        raise ValueError("oops")
    except ValueError:
        logging.getLogger("x").exception("broken")
    LogObserver().notify(RefreshFinished("web", "granted", None, "", 0.1, 5, 0))
    """
    # The file is the journal's for as long as its name is that of the process's stderr.
    prelude = "s = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{s.st_dev}:{s.st_ino}'; configure('info', %r)\n"
    *broken, fine = log_of(prelude % format_ + textwrap.dedent(code))
    assert [line[:3] for line in broken] == ["<3>"] * len(broken)
    assert fine.startswith('<6>{"level": "info", ' if format_ == "json" else "<6>INFO     refreshed: ")
    assert (len(broken) > 3) == (format_ != "json")


def test_another_processes_journal_is_not_ours() -> None:
    """JOURNAL_STREAM is inherited: with stderr redirected the lines have times and no priorities."""
    (line,) = log_of(FAILED, JOURNAL_STREAM="8:12345")
    assert "time" in json.loads(line)


def test_a_terminal_gets_text() -> None:
    """`auto` is text where a person reads along."""
    terminal = "import pty\nmaster, slave = pty.openpty()\nos.dup2(slave, 2)\nconfigure('info', 'auto')\n"
    run = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}\n{terminal}\n{FAILED}\nprint(os.read(master, 9999).decode())"],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert "WARNING  refresh_failed: no\\x0away" in run.stdout


def test_configuring_again_replaces() -> None:
    """A reload may change level and format: each thing is still logged once."""
    code = f"configure('error', 'json'); configure('info', 'text')\n{FAILED}"
    assert len(log_of(code)) == 1


def test_libraries_are_held_to_warnings() -> None:
    """httpx, httpcore, uvicorn and APScheduler say nothing below a warning, whatever our own level."""
    code = """
    for name in ("httpx", "httpcore.http11", "uvicorn.access", "apscheduler.scheduler", "asyncio"):
        logging.getLogger(name).info("routine")
        logging.getLogger(name).warning("trouble")
    """
    found = [json.loads(line) for line in log_of(code, "debug")]
    assert [line["message"] for line in found] == ["trouble"] * 5


# -- secrets -----------------------------------------------------------------------------------------------

LEAKS = """
secret, http = planted("secret-1"), logging.getLogger("httpcore")
import base64, warnings
basic = base64.b64encode(f"client:{secret}".encode()).decode()
http.setLevel(1)
http.error("POST https://idp.example/token?access_token=%s&x=1", secret)
http.error("grant_type=refresh_token&refresh_token=%s&client_id=a&client_secret=%s", secret, secret)
http.error("send %r", {"refresh_token": secret, "id_token": None, "password": secret})
http.error("send %s", '{"access_token": "' + secret + '", "expires_in": 3600}')
http.error("nested %r", '{"access_token": "' + secret + '"}')
http.error("headers=%r", [(b"Host", b"x"), (b"Authorization", b"Basic " + basic.encode()), (b"Accept", b"*/*")])
http.error("Authorization: Bearer %s", secret)
http.error("proxy http://user:%s@proxy:3128 failed", secret)
http.error('Authorization: N2G-LAN-USER token="%s"', secret)
http.error("with extra", extra={"access_token": secret, "request": {"form": [{"client_secret": secret}]}})
http.error({"message": "as a mapping", "password": secret})
http.error("broken %s %s", f"refresh_token={secret}")
try:
    try:
        raise ValueError(f"body was username={secret}&password={secret}")
    except ValueError as error:
        raise RuntimeError("access_token='" + secret + "'") from error
except RuntimeError as error:
    http.exception("with a traceback")
    LogObserver().notify(Notice("bug", "a bug", "web", "critical", {"exception": error}))
http.error("with a stack refresh_token=%s", secret, stack_info=True)
warnings.warn(f"client_secret={secret}")
import threading
def thread(): raise KeyError(f"password={secret}")
one = threading.Thread(target=thread); one.start(); one.join()
raise ValueError(f"the end: refresh_token={secret}")
"""


@pytest.mark.parametrize("format_", ["json", "text"])
def test_no_librarys_secret_comes_out(format_: str) -> None:
    """J2, J3: redaction stands at the root: messages, arguments, extras, tracebacks, warnings, crashes."""
    lines = log_of(LEAKS, "debug", format_)
    assert_no_secrets("\n".join(lines))
    text = "\n".join(lines)
    assert text.count("[redacted]") >= 20
    for kept in (
        "https://idp.example/token?access_token=",
        "grant_type=refresh_token",
        "client_id=a",
        "proxy:3128 failed",
    ):
        assert kept in text
    assert "RuntimeError" in text
    assert "the end" in text


@pytest.mark.parametrize(
    "text",
    [
        "client_secret: cannot read /run/secrets/idp_secret1: No such file or directory",
        "the state holds no refresh_token; log in with `rotator login web`",
        "Basic authentication failed; check client_secret",
        "access_token_fingerprint=0f1e2d3c generation=5",
        "invalid_grant: the refresh token is expired",
        "https://idp.example:8443/v2/token refuses connections; is it up?",
        "authorization server asks for authorization, again",
        "token_type=Bearer expires_in=3600",
        "conf.toml:3: credentials.web.client_secret: unknown key; did you mean client_id?",
        "/run/rotator/web.token: permission denied",
    ],
)
def test_harmless_words_stay(text: str) -> None:
    """Redaction takes no word that a person needs."""
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("access_token=abc&x=1", "access_token=[redacted]&x=1"),
        ("accessToken='a b c', n=1", "accessToken=[redacted], n=1"),
        (r'"password": "a\"b c", "n": 1', '"password": [redacted], "n": 1'),
        (r"{\"client_secret\": \"a b\", \"n\": 1}", r"{\"client_secret\": [redacted], \"n\": 1}"),
        ("'refresh_token': 'cut off in the mid", "'refresh_token': [redacted]"),
        ("(b'Authorization', b'Bearer abc'), (b'n', b'1')", "(b'Authorization', b[redacted]), (b'n', b'1')"),
        ("authorization: Digest a, b\nn: 1", "authorization: [redacted]\nn: 1"),
        ("as Bearer 2YotnFZFEjr1zCsicMWpAA to", "as Bearer [redacted] to"),
        ("refresh_token: tGzv3JOkF0XG5Qx2TlKWIA", "refresh_token: [redacted]"),
        ("got eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln, ok", "got [redacted], ok"),
        ("http://u:p@h:1/x", "http://[redacted]@h:1/x"),
    ],
)
def test_secrets_are_found_by_what_stands_around_them(text: str, expected: str) -> None:
    """J2, J3: forms, JSON, Python reprs, headers, URLs and JWTs."""
    assert redact(text) == expected
    assert redact(expected) == expected


def test_redaction_is_quick() -> None:
    """A megabyte that a server sent does not stop the line: redaction takes no more than linear time."""
    import time  # noqa: PLC0415 - only here

    for text in (
        "password" * 50_000,
        "'" * 100_000,
        "password='" * 20_000,
        "eyJ" * 50_000,
        "a" * 300_000,
        "Basic " * 50_000,
    ):
        started = time.monotonic()
        redact(text)
        assert time.monotonic() - started < 3, text[:20]


@pytest.mark.shows_secrets
def test_the_leaks_are_real() -> None:
    """Without redaction the same program does show its secrets: the test above can fail."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("httpcore")
    logger.addHandler(handler)
    logger.error("refresh_token=%s", planted("secret-1"))
    logger.removeHandler(handler)
    assert secrets_in(stream.getvalue())
