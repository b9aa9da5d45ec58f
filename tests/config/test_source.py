"""Values in place, in files, variables, systemd credentials and from commands."""

import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.config import InputError, Source, SourceKind
from rotator.config import source as module
from tests.process.rig import PATIENCE
from tests.secrets_scan import planted, secrets_in


def file_source(path: Path, content: bytes | str, mode: int = 0o600) -> Source:
    """Write a file and return the source that reads it."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return Source(SourceKind.FILE, str(path))


def text_of(answer: str | InputError) -> str:
    """Return an error's text."""
    assert isinstance(answer, InputError)
    return answer.text


def test_a_file_gives_its_text(tmp_path: Path) -> None:
    """The value is the file's text."""
    assert planted("a") == file_source(tmp_path / "s", planted("a")).read({})


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_one_line_end_is_cut_off(tmp_path: Path, end: str) -> None:
    """K1, K2: one line end at the end is no part of the value, and a notice names the file alone."""
    source = file_source(tmp_path / "s", planted("a") + end)
    assert planted("a") == source.read({})
    assert f"file {tmp_path}/s ends in a newline, which is not taken as part of the value" == source.notice({})


def test_no_notice_without_a_line_end(tmp_path: Path) -> None:
    """K2: a value that needs no cutting gives no notice."""
    assert file_source(tmp_path / "s", planted("a")).notice({}) is None


@pytest.mark.parametrize("bad", ["a\n\n", "a\nb", "\ta", "a\x00", "a\x7f", "a\x85", "\ufeffa", "a\r"])
def test_other_control_characters_are_an_error(tmp_path: Path, bad: str) -> None:
    """K1: any other control character is an error that names the file and not the value."""
    text = text_of(file_source(tmp_path / "s", planted("x") + bad if bad[0] == "a" else bad + planted("x")).read({}))
    assert text.startswith(f"file {tmp_path}/s has a control character (U+")
    assert secrets_in(text) == []


@given(st.text(st.characters(min_codepoint=0x20, exclude_categories=("Cs", "Cc")), min_size=1))
def test_everything_printable_comes_through(text: str) -> None:
    """K3, K6: each other character comes through as it is: `$`, `%`, `+`, blanks, any script."""
    if text.strip() and "\ufeff" not in text:
        assert text == Source(SourceKind.IN_PLACE, text).read({})


def test_nothing_is_expanded(tmp_path: Path) -> None:
    """K6: `$` and backticks are characters like others, wherever the value stands."""
    value = planted("$HOME${HOME}$(id)`id`%s{x}")
    environ = {"VALUE": value, "HOME": "/elsewhere"}
    assert value == file_source(tmp_path / "s", value).read(environ)
    assert value == Source(SourceKind.ENV, "VALUE").read(environ)
    assert value == Source(SourceKind.IN_PLACE, value).read(environ)
    assert Source(SourceKind.COMMAND, ("/bin/echo", "$HOME")).read(environ) == "$HOME"


def test_a_document_may_have_lines(tmp_path: Path) -> None:
    """A seed may be a token answer, written on several lines."""
    source = file_source(tmp_path / "s", '{\r\n\t"a": 1\n}\n')
    assert Source(source.kind, source.value, document=True).read({}) == '{\r\n\t"a": 1\n}'


@pytest.mark.parametrize("content", [b"", b"\n", b"  \n"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    """An empty secret would be sent as an empty secret: it is an error."""
    assert f"file {tmp_path}/s is empty: put the value in" == text_of(file_source(tmp_path / "s", content).read({}))


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    """A file that is no UTF-8 is an error with the place and not the bytes."""
    answer = file_source(tmp_path / "s", b"ab\xff").read({})
    assert f"file {tmp_path}/s is not UTF-8 text (byte 3): write it again as plain text" == text_of(answer)


def test_a_huge_file_is_an_error(tmp_path: Path) -> None:
    """No secret is longer than 64 KiB: the path is wrong."""
    answer = file_source(tmp_path / "s", b"x" * (module.LARGEST_BYTES + 1)).read({})
    assert f"file {tmp_path}/s is longer than 65536 bytes: is it the right one?" == text_of(answer)


def test_a_missing_file_names_the_cure(tmp_path: Path) -> None:
    """A missing file is named, with the cure."""
    answer = Source(SourceKind.FILE, str(tmp_path / "s")).read({})
    assert f"file {tmp_path}/s cannot be read (No such file or directory): create it or correct the path" == text_of(
        answer
    )


def test_no_fifo_or_directory_hangs_or_breaks(tmp_path: Path) -> None:
    """A FIFO without a writer does not hang the credential, a directory does not break it."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path):
        text = text_of(Source(SourceKind.FILE, str(path)).read({}))
        assert text == f"file {path} is not a regular file: name a file"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601])
def test_a_file_that_others_may_use_is_an_error(tmp_path: Path, mode: int) -> None:
    """I5: outside of guarded mounts a secret file must be its owner's alone; the cure is a command."""
    text = text_of(file_source(tmp_path / "s", planted("a"), mode).read({}))
    assert text == f"file {tmp_path}/s has mode {mode:04o}, others than its owner may use it: chmod 600 {tmp_path}/s"


def test_systemd_credentials_may_be_group_readable(tmp_path: Path) -> None:
    """I5: below $CREDENTIALS_DIRECTORY mode 0440 is fine, by name or by path; elsewhere it is not."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    by_path = file_source(directory / "secret", planted("a"), 0o440)
    environ = {"CREDENTIALS_DIRECTORY": str(directory)}
    assert planted("a") == by_path.read(environ)
    assert planted("a") == Source(SourceKind.CREDENTIAL, "secret").read(environ)
    assert "has mode 0440" in text_of(by_path.read({}))


def test_kubernetes_mounts_may_be_group_readable(tmp_path: Path) -> None:
    """I5: a Secret mounted by Kubernetes (link through ..data, 0440) is fine; a plain link is not."""
    (tmp_path / "..2025").mkdir()
    file_source(tmp_path / "..2025" / "secret", planted("a"), 0o440)
    (tmp_path / "..data").symlink_to("..2025")
    (tmp_path / "secret").symlink_to("..data/secret")
    assert planted("a") == Source(SourceKind.FILE, str(tmp_path / "secret")).read({})
    file_source(tmp_path / "other", planted("b"), 0o440)
    assert "has mode 0440" in text_of(Source(SourceKind.FILE, str(tmp_path / "other")).read({}))


def test_a_missing_credentials_directory_names_the_cure() -> None:
    """I8: outside of the unit a systemd credential cannot be had, and the message says why."""
    assert text_of(Source(SourceKind.CREDENTIAL, "secret").read({})) == (
        "systemd credential secret cannot be found: $CREDENTIALS_DIRECTORY is not set; use LoadCredential= in the unit"
    )


def test_a_variable_is_read_or_named() -> None:
    """A variable gives its value; one that is not set is named."""
    assert planted("a") == Source(SourceKind.ENV, "SECRET").read({"SECRET": planted("a")})
    assert text_of(Source(SourceKind.ENV, "SECRET").read({})) == "environment variable SECRET is not set: set it"


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    """K8: each use reads the file again, and the stamp tells that it changed."""
    source = file_source(tmp_path / "s", planted("old"))
    before = source.stamp({})
    assert planted("old") == source.read({})
    file_source(tmp_path / "new", planted("new"))
    (tmp_path / "new").rename(tmp_path / "s")
    assert planted("new") == source.read({})
    assert source.stamp({}) not in (None, before)


def test_the_stamp_tells_of_every_cure(tmp_path: Path) -> None:
    """K8: a stamp stays while nothing changes; a chmod, a write with its old time and a deletion change it."""
    path = tmp_path / "s"
    source = file_source(path, planted("a"), 0o644)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    assert source.stamp({}) == source.stamp({})

    def close_up() -> None:
        path.chmod(0o600)

    def rewrite() -> None:
        path.write_text(planted("b"))
        os.utime(path, ns=times)

    for change in (close_up, rewrite):
        before = source.stamp({})
        deadline = time.monotonic() + PATIENCE
        while source.stamp({}) == before:  # a file system's clock may tick only every few milliseconds
            assert time.monotonic() < deadline
            change()
    path.unlink()
    assert source.stamp({}) is None


def test_only_files_have_stamps() -> None:
    """Watching inputs runs no command."""
    assert Source(SourceKind.COMMAND, ("/bin/false",)).stamp({}) is None
    assert Source(SourceKind.ENV, "HOME").stamp({"HOME": "/"}) is None


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Source]:
    """Return a function that makes a Python program and the source that runs it."""

    def make(code: str) -> Source:
        (tmp_path / "program.py").write_text(code)
        return Source(SourceKind.COMMAND, (sys.executable, str(tmp_path / "program.py")))

    return make


def test_a_command_gives_its_output(script: Callable[[str], Source]) -> None:
    """A command's output is the value; it sees the environment and no standard input."""
    source = script("import os, sys; print(os.environ['SECRET'] + sys.stdin.read())")
    assert planted("a") == source.read({"SECRET": planted("a")})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(3)", "ended with status 3: run it by hand as this user to see why"),
        ("while True: print('x' * 4096)", "writes more than 65536 bytes: is it the right one?"),
        ("pass", "is empty: put the value in"),
    ],
)
def test_a_failing_command_is_an_error(script: Callable[[str], Source], code: str, reason: str) -> None:
    """A command that fails, floods or says nothing is an error, and its error output is not shown."""
    code = f"import sys; print({planted('oops')!r}, file=sys.stderr)\n{code}"
    assert f"command {sys.executable} {reason}" == text_of(script(code).read({}))


def test_a_slow_command_is_ended_with_its_children(tmp_path: Path) -> None:
    """A command that hangs is killed at the limit, and so are its children that hold the output open."""
    pid_file = tmp_path / "pid"
    command = ("/bin/sh", "-c", f"sleep 600 & echo $! > {pid_file}; echo partly; wait")
    answer = module._output_of(command, {}, 2)
    assert InputError("did not end within 2 s: make it faster") == answer
    child = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    deadline = time.monotonic() + PATIENCE
    while child.exists() and " Z " not in child.read_text():
        assert time.monotonic() < deadline, "the command's child lives on"
        time.sleep(0.01)


def test_a_command_that_leaves_a_child_behind_is_ended(tmp_path: Path) -> None:
    """A command is over when its output is: a child that holds it open does not hang the credential."""
    answer = module._output_of(("/bin/sh", "-c", "sleep 600 & echo done"), {}, 1)
    assert InputError("did not end within 1 s: make it faster") == answer


def test_a_missing_program_is_an_error() -> None:
    """A program that is not there is named, without its arguments."""
    text = text_of(Source(SourceKind.COMMAND, ("/nowhere/pass", planted("argument"))).read({}))
    assert text == ("command /nowhere/pass cannot be started (No such file or directory): correct the path or its mode")


def test_no_value_is_in_a_repr() -> None:
    """Neither repr nor describe shows a value or a command's arguments."""
    for source in (
        Source(SourceKind.IN_PLACE, planted("a")),
        Source(SourceKind.COMMAND, ("/bin/echo", planted("a"))),
    ):
        assert secrets_in(repr(source) + source.describe()) == []


def test_the_name_is_filled_into_places_only() -> None:
    """`{name}` stands for the credential's name in files and their like, and is text in a value."""
    assert Source(SourceKind.FILE, "/s/web") == Source(SourceKind.FILE, "/s/{name}").named("web")
    command = Source(SourceKind.COMMAND, ("/bin/pass", "{name}/secret"))
    assert Source(SourceKind.COMMAND, ("/bin/pass", "web/secret")) == command.named("web")
    assert Source(SourceKind.IN_PLACE, "a{name}") == Source(SourceKind.IN_PLACE, "a{name}").named("web")
    plain = Source(SourceKind.FILE, "/s")
    assert plain.named("web") is plain


def test_reading_leaves_nothing_open(tmp_path: Path) -> None:
    """Neither success nor failure leaves a file descriptor behind."""
    sources = [
        file_source(tmp_path / "a", planted("a")),
        file_source(tmp_path / "b", planted("b"), 0o644),
        Source(SourceKind.FILE, str(tmp_path)),
        Source(SourceKind.COMMAND, ("/bin/false",)),
    ]
    before = sorted(Path("/proc/self/fd").iterdir())
    for source in sources:
        source.read({})
    assert before == sorted(Path("/proc/self/fd").iterdir())
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o644
