"""An output file: what consumers read. They see all of the old token or all of the new one."""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from rotator.adapters import atomic
from rotator.core.model import Reason, TokenSet
from rotator.core.template import lack, render
from rotator.ports import Clock, Problem

_OPEN_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_REPLACE_FAILED: Final = frozenset({errno.EBUSY, errno.EXDEV})


class FileSink:
    """Implements `rotator.ports.Sink` for one file.

    The write is atomic, but the directory is not synced: after a power cut a reader may meet the
    token before this one, whole, until rotator has started again and looked. What must
    survive is in the store; an output only ever repeats it.

    `in_place` is for a single file that is mounted into a container, which a rename cannot replace.
    Readers may then catch a mixture of two tokens for a moment, but never an empty file.
    """

    __slots__ = (
        "_clock",
        "_gid",
        "_group",
        "_in_place",
        "_in_pod",
        "_mode",
        "_newline",
        "_notice",
        "_owner",
        "_path",
        "_signature",
        "_symlink",
        "_template",
        "_told",
        "_uid",
        "name",
    )

    def __init__(  # noqa: PLR0913 - as many as an output has settings
        self,
        name: str,
        path: str | Path,
        *,
        clock: Clock,
        format: str = "raw",  # noqa: A002 - the word of the configuration
        template: str | None = None,
        mode: int = 0o640,
        owner: str | int | None = None,
        group: str | int | None = None,
        newline: bool = False,
        symlink: Literal["follow", "refuse"] = "follow",
        in_place: bool = False,
        in_pod: bool = False,
        notice: Callable[[str, str], object] | None = None,
    ) -> None:
        """Take the settings; nothing is touched before the first `publish`.

        `notice` hears once, an event's name and a line, if the filesystem does not let us set the mode.

        `in_pod`: this is a pod of Kubernetes, which makes its volumes open to all, for nobody else sees them.

        `format` is one of `rotator.core.template.FORMATS`; a `template`, which
        `check_template` has seen, replaces it. Owner and group: a name or a number; None leaves
        them as the system gives them.
        """
        self.name = name
        self._path = str(path)
        self._template = template or format
        self._clock = clock
        self._mode = mode
        self._owner, self._group = owner, group
        self._uid: int | None = None
        self._gid: int | None = None
        self._newline = newline
        self._symlink = symlink
        self._in_place = in_place
        self._in_pod = in_pod
        self._signature: int | None = None
        self._notice = notice
        self._told = False

    @property
    def directory(self) -> Path:
        """Return where temporary files may be left by a killed process; sweep it at start."""
        return Path(os.path.realpath(self._path) if self._symlink == "follow" else self._path).parent

    def publish(self, tokens: TokenSet) -> Problem | None:
        """Write the file, unless it already is as it should be; see `rotator.ports.Sink`."""
        if lacks := lack((self._template,), tokens):
            text = f"{atomic.shown(self._path)} not written: the server did not issue {lacks}"
            return Problem(Reason.BAD_INPUT, text)
        wall_expires_at = self._clock.wall(tokens.expires_at)
        payload = render(self._template, tokens, wall_expires_at, newline=self._newline)
        try:
            problem = self._find_owner() or self._put(payload)
            if problem is None:
                self._signature = atomic.signature(os.stat(self._path))
        except OSError as error:
            return self._problem(error)
        return problem

    def intact(self) -> bool:
        """Tell with one stat whether the file is as it was left; True if never published."""
        if self._signature is None:
            return True
        try:
            return atomic.signature(os.stat(self._path)) == self._signature
        except OSError:
            return False

    def _find_owner(self) -> Problem | None:
        """Turn names into numbers, late: the user may be made after rotator was started."""
        if self._uid is None and self._owner is not None:
            self._uid = _number(self._owner, lambda name: pwd.getpwnam(name).pw_uid)
            if self._uid is None:
                return self._nobody("user", self._owner)
        if self._gid is None and self._group is not None:
            self._gid = _number(self._group, lambda name: grp.getgrnam(name).gr_gid)
            if self._gid is None:
                return self._nobody("group", self._group)
        return None

    def _nobody(self, kind: str, name: str | int) -> Problem:
        text = f"{atomic.shown(self._path)} not written: there is no {kind} {name}; make it"
        return Problem(Reason.PERMISSION, f"{text}, or change the output's owner or group")

    def _put(self, payload: bytes) -> Problem | None:
        target = self._path
        if os.path.islink(target):
            if self._symlink == "refuse":
                text = f'{target} is a symbolic link: remove it, or set symlink = "follow"'
                return Problem(Reason.BUSY_TARGET, text)
            # Beside the target, so that the link stays a link (case G16).
            target = os.path.realpath(target)
            if os.path.islink(target):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
        directory, name = os.path.split(target)
        directory_fd = os.open(directory or ".", _OPEN_DIRECTORY)
        try:
            mode = os.fstat(directory_fd).st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and not (self._in_pod and _is_volume(directory_fd)):
                text = f"everybody may replace files in {directory}; run: chmod o-w {directory}"
                return Problem(Reason.PERMISSION, text)
            if self._signature is None and self._is_there(payload, name, directory_fd):
                return None
            put = self._overwrite if self._in_place else self._replace
            tolerated = put(payload, name, directory_fd)
            if tolerated is not None:
                self._tell(tolerated, os.stat(name, dir_fd=directory_fd).st_mode)
        finally:
            os.close(directory_fd)
        return None

    def _is_there(self, payload: bytes, name: str, directory_fd: int) -> bool:
        """Tell whether the file is right already, as it is after a restart."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory_fd)
        except OSError:
            return False
        try:
            now = os.fstat(fd)
            return stat.S_ISREG(now.st_mode) and self._is_dressed(now) and os.read(fd, len(payload) + 1) == payload
        except OSError:
            return False
        finally:
            os.close(fd)

    def _is_dressed(self, found: os.stat_result) -> bool:
        owned = self._uid in (None, found.st_uid) and self._gid in (None, found.st_gid)
        return owned and stat.S_IMODE(found.st_mode) == self._mode

    def _tell(self, error: OSError, mode: int) -> None:
        """Say once that the file has another mode than it should (case G20): its readers may be shut out."""
        if self._told or self._notice is None or stat.S_IMODE(mode) == self._mode:
            return
        self._told = True
        why = errno.errorcode.get(error.errno or 0, "unknown error")
        text = (
            f"{atomic.shown(self._path)} has mode {stat.S_IMODE(mode):04o}, not {self._mode:04o}, which may not be set"
            f" there ({why}): mount that filesystem with the mode that is wanted, or use another one"
        )
        self._notice("output_mode", text)

    def _replace(self, payload: bytes, name: str, directory_fd: int) -> OSError | None:
        return atomic.write(
            name, payload, mode=self._mode, uid=self._uid, gid=self._gid,
            durable=False, directory_fd=directory_fd, lenient=self._uid is None and self._gid is None,
        )  # fmt: skip

    def _overwrite(self, payload: bytes, name: str, directory_fd: int) -> OSError | None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=directory_fd)
        try:
            found, tolerated = os.fstat(fd), None
            # Before a token is in it: the file may have been made by somebody else, open to all. One that is as it
            # should be is left so, for only its owner may set a mode; one that is closed to some is borne.
            if not self._is_dressed(found):
                lenient = self._uid is None and self._gid is None and not stat.S_IMODE(found.st_mode) & ~self._mode
                tolerated = atomic.dress(fd, self._mode, self._uid, self._gid, lenient=lenient)
            written = 0
            while written < len(payload):
                written += os.pwrite(fd, payload[written:], written)
            os.ftruncate(fd, len(payload))  # last, so that the file is never empty
            os.fsync(fd)
        finally:
            os.close(fd)
        return tolerated

    def _problem(self, error: OSError) -> Problem:
        problem = atomic.problem_of(error, self._path, "write", itself=self._in_place)
        if error.errno in _REPLACE_FAILED:
            text = f"{problem.text}, or set in_place = true for this output"
            return Problem(Reason.BUSY_TARGET, text)
        return problem


def _is_volume(directory_fd: int) -> bool:
    """Tell whether something is mounted at a directory."""
    return os.fstat(directory_fd).st_dev != os.stat("..", dir_fd=directory_fd).st_dev


def _number(who: str | int, look_up: Callable[[str], int]) -> int | None:
    if isinstance(who, int) or who.isdecimal():
        return int(who)
    try:
        return look_up(who)
    except KeyError:
        return None
