"""The store in files: what is kept when files, disks and processes do what they do."""

import json
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rotator.adapters.file_store import FileStore, document
from rotator.core.model import Reason
from rotator.ports import Loaded, Problem
from tests.children import ROOT, command, in_mount_namespace, run
from tests.fakes import MemoryStore
from tests.needs import needs
from tests.process.rig import PATIENCE
from tests.samples import full_state, state_of
from tests.secrets_scan import assert_no_secrets


def open_store(directory: Path, spill: Path | None = None) -> FileStore:
    """Open a store that must open."""
    store = FileStore.open(directory, spill)
    assert isinstance(store, FileStore), store
    return store


def refused(directory: Path) -> Problem:
    """Return why a store cannot be opened."""
    problem = FileStore.open(directory)
    assert isinstance(problem, Problem)
    assert "\n" not in problem.text
    return problem


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a state directory that does not exist yet."""
    return tmp_path / "state"


@pytest.fixture
def store(directory: Path) -> Generator[FileStore]:
    """Return a store that is closed after the test."""
    opened = open_store(directory)
    yield opened
    opened.close()


# -- the directory and its lock ------------------------------------------------------------------


def test_everything_is_private(store: FileStore, directory: Path) -> None:
    """G16: the directory is 0700 and each file in it 0600, whatever the umask."""
    before = os.umask(0)
    try:
        assert store.save("a", full_state()) is None
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for file in directory.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert store.warnings == []


def test_a_missing_parent_is_told_with_the_command(tmp_path: Path) -> None:
    """C26: the text of the error is the command that mends it, and systemd's setting."""
    problem = refused(tmp_path / "no" / "rotator")
    assert problem.reason is Reason.MISSING_DIRECTORY
    assert f"mkdir -p -m 0700 {tmp_path}/no/rotator" in problem.text
    assert "StateDirectory=rotator" in problem.text
    assert not (tmp_path / "no").exists()


def test_a_directory_that_others_can_enter_is_refused(directory: Path) -> None:
    """G18: a state directory with rights for group or others is refused, with the chmod."""
    directory.mkdir(mode=0o750)
    problem = refused(directory)
    assert problem.reason is Reason.PERMISSION
    assert f"chmod 0700 {directory}" in problem.text


def test_a_directory_that_anyone_can_replace_is_refused(tmp_path: Path) -> None:
    """G18: a parent that everybody may write to is refused, unless it is sticky as /tmp is."""
    parent = tmp_path / "open"
    parent.mkdir()
    parent.chmod(0o777)
    assert refused(parent / "state").reason is Reason.PERMISSION
    parent.chmod(0o1777)
    open_store(parent / "state").close()


def test_a_file_in_the_directorys_place_is_told(tmp_path: Path) -> None:
    """G5: a file that is mounted where the directory should be is told as that."""
    file = tmp_path / "state"
    file.touch()
    assert refused(file).reason is Reason.BUSY_TARGET


def test_two_stores_never_share_a_directory(store: FileStore, directory: Path) -> None:
    """C2: without the lock there is no store; the text names the process that holds it."""
    assert f"process {os.getpid()};" in refused(directory).text


def test_a_removed_lock_file_does_not_let_a_second_one_in(store: FileStore, directory: Path) -> None:
    """C24: somebody who takes the lock file for stale and removes it does no harm."""
    (directory / ".lock").unlink()
    assert "in use by another rotator" in refused(directory).text


def test_a_killed_holder_blocks_nobody(directory: Path) -> None:
    """C24: after SIGKILL of the holder the next start works at once, and knows the states."""
    code = """
store = FileStore.open(Path(sys.argv[1]))
assert store.save("a", state_of(3)) is None
print("ready", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(command(code, directory), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        assert f"process {holder.pid};" in refused(directory).text
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        store = open_store(directory)
    assert Loaded(state_of(3)) == store.load("a")
    store.close()


def test_a_closed_store_does_nothing(directory: Path) -> None:
    """Invariant 13: after closing, saves and loads are refused, and the lock is free."""
    store = open_store(directory)
    store.close()
    store.close()
    problem = store.save("a", state_of(1))
    assert problem is not None
    assert problem.reason is Reason.SAVE_FAILED
    assert isinstance(store.load("a"), Problem)
    open_store(directory).close()


def test_closing_waits_for_saves_under_way(directory: Path) -> None:
    """Invariant 13: each save either is refused or done whole before the lock is given up."""
    store = open_store(directory)
    saved: list[int] = []
    refusals: list[Problem] = []
    started = threading.Event()

    def work() -> None:
        number = 1
        while (problem := store.save("a", state_of(number))) is None:
            saved.append(number)
            number += 1
            if number > 3:
                started.set()
        refusals.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(PATIENCE)
    store.close()
    thread.join()
    assert [each.text for each in refusals] == ["the store is closed: rotator is stopping"]
    store = open_store(directory)
    assert Loaded(state_of(saved[-1])) == store.load("a")
    store.close()


def test_leftovers_of_a_killed_process_are_swept(directory: Path) -> None:
    """G6: temporary files are removed at start, and only those with our own prefix."""
    open_store(directory).close()
    leftover = directory / ".rotator-a.json.0123456789abcdef"
    others = [directory / ".rotator-notes", directory / "tmp.0123456789abcdef"]
    for file in (leftover, *others):
        file.touch()
    open_store(directory).close()
    assert not leftover.exists()
    assert all(file.exists() for file in others)


@pytest.mark.parametrize("name", ["a", "a" * 101])
def test_a_whole_state_that_a_killed_process_could_not_name_is_used(directory: Path, name: str) -> None:
    """B1: what had been written whole when the process was killed is the newest state there is."""
    store = open_store(directory)
    assert store.save(name, state_of(1)) is None
    store.close()
    temporary = leave_behind(directory, name, document.encode(state_of(2)))
    store = open_store(directory)
    assert store.load(name) == Loaded(state_of(2))
    assert any("cut off" in warning for warning in store.warnings)
    assert not temporary.exists()
    store.close()


@pytest.mark.parametrize(
    "content", [b"", document.encode(state_of(3))[:-20], document.encode(state_of(2)), document.encode(state_of(1))]
)
def test_a_leftover_that_is_torn_or_no_newer_is_removed(directory: Path, content: bytes) -> None:
    """G6, G12: half a state, or an older one, never takes the place of a good one."""
    store = open_store(directory)
    assert store.save("a", state_of(2)) is None
    store.close()
    temporary = leave_behind(directory, "a", content)
    store = open_store(directory)
    assert store.load("a") == Loaded(state_of(2))
    assert not store.warnings
    assert not temporary.exists()
    store.close()


def test_a_leftover_that_cannot_be_read_keeps_nothing_from_starting(directory: Path) -> None:
    """G6, G18: a directory or a link with the name of a temporary file is told, and left alone."""
    open_store(directory).close()
    odd = [directory / f".rotator-{name}.json.0123456789abcdef" for name in ("a", "b")]
    odd[0].mkdir()
    odd[1].symlink_to(directory / "a.json")
    store = open_store(directory)
    assert store.save("a", state_of(1)) is None
    assert [str(each) in "".join(store.warnings) for each in odd] == [True, True]
    store.close()


def leave_behind(directory: Path, name: str, content: bytes) -> Path:
    """Leave a temporary file as a process does that is killed in the middle of a save."""
    temporary = directory / f".rotator-{name}.json.0123456789abcdef"
    temporary.write_bytes(content)
    temporary.chmod(0o600)
    return temporary


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".a", "a\n", "ä", "a" * 102])
def test_a_name_that_is_no_file_name_is_refused(store: FileStore, name: str) -> None:
    """A name never leads out of the directory."""
    assert isinstance(store.load(name), Problem)
    assert isinstance(store.save(name, state_of(1)), Problem)


def test_root_leaves_files_to_the_owner_of_the_directory(directory: Path) -> None:
    """G14: what root saves on the command line stays readable for the daemon's user."""
    needs("root")
    directory.mkdir(mode=0o700)
    os.chown(directory, 4242, 4243)
    store = open_store(directory)
    assert store.save("a", state_of(1)) is None
    store.close()
    for file in directory.iterdir():
        assert (file.stat().st_uid, file.stat().st_gid) == (4242, 4243), file


# -- files that cannot be read -------------------------------------------------------------------

TORN = [
    b"",
    b" \n",
    b"{",
    b"null",
    b"[]",
    b"7",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"format":1}',
    b'{"format":true,"state":{}}',
    b'{"access_token":"a foreign file"}',
    b'{"format":1,"checksum":"00","state":{"format":1}}',
    b'{"format":' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("content", TORN, ids=range(len(TORN)))
def test_a_damaged_state_is_kept_and_never_taken_for_absent(directory: Path, content: bytes) -> None:
    """G8, G9: a damaged file is set aside untouched; it is a problem now, and after a restart."""
    store = open_store(directory)
    (directory / "a.json").write_bytes(content)
    for life in range(3):
        problem = store.load("a")
        assert isinstance(problem, Problem)
        assert problem.reason is Reason.STATE_DAMAGED
        assert "a.json.corrupt-1" in problem.text
        assert problem.text.endswith("; log in again (rotator login a)")  # and no word of a backup: its token is spent
        assert content == (directory / "a.json.corrupt-1").read_bytes()
        if life:
            store.close()
            store = open_store(directory)
    assert store.save("a", state_of(1)) is None
    assert Loaded(state_of(1)) == store.load("a")
    store.close()
    store = open_store(directory)
    assert Loaded(state_of(1)) == store.load("a")
    assert content == (directory / "a.json.corrupt-1").read_bytes()
    store.close()


def test_a_second_damaged_state_does_not_replace_the_first(store: FileStore, directory: Path) -> None:
    """G8: each damaged file is kept under its own number."""
    for content in ("first", "second"):
        (directory / "a.json").write_text(content)
        assert isinstance(store.load("a"), Problem)
    assert (directory / "a.json.corrupt-1").read_text() == "first"
    assert (directory / "a.json.corrupt-2").read_text() == "second"


def test_each_bit_of_a_state_is_guarded(store: FileStore, directory: Path) -> None:
    """G12: one changed character anywhere is noticed; an unchanged meaning is not refused."""
    assert store.save("a", full_state()) is None
    file = directory / "a.json"
    whole = file.read_bytes()
    for place in range(0, len(whole) - 1, 7):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        file.write_bytes(flipped)
        assert Loaded(full_state()) == store.load("a") or not file.exists() or place < 12
    file.write_text(json.dumps(json.loads(whole), indent=4))
    assert Loaded(full_state()) == store.load("a")


def test_a_state_of_a_newer_rotator_is_left_alone(store: FileStore, directory: Path) -> None:
    """G8: a newer format is refused with the cure, and neither moved nor overwritten."""
    (directory / "a.json").write_text('{"format":2,"whatever":1}')
    (directory / "b.json").write_text('{"format":2,"whatever":1}')
    problem = store.load("a")
    assert isinstance(problem, Problem)
    assert problem.reason is Reason.STATE_NEWER
    assert "newer rotator" in problem.text
    assert problem == store.save("a", state_of(9))
    assert isinstance(store.save("b", state_of(9)), Problem)
    assert (directory / "a.json").read_text() == '{"format":2,"whatever":1}'


def test_missing_damaged_and_unreadable_are_three_things(store: FileStore, directory: Path) -> None:
    """G8, G10: an absent state, a damaged one and one that cannot be read have three texts."""
    (directory / "damaged.json").write_text("x")
    (directory / "unreadable.json").mkdir()
    (directory / "link.json").symlink_to("damaged.json")
    assert Loaded(None) == store.load("absent")
    unreadable, link, damaged = map(store.load, ("unreadable", "link", "damaged"))
    assert isinstance(damaged, Problem)
    assert isinstance(unreadable, Problem)
    assert isinstance(link, Problem)
    assert "damaged" in damaged.text
    assert "EISDIR" in unreadable.text
    assert "ELOOP" in link.text
    assert isinstance(store.save("link", state_of(1)), Problem)
    assert (directory / "unreadable.json").is_dir()


@pytest.mark.parametrize(("call", "error"), [("read", "EIO"), ("openat", "EACCES")])
def test_a_read_error_is_not_an_absent_state(directory: Path, call: str, error: str) -> None:
    """G10: a file that is there and cannot be read is a problem, and is not overwritten."""
    needs("strace")
    store = open_store(directory)
    assert store.save("a", state_of(5)) is None
    store.close()
    code = """
store = FileStore.open(Path(sys.argv[1]))
print(store.load("a").text)
print(store.save("a", state_of(6)).text)
"""
    strace = ["strace", "-f", "-qq", "-o", directory.parent / "trace"]
    where = ["-P", directory / "a.json"] if call == "read" else ["-P", "a.json"]
    output = run(*strace, *where, "-e", f"inject={call}:error={error}", *command(code, directory))
    for line in output.splitlines():
        assert f"cannot read the state in {directory}/a.json: {error} (" in line
    store = open_store(directory)
    assert Loaded(state_of(5)) == store.load("a")
    store.close()


def test_a_state_that_vanishes_is_not_absent(store: FileStore, directory: Path) -> None:
    """G9: a file that was removed while rotator runs is told; the next save, perhaps of a login, brings one back."""
    for name, generation in (("a", 6), ("b", 1)):
        assert store.save(name, state_of(5)) is None
        (directory / f"{name}.json").unlink()
        problem = store.load(name)
        assert isinstance(problem, Problem)
        assert problem.reason is Reason.STATE_DAMAGED
        assert f"was removed while rotator runs; log in again (rotator login {name})" in problem.text
        assert store.save(name, state_of(generation)) is None
        assert Loaded(state_of(generation)) == store.load(name)


# -- saves that fail -----------------------------------------------------------------------------


def test_a_limit_on_file_sizes_keeps_the_old_state(directory: Path) -> None:
    """G7, B26: a write that stops half-way leaves the old state, no temporary, a text that helps."""
    code = """
import resource
store = FileStore.open(Path(sys.argv[1]))
assert store.save("a", state_of(1)) is None
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
print(store.save("a", state_of(2)).text)
print(store.save("a", state_of(3)).reason)
"""
    text, reason = run(*command(code, directory)).splitlines()
    assert f"cannot save the state in {directory}/a.json: EFBIG (" in text
    assert "LimitFSIZE" in text
    assert reason == Reason.NO_SPACE
    assert [file.name for file in directory.glob(".rotator*")] == []
    store = open_store(directory)
    assert Loaded(state_of(1)) == store.load("a")
    store.close()


FULL_DISK = """
store = FileStore.open(Path(sys.argv[1]) / "state")
assert store.save("a", state_of(1)) is None
filler = Path(sys.argv[1]) / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while file.write(b"x" * 512):
            pass
    except OSError:
        pass
problem = store.save("a", state_of(2))
print(problem.text)
assert store.load("a") == Loaded(state_of(1))
names = sorted(file.name for file in (Path(sys.argv[1]) / "state").iterdir())
assert names == [".fingerprint-key", ".lock", "a.json"], names
store.close()
store = FileStore.open(Path(sys.argv[1]) / "state")
assert isinstance(store, FileStore), store
print(*store.warnings)
assert store.load("a") == Loaded(state_of(1))
filler.unlink()
assert store.save("a", state_of(2)) is None
"""


def test_a_full_disk_keeps_the_old_state(tmp_path: Path) -> None:
    """G7, B6: on a full disk saves fail whole; a start still reads; space heals it at once."""
    needs("mount namespace")
    output = in_mount_namespace('mount -t tmpfs -o size=64k none "$1"', FULL_DISK, tmp_path)
    text, warning = output.splitlines()
    assert "ENOSPC" in text
    assert "free some space" in text
    assert "ENOSPC" in warning


def test_a_read_only_disk_is_told_at_start(tmp_path: Path) -> None:
    """B6: a state directory on a read-only filesystem is refused with the cure."""
    needs("mount namespace")
    open_store(tmp_path / "state").close()
    script = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"'
    code = "problem = FileStore.open(Path(sys.argv[1]) / 'state'); print(problem.reason, problem.text)"
    output = in_mount_namespace(script, code, tmp_path)
    assert output.startswith("read_only ")
    assert "EROFS" in output
    assert "ReadWritePaths=" in output


def test_a_mounted_single_file_is_refused_at_start(tmp_path: Path) -> None:
    """G2, G3, G5: a state file that is itself a mount point is told at start, with the cure."""
    needs("mount namespace")
    open_store(tmp_path / "state").close()
    (tmp_path / "file").write_text("{}")
    (tmp_path / "state" / "a b.json").touch()
    script = 'mount --bind "$1/file" "$1/state/a b.json"'
    code = "print(FileStore.open(Path(sys.argv[1]) / 'state').text)"
    output = in_mount_namespace(script, code, tmp_path)
    assert f"{tmp_path}/state/a b.json is a mount point: mount {tmp_path}/state" in output


def test_a_filesystem_without_modes_still_saves(directory: Path) -> None:
    """G20: where chmod fails, saves succeed and one warning tells of it."""
    needs("strace")
    code = """
store = FileStore.open(Path(sys.argv[1]))
assert store.save("a", state_of(1)) is None
assert store.save("a", state_of(2)) is None
print(*store.warnings, sep="\\n")
"""
    strace = ["strace", "-f", "-qq", "-o", directory.parent / "trace"]
    output = run(*strace, "-e", "inject=fchmod:error=EPERM", *command(code, directory))
    assert len(output.splitlines()) == 1
    assert "takes no file modes (EPERM)" in output


def test_a_removed_directory_is_made_again(store: FileStore, directory: Path) -> None:
    """B26: a save brings a directory back that was removed under it: private, locked, with key and state."""
    for name in ("a", "b"):
        assert store.save(name, state_of(1)) is None
    shutil.rmtree(directory)
    assert [store.vanished(name) for name in ("a", "b", "never")] == [True, True, False]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: store.save(f"c{number}", state_of(1)), range(20))) == [None] * 20
    assert store.save("a", state_of(2)) is None
    assert [store.vanished(name) for name in ("a", "b")] == [False, True]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert "in use by another rotator" in refused(directory).text
    key = store.fingerprint_key()
    store.close()
    store = open_store(directory)
    assert key == store.fingerprint_key()
    assert Loaded(state_of(2)) == store.load("a")
    assert {"a", *(f"c{number}" for number in range(20))} == set(store.names())
    store.close()


def test_a_removed_directory_is_told_until_there_is_a_good_one(tmp_path: Path) -> None:
    """B26, C2: what stands in its place is judged as at the start; no cure is a restart, which loses everything."""
    directory = tmp_path / "parent" / "state"
    directory.parent.mkdir()
    store = open_store(directory)
    assert store.save("a", state_of(1)) is None
    shutil.rmtree(directory.parent)

    def problem() -> str:
        found = store.save("a", state_of(2))
        assert found is not None
        assert found.reason is Reason.MISSING_DIRECTORY
        assert f"{directory} was removed while rotator runs: " in found.text
        assert found.text.endswith("; do not restart rotator: only its memory holds the tokens")
        return found.text

    assert f"make it again, with mode 0700, for user id {os.geteuid()};" in problem()
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    assert f"chmod 0700 {directory}" in problem()
    directory.chmod(0o700)
    other = open_store(directory)
    assert "in use by another rotator" in problem()
    other.close()
    assert store.save("a", state_of(2)) is None
    assert Loaded(state_of(2)) == store.load("a")
    store.close()


def test_a_removed_spill_is_made_again(directory: Path, spill: Path) -> None:
    """B25, B26: a spill directory that was removed takes the next pair all the same."""
    store = open_store(directory, spill)
    assert store.save("a", state_of(1)) is None
    shutil.rmtree(spill)
    block(directory)
    assert f"kept in {spill}/a.json" in getattr(store.save("a", state_of(2)), "text", "")
    store.close()


# -- crashes -------------------------------------------------------------------------------------

SAVE_TWO = """
import os
store = FileStore.open(Path(sys.argv[1]))
store.load("a")
os.write(2, b"now")
problem = store.save("a", state_of(2))
print(problem and problem.text)
print(sorted(file.name for file in Path(sys.argv[1]).glob(".rotator*")))
print(store.load("a").state.generation)
"""
CALLS = ("openat", "fchmod", "write", "fsync", "close", "rename", "fsync")
"""The system calls of one save, in this order."""
SPELLINGS = {"rename": "?rename,?renameat,?renameat2"}


def strace(directory: Path, *options: str, check: bool = True) -> str:
    """Run a program that saves generation 2 under strace, and return what it printed."""
    trace = directory.parent / "trace"
    return run("strace", "-f", "-qq", "-y", "-o", trace, *options, *command(SAVE_TWO, directory), check=check)


def calls_of_a_save(directory: Path) -> tuple[list[str], list[str]]:
    """Trace one save; return the lines of its calls, and for each a way for strace to name it."""
    spelled = ",".join(SPELLINGS.get(call, call) for call in CALLS)
    strace(directory, "-e", f"trace={spelled}")
    lines = [line.split(maxsplit=1)[1] for line in (directory.parent / "trace").read_text().splitlines()]
    first = 1 + next(number for number, line in enumerate(lines) if ', "now", 3)' in line)
    calls = [line.partition("(")[0] for line in lines[: first + len(CALLS)]]
    ways = [
        f"{SPELLINGS.get(name, name)}:when={calls[: first + step + 1].count(calls[first + step])}"
        for step, name in enumerate(CALLS)
    ]
    return lines[first : first + len(CALLS)], ways


@pytest.fixture
def saved(directory: Path) -> Path:
    """Return a state directory that holds generation 1."""
    store = open_store(directory)
    assert store.save("a", state_of(1)) is None
    store.close()
    return directory


def test_the_order_of_a_save_is_the_durable_one(saved: Path) -> None:
    """B5, G17, G19: mode, content, fsync of the file, rename, fsync of the directory: in this order."""
    needs("strace")
    lines, _ = calls_of_a_save(saved)
    names = [line.partition("(")[0] for line in lines]
    names[5] = names[5].removesuffix("2").removesuffix("at")
    assert list(CALLS) == names
    for flag in ("O_CREAT", "O_EXCL", "O_NOFOLLOW", ".rotator-a.json."):
        assert flag in lines[0]
    for line in lines[1:5]:
        assert ".rotator-a.json." in line.partition(">")[0]
    assert f"<{saved}>" in lines[6]


@pytest.mark.parametrize("step", range(len(CALLS)))
def test_a_kill_at_any_call_leaves_one_whole_state(saved: Path, step: int) -> None:
    """B1, B2, G6: killed at any system call of a save, one whole state is there, and nothing else."""
    needs("strace")
    (content,) = [file.read_bytes() for file in saved.glob("a.json")]
    _, ways = calls_of_a_save(saved)
    (saved / "a.json").write_bytes(content)
    way, _, when = ways[step].rpartition(":")
    assert strace(saved, "-e", f"inject={way}:signal=KILL:{when}", check=False) == ""
    store = open_store(saved)
    # From the first fsync on it has been written whole, and no power was cut.
    assert Loaded(state_of(2 if step >= CALLS.index("fsync") else 1)) == store.load("a")
    assert list(saved.glob(".rotator*")) == []
    assert store.save("a", state_of(3)) is None
    store.close()


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (0, "EMFILE"),
        (0, "EROFS"),
        (0, "EACCES"),
        (1, "EIO"),
        (2, "ENOSPC"),
        (3, "EIO"),
        (3, "EDQUOT"),
        (4, "EIO"),
        (5, "EBUSY"),
        (5, "EXDEV"),
        (6, "EIO"),
    ],
)
def test_any_failing_call_is_told_and_leaves_nothing_behind(saved: Path, step: int, error: str) -> None:
    """B6, B26, G6, G7: the text has errno and path, one state is whole, no temporary stays."""
    needs("strace")
    content = (saved / "a.json").read_bytes()
    _, ways = calls_of_a_save(saved)
    (saved / "a.json").write_bytes(content)
    way, _, when = ways[step].rpartition(":")
    output = strace(saved, "-e", f"inject={way}:error={error}:{when}")
    text, leftovers, generation = output.splitlines()
    assert f"cannot save the state in {saved}/a.json: {error} (" in text
    assert leftovers == "[]"
    assert generation == ("2" if step == 6 else "1")


# -- the spill -----------------------------------------------------------------------------------


@pytest.fixture
def spill(tmp_path: Path) -> Path:
    """Return a spill directory that does not exist yet."""
    return tmp_path / "spill"


def block(directory: Path) -> None:
    """Make every save of `a` fail, without any privilege: a directory is in the way."""
    (directory / "a.json").rename(directory / "kept")
    (directory / "a.json").mkdir()


def unblock(directory: Path) -> None:
    """Let saves of `a` work again."""
    (directory / "a.json").rmdir()
    (directory / "kept").rename(directory / "a.json")


def test_a_pair_that_cannot_be_saved_is_spilled(directory: Path, spill: Path) -> None:
    """B25: when the save fails, the pair goes to the spill, the text says so, a restart finds it."""
    store = open_store(directory, spill)
    assert store.save("a", state_of(1)) is None
    block(directory)
    problem = store.save("a", state_of(2))
    assert problem is not None
    assert f"kept in {spill}/a.json" in problem.text
    assert stat.S_IMODE((spill / "a.json").stat().st_mode) == 0o600
    unblock(directory)
    store.close()
    store = open_store(directory, spill)
    assert Loaded(state_of(2), kept=True) == store.load("a")
    assert isinstance(store.save("a", state_of(1)), Problem)
    assert store.save("a", state_of(3)) is None
    assert not (spill / "a.json").exists()
    store.close()
    store = open_store(directory, spill)
    assert Loaded(state_of(3)) == store.load("a")
    store.close()


def test_an_older_spill_is_not_read(directory: Path, spill: Path) -> None:
    """B25: a spill of the same or an older generation never replaces the state."""
    store = open_store(directory, spill)
    assert store.save("a", state_of(5)) is None
    assert store.save("b", state_of(4)) is None
    store.close()
    (directory / "b.json").rename(spill / "a.json")
    store = open_store(directory, spill)
    assert Loaded(state_of(5)) == store.load("a")
    store.close()


def test_a_spill_stands_in_for_a_damaged_state(directory: Path, spill: Path) -> None:
    """B25, G8: where the state is damaged or missing, the spilled one is taken."""
    store = open_store(directory, spill)
    assert store.save("a", state_of(1)) is None
    block(directory)
    assert store.save("a", state_of(2)) is not None
    unblock(directory)
    store.close()
    (directory / "a.json").write_text("torn")
    store = open_store(directory, spill)
    assert Loaded(state_of(2), kept=True) == store.load("a")
    assert (directory / "a.json.corrupt-1").read_text() == "torn"
    assert store.names() == ("a",)
    store.close()


def test_a_damaged_spill_is_told_and_kept(directory: Path, spill: Path) -> None:
    """B25, G8: a damaged spill is set aside with a warning, an unreadable one stops the load."""
    store = open_store(directory, spill)
    assert store.save("a", state_of(1)) is None
    assert store.save("b", state_of(1)) is None
    store.close()
    (spill / "a.json").write_text("torn")
    (spill / "b.json").mkdir()
    store = open_store(directory, spill)
    assert Loaded(state_of(1)) == store.load("a")
    assert "corrupt-1" in store.warnings[0]
    assert isinstance(store.load("b"), Problem)
    store.close()


def test_a_spill_that_fails_too_is_told(directory: Path, spill: Path) -> None:
    """B25, B26: if neither place takes the pair, both paths are named."""
    store = open_store(directory, spill)
    assert store.save("a", state_of(1)) is None
    block(directory)
    (spill / "a.json").mkdir()
    problem = store.save("a", state_of(2))
    assert problem is not None
    assert f"{directory}/a.json" in problem.text
    assert f"cannot spill it to {spill}/a.json" in problem.text
    assert_no_secrets(problem.text)
    store.close()


# -- the rest ------------------------------------------------------------------------------------


def test_the_fingerprint_key_stays(directory: Path) -> None:
    """The key is random, of 32 bytes, the same in the next life; its loss is told."""
    store = open_store(directory)
    key = store.fingerprint_key()
    assert len(key) == 32
    assert store.save("a", state_of(1)) is None
    store.close()
    store = open_store(directory)
    assert key == store.fingerprint_key()
    store.close()
    (directory / ".fingerprint-key").write_bytes(b"short")
    store = open_store(directory)
    assert key != store.fingerprint_key()
    assert "was lost" in store.warnings[0]
    store.close()


def test_a_store_that_lists_holds_little_per_name(directory: Path) -> None:
    """What the store remembers of a name is a number, and loading is quick."""
    store = open_store(directory)
    names = [f"n{number}" for number in range(300)]
    assert store.save("n0", full_state(100_000)) is None
    content = (directory / "n0.json").read_bytes()
    for name in names:
        (directory / f"{name}.json").write_bytes(content)
    started_at = time.process_time()
    for name in names:
        assert isinstance(store.load(name), Loaded)
    assert time.process_time() - started_at < 300 * 2e-3  # 50 us each on an ordinary machine
    assert all(isinstance(mark, int) for mark in store._known.values())
    store.close()


def test_the_fake_fails_as_told() -> None:
    """B6: the fake store fails call by call as scripted, and changes nothing then."""
    store = MemoryStore()
    problem = Problem(Reason.NO_SPACE, "full")
    store.fail_saves.extend([problem, None, problem])
    store.fail_loads.append(problem)
    assert [store.save("a", state_of(1)) for _ in range(3)] == [problem, None, problem]
    assert problem == store.load("a")
    assert Loaded(state_of(1)) == store.load("a")
    assert [("a", state_of(1))] == store.saved
