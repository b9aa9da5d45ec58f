"""Output files: what readers meet, and what happens where a file cannot simply be replaced."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from rotator.adapters.file_sink import FileSink
from rotator.core.model import Reason
from rotator.ports import Problem
from tests.children import ROOT, command, in_mount_namespace, run
from tests.fakes import FixedClock
from tests.needs import needs
from tests.samples import AT, token_set


def sink_at(path: Path, **settings: object) -> FileSink:
    """Return a sink with the settings of a test."""
    return FileSink("out", path, clock=FixedClock(), **settings)  # type: ignore[arg-type]


def problem_at(path: Path, **settings: object) -> Problem:
    """Return why a sink cannot publish."""
    problem = sink_at(path, **settings).publish(token_set(1))
    assert isinstance(problem, Problem)
    assert "\n" not in problem.text
    assert "PLANTED" not in problem.text
    return problem


def mode_of(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a path for the output."""
    return tmp_path / "token"


READER = """
import os
path, bad, reads = sys.argv[1], 0, 0
seen = set()
print("ready", flush=True)
while not os.path.exists(path + ".end"):
    for _ in range(200):
        try:
            with open(path, "rb") as file:
                text = file.read()
        except FileNotFoundError:
            text = None
        reads += 1
        seen.add(text)
bad = [text for text in seen if not text or not text.endswith(b"END") or len(set(text[:-3])) != 1]
print(reads, len(seen), bad)
"""


@pytest.mark.parametrize("mode", [0o640, 0o440])
def test_readers_see_whole_tokens_during_a_thousand_writes(path: Path, mode: int) -> None:
    """G1: a reader in a loop never meets a short or mixed file; the mode is right at every write."""
    sink = sink_at(path, mode=mode)
    tokens = [token_set(n, access_token=chr(97 + n % 26) * (9000 if n % 2 else 3000) + "END") for n in range(1001)]
    assert sink.publish(tokens[0]) is None
    with subprocess.Popen(command(READER, path), cwd=ROOT, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for each in tokens[1:]:
            assert sink.publish(each) is None
            assert mode_of(path) == mode
        path.with_name("token.end").touch()
        reads, seen, bad = reader.stdout.read().split(maxsplit=2)
    assert bad == "[]\n"
    assert int(reads) > 1000
    assert int(seen) > 10


@pytest.mark.parametrize("umask", [0, 0o077])
def test_mode_and_owner_come_from_the_settings(path: Path, umask: int) -> None:
    """G14: each write sets mode, owner and group, whatever the umask and whatever was there."""
    needs("root")
    before = os.umask(umask)
    try:
        sink = sink_at(path, mode=0o644, owner="4242", group=4243)
        for generation in (1, 2):
            assert sink.publish(token_set(generation)) is None
            found = path.stat()
            assert (mode_of(path), found.st_uid, found.st_gid) == (0o644, 4242, 4243)
            path.chmod(0o600)
            os.chown(path, 0, 0)
    finally:
        os.umask(before)


def test_names_of_users_and_groups_are_looked_up(path: Path) -> None:
    """G14: an owner may be a name; a name that does not exist is told with the cure."""
    needs("root")
    assert sink_at(path, owner="daemon", group="daemon").publish(token_set(1)) is None
    assert path.owner() == "daemon"
    for key in ("owner", "group"):
        problem = problem_at(path, **{key: "no-such-name"})
        assert problem.reason is Reason.PERMISSION
        assert "no-such-name" in problem.text


def test_an_owner_that_may_not_be_set_leaves_the_old_file(path: Path) -> None:
    """G14, G6: where chown is forbidden, the old output stays, and no temporary file."""
    needs("strace")
    code = """
sink = FileSink("out", sys.argv[1], clock=FixedClock(), owner=4242)
print(sink.publish(token_set(1)).text)
"""
    path.write_text("old")
    trace = path.with_name("trace")
    options = ["-f", "-qq", "-o", trace, "-e", "inject=fchown:error=EPERM"]
    output = run("strace", *options, *command(code, path))
    assert f"cannot write {path}: EPERM (" in output
    assert path.read_text() == "old"
    assert sorted(path.parent.iterdir()) == [path, trace]


def test_a_filesystem_without_modes_is_written(path: Path) -> None:
    """G20: where chmod fails, the output is written all the same, and one line tells if its mode is not as wanted."""
    needs("strace")
    code = """
for mode in (0o640, 0o600):
    sink = FileSink("out", sys.argv[1], clock=FixedClock(), mode=mode, notice=print)
    for generation in (1, 2):
        print(sink.publish(token_set(generation)))
"""
    options = ["-f", "-qq", "-o", path.with_name("trace"), "-e", "inject=fchmod:error=EPERM"]
    told, *published = run("strace", *options, *command(code, path)).splitlines()
    assert f"output_mode {path} has mode 0600, not 0640, which may not be set there (EPERM): mount" in told
    assert published == ["None"] * 4
    assert path.read_text().endswith("access-2")


def test_modes_are_never_set_by_name(path: Path) -> None:
    """G17: only open files get mode and owner, never a path that somebody may have swapped."""
    needs("strace", "root")
    code = """
sink = FileSink("out", sys.argv[1], clock=FixedClock(), owner=4242)
print(sink.publish(token_set(1)))
"""
    trace = path.with_name("trace")
    calls = "trace=fchmod,fchown,?chmod,?chown,?lchown,fchmodat,fchownat,?rename,renameat,renameat2"
    run("strace", "-f", "-qq", "-o", trace, "-e", calls, *command(code, path))
    names = [line.split()[1].partition("(")[0] for line in trace.read_text().splitlines()]
    assert names[:2] == ["fchown", "fchmod"]
    assert len(names) == 3
    assert names[2].startswith("rename")


# -- links and directories -----------------------------------------------------------------------


def test_a_link_is_followed_and_stays_a_link(path: Path) -> None:
    """G16: with `follow` the file that the link leads to is replaced, beside itself."""
    target = path.parent / "elsewhere" / "real"
    target.parent.mkdir()
    path.symlink_to("elsewhere/real")
    sink = sink_at(path, format="raw", mode=0o600)
    for generation in (1, 2):  # the first makes the target
        assert sink.publish(token_set(generation)) is None
        assert target.read_text().endswith(f"access-{generation}")
        assert mode_of(target) == 0o600
    assert path.is_symlink()
    assert sink.intact()
    assert target.parent == sink.directory
    target.write_text("other")
    assert not sink.intact()


def test_a_link_is_refused_if_so_configured(path: Path) -> None:
    """G16: with `refuse` a link is a problem, and what it leads to is not touched."""
    target = path.with_name("real")
    target.write_text("old")
    path.symlink_to("real")
    problem = problem_at(path, symlink="refuse")
    assert "symbolic link" in problem.text
    assert target.read_text() == "old"


def test_a_loop_of_links_is_a_problem(path: Path) -> None:
    """G16: a link that leads to itself is told."""
    path.symlink_to(path)
    problem_at(path)


def test_a_directory_open_to_everybody_is_refused(path: Path) -> None:
    """G18: outputs are not written where everybody may replace them, unless it is sticky."""
    path.parent.chmod(0o777)
    problem = problem_at(path)
    assert problem.reason is Reason.PERMISSION
    assert f"chmod o-w {path.parent}" in problem.text
    path.parent.chmod(0o1777)
    assert sink_at(path).publish(token_set(1)) is None


def test_in_a_pod_a_volume_may_be_open_to_everybody(path: Path) -> None:
    """G18: Kubernetes makes an emptyDir with mode 0777, and none but the pod's containers see it: the volume itself."""
    needs("mount namespace")
    code = """
volume = Path(sys.argv[1])
below = volume / "below"
below.mkdir()
below.chmod(0o777)
for place, in_pod in ((volume, True), (volume, False), (below, True)):
    print(FileSink("out", place / "token", clock=FixedClock(), in_pod=in_pod).publish(token_set(1)) is None)
"""
    volume = 'mount -t tmpfs -o mode=0777 none "$1"'
    assert in_mount_namespace(volume, code, path.parent).split() == ["True", "False", "False"]


def test_a_planted_temporary_name_is_not_followed(path: Path) -> None:
    """G18: temporary names are random and opened exclusively."""
    needs("strace")
    code = 'FileSink("out", sys.argv[1], clock=FixedClock()).publish(token_set(1))'
    names = set()
    for number in (1, 2):
        trace = path.with_name(f"trace-{number}")
        options = ["-f", "-qq", "-o", trace, "-e", "trace=openat"]
        run("strace", *options, *command(code, path))
        path.unlink()
        (line,) = [line for line in trace.read_text().splitlines() if "O_CREAT" in line]
        assert "O_EXCL|O_NOFOLLOW" in line
        names.add(line.split('"')[1])
    assert len(names) == 2


def test_a_missing_directory_is_told_with_the_command(path: Path) -> None:
    """B26: the text is the command that mends it; the directory is not made."""
    problem = problem_at(path / "no dir" / "token")
    assert problem.reason is Reason.MISSING_DIRECTORY
    assert f"mkdir -p '{path}/no dir'" in problem.text
    path.mkdir()
    assert "EISDIR" in problem_at(path).text


# -- mounted single files ------------------------------------------------------------------------

MOUNTED = 'cp "$1/seed" "$1/mounted"; mount --bind "$1/mounted" "$1/token"'


@pytest.fixture
def mountable(path: Path) -> Path:
    """Return a directory with what the mounting script needs."""
    needs("mount namespace")
    path.touch()
    path.with_name("seed").write_text("o" * 5000)
    return path.parent


def test_a_mounted_single_file_is_told_with_the_cure(mountable: Path) -> None:
    """G2, G3, G5, G6: EBUSY says: mount the directory, or write in place; no temporary stays."""
    code = """
path = Path(sys.argv[1]) / "token"
sink = FileSink("out", path, clock=FixedClock())
problem = sink.publish(token_set(1))
print(problem.reason, problem.text)
print(path.read_text() == "o" * 5000, [file.name for file in path.parent.glob(".rotator*")])
"""
    told, kept = in_mount_namespace(MOUNTED, code, mountable).splitlines()
    assert told.startswith("busy_target cannot write")
    assert "EBUSY" in told
    assert "mount its directory instead, or set in_place = true" in told
    assert kept == "True []"


def test_a_mounted_single_file_is_written_in_place_on_request(mountable: Path) -> None:
    """G2: with `in_place` a mounted file is written, with mode, again and again."""
    code = """
path = Path(sys.argv[1]) / "token"
sink = FileSink("out", path, clock=FixedClock(), in_place=True, mode=0o604)
for token in ("long" * 2000, "short"):
    print(sink.publish(token_set(1, access_token=token)), path.read_text() == token, sink.intact())
print(oct(path.stat().st_mode & 0o777))
"""
    output = in_mount_namespace(MOUNTED, code, mountable)
    assert output == "None True True\nNone True True\n0o604\n"


def test_a_file_written_in_place_is_never_empty(path: Path) -> None:
    """G7: in place the new content is written over the old before the rest is cut off."""
    needs("strace")
    path.write_text("o" * 5000)
    code = """
sink = FileSink("out", sys.argv[1], clock=FixedClock(), in_place=True)
print(sink.publish(token_set(1)))
"""
    trace = path.with_name("trace")
    calls = "trace=openat,pwrite64,ftruncate,truncate"
    run("strace", "-f", "-qq", "-o", trace, "-e", calls, *command(code, path))
    lines = trace.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if '"token"' in line and "O_WRONLY" in line)
    names = [line.split()[1].partition("(")[0] for line in lines[first : first + 3]]
    assert names == ["openat", "pwrite64", "ftruncate"]
    assert "O_TRUNC" not in lines[first]


@pytest.mark.parametrize(
    ("mode", "outcome"), [(0o640, "None"), (0o600, "output_mode"), (0o644, "permission"), (0o660, "permission")]
)
def test_a_file_of_somebody_elses_is_written_in_place(path: Path, mode: int, outcome: str) -> None:
    """G20: its mode cannot be set: as wanted it will do, narrower it is told of, and wider it gets no token."""
    needs("strace")
    path.write_text("old")
    path.chmod(mode)
    code = """
sink = FileSink("out", sys.argv[1], clock=FixedClock(), in_place=True, mode=0o640, notice=lambda event, _: print(event))
problem = sink.publish(token_set(1))
print(problem and problem.reason)
"""
    options = ["-f", "-qq", "-o", path.with_name("trace"), "-e", "inject=fchmod:error=EPERM"]
    output = run("strace", *options, *command(code, path)).splitlines()
    assert output[0] == outcome
    assert path.read_text() == "old" if outcome == "permission" else path.read_text().endswith("access-1")
    assert mode_of(path) == mode


def test_a_full_disk_leaves_the_old_token(path: Path) -> None:
    """G7: an output that cannot be written whole is not touched."""
    code = """
import resource
sink = FileSink("out", sys.argv[1], clock=FixedClock())
assert sink.publish(token_set(1)) is None
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
print(sink.publish(token_set(2, access_token="x" * 500)).reason, sink.intact())
"""
    assert run(*command(code, path)) == "no_space True\n"
    assert path.read_text().endswith("access-1")
    assert list(path.parent.iterdir()) == [path]


# -- content -------------------------------------------------------------------------------------


def test_an_empty_token_is_never_written(path: Path) -> None:
    """A31: without an access token, or an id token where there is nothing else in the output, the file stays."""
    path.write_text("old")
    assert sink_at(path).publish(token_set(1, access_token="")) is not None
    nothing: list[tuple[dict[str, object], str]] = [
        ({"format": "id_token"}, "an id token (scope openid?)"),
        ({"template": "{id_token}", "newline": True}, "an id token (scope openid?)"),
        ({"template": " {scope}"}, "a scope"),
    ]
    for settings, lack in nothing:
        problem = sink_at(path, **settings).publish(token_set(1))
        assert problem == Problem(Reason.BAD_INPUT, f"{path} not written: the server did not issue {lack}")
    assert path.read_text() == "old"
    assert sink_at(path, template="{id_token}.").publish(token_set(1)) is None
    assert path.read_text() == "."


def test_expiry_is_told_in_wall_time(path: Path) -> None:
    """D1: readers compare with the wall clock, so what they are told is on it."""
    clock = FixedClock(offset=-100.0)
    assert FileSink("out", path, clock=clock, format="json").publish(token_set(1)) is None
    assert json.loads(path.read_text())["expires_at"] == AT + 3600 - 100


def test_a_template_replaces_the_format(path: Path) -> None:
    """A template of the user's own is filled in; the newline is added on request."""
    sink = sink_at(path, template='token="{access_token}"', newline=True)
    assert sink.publish(token_set(1, access_token="abc")) is None
    assert path.read_text() == 'token="abc"\n'


def test_a_restart_does_not_write_what_is_there(path: Path) -> None:
    """After a restart an output that is right is left as it is; one that is not is written."""
    assert sink_at(path).publish(token_set(1)) is None
    before = path.stat()
    sink = sink_at(path)
    assert sink.publish(token_set(1)) is None
    assert before == path.stat() or before.st_ino == path.stat().st_ino
    assert sink.intact()
    for change in (lambda: path.chmod(0o600), lambda: path.write_text("other"), path.unlink):
        change()
        assert sink_at(path).publish(token_set(1)) is None
        assert path.stat().st_ino != before.st_ino or mode_of(path) == 0o640
        assert path.read_text().endswith("access-1")
        assert mode_of(path) == 0o640


def test_an_output_that_was_touched_is_not_intact(path: Path) -> None:
    """An output that somebody edited, replaced, chmodded or removed is noticed, and mended."""
    sink = sink_at(path)
    assert sink.publish(token_set(1)) is None
    copy = path.with_name("copy")

    def replace() -> None:
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o640)
        copy.rename(path)

    for change in (lambda: path.chmod(0o644), lambda: path.write_text(""), path.unlink, replace):
        change()
        assert not sink.intact()
        assert sink.publish(token_set(1)) is None
        assert sink.intact()
        assert path.read_text().endswith("access-1")
        assert mode_of(path) == 0o640
