"""Where a setting's value comes from, and how it is read: again on each use, never shown.

`$` means nothing here (case K6): a value is what it is, byte for byte, except one line end at its end.
"""

import contextlib
import os
import selectors
import signal
import stat
import subprocess
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

COMMAND_SECONDS: Final = 10.0
_KILLED_SECONDS: Final = 0.5
LARGEST_BYTES: Final = 64 * 1024
NAME_MARK: Final = "{name}"


class SourceKind(StrEnum):
    """The five ways to write a value."""

    IN_PLACE = "in place"
    FILE = "file"
    ENV = "env"
    CREDENTIAL = "credential"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class InputError:
    """A value that cannot be had now: one line that names the place, what is wrong and the cure."""

    text: str


_NO_CREDENTIALS: Final = InputError(
    "cannot be found: $CREDENTIALS_DIRECTORY is not set; use LoadCredential= in the unit"
)


@dataclass(frozen=True, slots=True)
class _Taken:
    value: str
    had_line_end: bool


@dataclass(frozen=True, slots=True)
class Source:
    """One setting's value, by reference. Equal sources read the same place.

    `document` marks values that may have several lines, such as a token answer in JSON.
    """

    kind: SourceKind
    value: str | tuple[str, ...] = field(repr=False)
    document: bool = False

    def named(self, name: str) -> "Source":
        """Return the credential `name`'s source: `{name}` is replaced, but not in values in place."""
        if self.kind is SourceKind.IN_PLACE:
            return self
        if isinstance(self.value, str):
            value: str | tuple[str, ...] = self.value.replace(NAME_MARK, name)
        else:
            value = tuple(part.replace(NAME_MARK, name) for part in self.value)
        return self if value == self.value else Source(self.kind, value, self.document)

    @property
    def is_file(self) -> bool:
        """Tell whether a file holds the value, so that its `stamp` tells of a change."""
        return self.kind in (SourceKind.FILE, SourceKind.CREDENTIAL)

    @property
    def per_name(self) -> bool:
        """Tell whether the place depends on the credential's name."""
        if self.kind is SourceKind.IN_PLACE:
            return False
        return NAME_MARK in (self.value if isinstance(self.value, str) else "\0".join(self.value))

    def read(self, environ: Mapping[str, str]) -> str | InputError:
        """Read the value now; a file that was replaced gives its new content (case K8)."""
        taken = self._take(environ)
        return taken if isinstance(taken, InputError) else taken.value

    def notice(self, environ: Mapping[str, str]) -> str | None:
        """Tell if a line end was cut off the value of a file (case K2), naming the file alone."""
        if not self.is_file or self.document:
            return None
        taken = self._take(environ)
        if isinstance(taken, InputError) or not taken.had_line_end:
            return None
        return f"{self.describe()} ends in a newline, which is not taken as part of the value"

    def stamp(self, environ: Mapping[str, str]) -> object:
        """Return something that changes with the value's file, mode included; None without a file."""
        path = self._path(environ)
        if path is None:
            return None
        try:
            status = path.stat()
        except (OSError, ValueError):
            return None
        # The change time tells of a chmod too, and no copying tool can set it back.
        return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)

    def describe(self) -> str:
        """Name the place, never the value."""
        match self.kind:
            case SourceKind.IN_PLACE:
                return "the value in the configuration file"
            case SourceKind.FILE:
                return f"file {_shown(self.value)}"
            case SourceKind.ENV:
                return f"environment variable {_shown(self.value)}"
            case SourceKind.CREDENTIAL:
                return f"systemd credential {_shown(self.value)}"
            case SourceKind.COMMAND:  # its arguments might hold something secret
                return f"command {_shown(self.value[0])}"

    def _path(self, environ: Mapping[str, str]) -> Path | None:
        if not isinstance(self.value, str):
            return None
        if self.kind is SourceKind.FILE:
            return Path(self.value)
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if self.kind is SourceKind.CREDENTIAL and directory:
            return Path(directory, self.value)
        return None

    def _take(self, environ: Mapping[str, str]) -> _Taken | InputError:
        match self.kind:
            case SourceKind.IN_PLACE:
                raw: bytes | InputError = str(self.value).encode(errors="surrogatepass")
            case SourceKind.ENV:
                found = environ.get(str(self.value))
                raw = InputError("is not set: set it") if found is None else os.fsencode(found)
            case SourceKind.COMMAND:
                raw = _output_of(tuple(self.value), environ)
            case _:
                path = self._path(environ)
                raw = _NO_CREDENTIALS if path is None else _content_of(path, environ)
        taken = raw if isinstance(raw, InputError) else _judged(raw, document=self.document)
        if isinstance(taken, InputError):
            return InputError(f"{self.describe()} {taken.text}")
        return taken


def in_place(value: str) -> Source:
    """Return the source of a value that is written where it is used."""
    return Source(SourceKind.IN_PLACE, value)


def _shown(value: object) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in str(value))


def _judged(raw: bytes, *, document: bool) -> _Taken | InputError:
    """Decode, cut one line end (case K1), refuse what could only be a mistake."""
    if len(raw) > LARGEST_BYTES:
        return InputError(f"is longer than {LARGEST_BYTES} bytes: is it the right one?")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return InputError(f"is not UTF-8 text (byte {error.start + 1}): write it again as plain text")
    value = text.removesuffix("\n")
    if had_line_end := value != text:
        value = value.removesuffix("\r")
    if not value.strip():
        return InputError("is empty: put the value in")
    if value.isprintable():  # as nearly always
        return _Taken(value, had_line_end)
    for index, sign in enumerate(value):
        if document and sign in "\t\r\n":
            continue
        if unicodedata.category(sign) == "Cc" or sign == "\ufeff":
            return InputError(
                f"has a control character (U+{ord(sign):04X}) at position {index + 1}: "
                "write the value alone, on one line, without a byte order mark"
            )
    return _Taken(value, had_line_end)


def _content_of(path: Path, environ: Mapping[str, str]) -> bytes | InputError:
    try:
        # Not blocking: a FIFO without a writer would hang the credential for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        return InputError(f"cannot be read ({_why(error)}): {_open_cure(error)}")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return InputError("is not a regular file: name a file")
        if stat.S_IMODE(status.st_mode) & 0o077 and not _is_guarded_mount(path, environ):
            return InputError(_mode_cure(path, status))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(LARGEST_BYTES + 1)
    except OSError as error:
        return InputError(f"cannot be read ({_why(error)}): check the disk or mount")
    finally:
        os.close(descriptor)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "not a valid path"


def _open_cure(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "create it or correct the path"
    if isinstance(error, PermissionError):
        return f"let the user with id {os.geteuid()} read it"
    return "correct the path"


def _mode_cure(path: Path, status: os.stat_result) -> str:
    owner = "" if status.st_uid == os.geteuid() else f"chown {os.geteuid()} {_shown(path)} && "
    mode = stat.S_IMODE(status.st_mode)
    return f"has mode {mode:04o}, others than its owner may use it: {owner}chmod 600 {_shown(path)}"


def _is_guarded_mount(path: Path, environ: Mapping[str, str]) -> bool:
    """Tell whether the mount itself keeps others out (case I5).

    systemd credentials are 0440 with an ACL. Files of a Kubernetes Secret or projected volume are links
    through `..data`, 0440 with an fsGroup or 0644 by default, and seen inside the container alone.
    """
    real = path.resolve()
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if directory and real.is_relative_to(Path(directory).resolve()):
        return True
    return any(
        (parent / "..data").is_symlink() and real.is_relative_to((parent / "..data").resolve())
        for parent in path.absolute().parents
    )


def _output_of(
    command: tuple[str, ...], environ: Mapping[str, str], limit_seconds: float = COMMAND_SECONDS
) -> bytes | InputError:
    """Run a command without a shell and return its output; its error output is nobody's business."""
    try:
        process = subprocess.Popen(  # noqa: S603 -- the administrator's own command, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return InputError(f"cannot be started ({_why(error)}): correct the path or its mode")
    output = _drain(process, time.monotonic() + limit_seconds)
    if output is None:
        output = InputError(f"did not end within {limit_seconds:.0f} s: make it faster")
    if isinstance(output, InputError):
        # The whole group: a shell script's children would outlive it. What cannot be killed is not waited for.
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILLED_SECONDS)
        return output
    if process.returncode:
        return InputError(f"ended with status {process.returncode}: run it by hand as this user to see why")
    return output


def _drain(process: subprocess.Popen[bytes], deadline: float) -> bytes | InputError | None:
    """Collect the output until the process has ended; None: the deadline (monotonic) came first."""
    assert process.stdout is not None  # noqa: S101 -- Popen was asked for a pipe
    output = b""
    with process.stdout, selectors.PollSelector() as selector:  # which needs no file descriptor
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            part = os.read(process.stdout.fileno(), LARGEST_BYTES)
            output += part
            if len(output) > LARGEST_BYTES:
                return InputError(f"writes more than {LARGEST_BYTES} bytes: is it the right one?")
            if part:
                continue
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                break
            return output
    return None
