"""The search for planted secrets finds them, wherever they hide."""

import base64
import json
import logging
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.secrets_scan import (
    PREFIX,
    assert_no_secrets,
    planted,
    secrets_in,
    secrets_in_records,
)

ROOT = Path(__file__).parent.parent
SECRET = planted("refresh-1")


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"Authorization: Bearer {SECRET}\n",
        json.dumps({"refresh_token": SECRET}),
        urlencode({"refresh_token": SECRET, "client_secret": "x"}),
        *(base64.b64encode(b"a" * skip + b":" + SECRET.encode()).decode() for skip in range(6)),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_secrets_are_found_in_every_dress(text: str) -> None:
    """A secret is found in headers, JSON, forms and the base64 of HTTP Basic, at each alignment."""
    assert secrets_in(text)


def test_clean_text_passes() -> None:
    """Ordinary text, paths and fingerprints are no secrets."""
    assert_no_secrets("refreshed ce-api: generation 4, token 3f9a1c", b"\xff\x00", "planted")


def test_files_and_directories_are_searched(tmp_path: Path) -> None:
    """A secret deep in a directory is found, in binary files too."""
    (tmp_path / "logs").mkdir()
    assert_no_secrets(tmp_path)
    (tmp_path / "logs" / "old").write_bytes(b"\xff\0" + SECRET.encode())
    with pytest.raises(AssertionError, match="old shows secrets"):
        assert_no_secrets(tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        {"msg": SECRET},
        {"msg": "sent %s", "args": (SECRET,)},
        {"msg": "sent", "form": {"refresh_token": SECRET}},
        {"msg": "failed", "exc_info": (ValueError, ValueError(SECRET), None)},
    ],
)
def test_log_records_are_searched_whole(record: dict[str, object]) -> None:
    """Message, arguments, extra fields and exceptions of a log record are looked at."""
    assert secrets_in_records([logging.makeLogRecord(record)])


@pytest.mark.parametrize(
    ("leak", "caught"),
    [
        ("print(SECRET)", True),
        ("print(SECRET, file=sys.stderr)", True),
        ("subprocess.run(['echo', SECRET], check=True)", True),
        ("logging.getLogger('httpcore').debug('sent', extra={'form': SECRET})", True),
        ("print(SECRET[1:])", False),
    ],
)
def test_a_leaking_test_fails(leak: str, caught: bool, tmp_path: Path) -> None:
    """A test that leaks to stdout, stderr or a log, itself or through a child, does not pass."""
    (tmp_path / "test_leak.py").write_text(
        f"import logging, subprocess, sys\nSECRET = {PREFIX!r} + 'x'\ndef test_leak(): {leak}\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    run = subprocess.run(
        [*command, "-p", "tests.conftest", "-c", ROOT / "pyproject.toml", tmp_path],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode in {0, 1}, run.stdout + run.stderr
    assert ("shows secrets" in run.stdout or "show secrets" in run.stdout) == caught
    assert (run.returncode == 1) == caught
