"""The project keeps its own rules: dependencies, time, names and layers."""

import ast
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.conftest import ZONES
from tests.needs import needs

ROOT = Path(__file__).parent.parent
LOCKS = ("build", "kubernetes", "lock", "run", "test", "testbed")
PACKAGE = sorted((ROOT / "rotator").rglob("*.py"))
CODE = [*PACKAGE, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]

# Put together so that this file does not name them either.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("python" + "hosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("proxy", "golang", "org"),
    )
]

# What core may not touch even though Python ships it: clocks, files, sockets, threads, chance.
IMPURE = {"asyncio", "io", "logging", "os", "pathlib", "random", "secrets", "shutil", "socket"}
IMPURE |= {"subprocess", "tempfile", "threading", "time"}


def pins(lock: str) -> dict[str, str]:
    """Return the requirements of a lock file: `name==version` and the lines that belong to it."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    starts = [match.start() for match in re.finditer(r"^(?! )(?!#).", text, re.MULTILINE)]
    blocks = [text[start:end] for start, end in pairwise([*starts, len(text)])]
    return {block.split(maxsplit=1)[0]: block for block in blocks}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_hashed(lock: str) -> None:
    """Each line of a lock file is one version of one package with the hashes of its files."""
    for pin, block in pins(lock).items():
        assert re.fullmatch(r"[a-z0-9-]+==[\w.!]+", pin), pin
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", block), pin


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_files_name_no_place(lock: str) -> None:
    """A lock file says what to install, never from where, nor on whose machine it was made."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert re.findall(r".*(?:://|--index|--extra-index|--find-links|--trusted| /).*", text) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_files_cover_what_is_asked_for(lock: str) -> None:
    """A package added to an .in file without `make lock` is noticed."""
    text = (ROOT / "requirements" / f"{lock}.in").read_text()
    asked = set(re.findall(r"^([a-z][a-z0-9-]*)", text, re.MULTILINE))
    assert asked - {pin.partition("==")[0] for pin in pins(lock)} == set()


def test_tests_run_on_the_versions_that_users_run() -> None:
    """The test environment holds exactly the versions of the run environment, and more."""
    assert pins("run").keys() - pins("test").keys() == set()
    assert pins("build").keys() - pins("test").keys() == set()
    assert pins("kubernetes").keys() - pins("test").keys() == set()


def naive_times(source: str) -> list[str]:
    """Return the calls in a source that make or read a time without a time zone."""
    return [ast.unparse(call) for call in ast.walk(ast.parse(source)) if isinstance(call, ast.Call) and _is_naive(call)]


def _is_naive(call: ast.Call) -> bool:
    called = ast.unparse(call.func).split(".")
    receiver, name = called[-2:] if len(called) > 1 else ("", called[0])
    arguments = len(call.args) + len(call.keywords)
    keywords = {keyword.arg for keyword in call.keywords}
    if name in {"utcnow", "utcfromtimestamp", "today", "localtime", "mktime", "ctime"}:
        return True
    if receiver in {"datetime", "date"} and name in {"now", "fromtimestamp"}:
        return arguments < {"now": 1, "fromtimestamp": 2}[name]
    return name == "datetime" and len(call.args) < 8 and "tzinfo" not in keywords


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("datetime.datetime.utcnow()", True),
        ("datetime.now()", True),
        ("datetime.now(UTC)", False),
        ("datetime.fromtimestamp(5)", True),
        ("datetime.fromtimestamp(5, tz=UTC)", False),
        ("datetime(2026, 3, 29)", True),
        ("datetime(2026, 3, 29, tzinfo=UTC)", False),
        ("date.today()", True),
        ("time.localtime()", True),
        ("clock.now()", False),
        ("time.time()", False),
    ],
)
def test_naive_times_are_recognised(source: str, expected: bool) -> None:
    """D6: the rule below can fail."""
    assert bool(naive_times(source)) == expected


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_naive_times(path: Path) -> None:
    """D6: no time without a zone is made anywhere; instants are seconds since the epoch, UTC."""
    assert naive_times(path.read_text()) == []


def test_workers_stand_in_the_time_zone_they_were_given() -> None:
    """D7: a worker's zone is really in force: an unknown name would silently mean UTC."""
    needs("tzdata")
    offsets = {zone: datetime(2026, 1, 15, tzinfo=ZoneInfo(zone)).utcoffset() for zone in ZONES}
    here = timedelta(seconds=-time.timezone)
    assert offsets.get(os.environ.get("TZ", ""), here) == here


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_say_what_they_are_for(path: Path) -> None:
    """Every file of the package opens with a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_core_imports_only_the_pure_part_of_the_standard_library() -> None:
    """Nothing enters core by a name that the import contracts do not list."""
    allowed = sys.stdlib_module_names - IMPURE
    for path in (ROOT / "rotator" / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.startswith("rotator.core") or name.partition(".")[0] in allowed, path


def test_import_contracts_hold() -> None:
    """The layers that the documents draw are the layers that the code has."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    run = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the machine's business: no file names a registry's host."""
    needs("git checkout")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert files
    for path in filter(Path.is_file, files):
        text = path.read_bytes().decode(errors="replace")
        assert [host for host in REGISTRIES if host in text] == [], path


def test_contributing_is_short() -> None:
    """CONTRIBUTING.md can be read in two minutes: fewer than 60 lines."""
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 60
