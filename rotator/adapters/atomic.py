"""Replacing a file so that neither a crash nor a reader ever meets half of it."""

import contextlib
import errno
import os
import re
import shlex
from pathlib import Path
from typing import Final

from rotator.core.model import Reason
from rotator.ports import Problem

PREFIX: Final = ".rotator-"
_TEMPORARY: Final = re.compile(re.escape(PREFIX) + r"(.*)\.[0-9a-f]{16}", re.DOTALL)
_NAME_KEPT: Final = 200  # bytes: the temporary name fits in 255
_UNSUPPORTED: Final = frozenset({errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})
"""How filesystems without Unix permissions (FAT, CIFS, some FUSE) answer chmod and chown."""
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(
    path: str | Path,
    payload: bytes,
    *,
    mode: int,
    uid: int | None = None,
    gid: int | None = None,
    durable: bool = True,
    directory_fd: int | None = None,
    lenient: bool = False,
) -> OSError | None:
    """Put `payload` at `path`; a reader sees all of the old file or all of the new one.

    Raises OSError, with the old file whole and no temporary file left. After a crash at any point
    the file holds all of the old or all of the new; with `durable` it is the new one from the
    return on. `directory_fd`: the open directory of `path`, if the caller has it. `lenient`: a
    filesystem that knows no modes or owners is no failure; the error is returned instead.
    """
    directory, name = os.path.split(path)
    if directory_fd is None:
        opened = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return write(
                name, payload, mode=mode, uid=uid, gid=gid, durable=durable,
                directory_fd=opened, lenient=lenient,
            )  # fmt: skip
        finally:
            os.close(opened)
    # Beside the target: a rename between filesystems is a copy, which can tear. A random name,
    # opened exclusively and never through a link: what is planted there is not followed (case G18).
    temporary = f"{PREFIX}{_cut(name)}.{os.urandom(8).hex()}"
    # 0600 from its first moment, so that nobody reads a token in the time before the chmod.
    fd = os.open(temporary, _CREATE, 0o600, dir_fd=directory_fd)
    try:
        try:
            # On the descriptor and before the rename: never on a name that somebody swapped for a
            # link (case G17), and no reader meets a file that it may not read (case G14).
            tolerated = dress(fd, mode, uid, gid, lenient=lenient)
            written = os.write(fd, payload)
            while written < len(payload):  # a nearly full disk takes a part, then says ENOSPC
                written += os.write(fd, payload[written:])
            # Before the rename: else a power cut may leave the name with nothing in it (case B5).
            os.fsync(fd)
        finally:
            os.close(fd)  # may raise as well: some network filesystems report a full disk here
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory_fd)  # it holds a secret (case G6)
        raise
    if durable:
        try:
            # Else a power cut may bring the old file back, with a refresh token that is spent.
            os.fsync(directory_fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: this filesystem has no such thing
                raise
    return tolerated


def dress(fd: int, mode: int, uid: int | None, gid: int | None, *, lenient: bool) -> OSError | None:
    """Set owner, then mode: a change of owner may clear bits of the mode. Raises OSError; `lenient` as `write`."""
    try:
        if uid is not None or gid is not None:
            os.fchown(fd, -1 if uid is None else uid, -1 if gid is None else gid)
        os.fchmod(fd, mode)
    except OSError as error:
        if lenient and error.errno in _UNSUPPORTED:
            return error
        raise
    return None


def signature(found: os.stat_result) -> int:
    """Fold what changes when somebody writes, replaces or chmods a file into one small number."""
    return hash(
        (
            found.st_ino,
            found.st_mtime_ns,
            found.st_size,
            found.st_mode,
            found.st_uid,
            found.st_gid,
        )
    )


def sweep_temporaries(directory: str | Path) -> int:
    """Remove what a killed rotator left half-written, and return how many files that were.

    Only files with our own prefix. Another rotator that is just writing there would see its write
    fail and do it again a second later. Raises OSError if the directory cannot be read.
    """
    removed = 0
    for temporary, _ in temporaries(directory):
        with contextlib.suppress(OSError):
            Path(directory, temporary).unlink()
            removed += 1
    return removed


def temporaries(directory: str | Path) -> list[tuple[str, str]]:
    """Return what a killed rotator left half-written: the file's name, and the name it was to get.

    Raises OSError if the directory cannot be read.
    """
    with os.scandir(directory) as entries:
        found = [_TEMPORARY.fullmatch(entry.name) for entry in entries]
    return [(match[0], match[1]) for match in found if match]


def _cut(name: str) -> str:
    return name if len(name) * 4 <= _NAME_KEPT else os.fsencode(name)[:_NAME_KEPT].decode(errors="ignore")


_REASONS: Final = {
    errno.ENOSPC: Reason.NO_SPACE,
    errno.EDQUOT: Reason.NO_SPACE,
    errno.EFBIG: Reason.NO_SPACE,
    errno.EROFS: Reason.READ_ONLY,
    errno.EACCES: Reason.PERMISSION,
    errno.EPERM: Reason.PERMISSION,
    errno.ENOENT: Reason.MISSING_DIRECTORY,
    errno.ENOTDIR: Reason.MISSING_DIRECTORY,
    errno.EBUSY: Reason.BUSY_TARGET,
    errno.EXDEV: Reason.BUSY_TARGET,
    errno.EMFILE: Reason.LOCAL_RESOURCES,
    errno.ENFILE: Reason.LOCAL_RESOURCES,
    errno.ENOMEM: Reason.LOCAL_RESOURCES,
}
_CURES: Final = {
    errno.EDQUOT: "raise the disk quota of this user or free some space",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f, systemd LimitFSIZE=)",
    errno.EISDIR: "a directory is in the way: remove it or configure another path",
    errno.ELOOP: "a symbolic link is in the way: configure the path it leads to",
    errno.ENAMETOOLONG: "configure a shorter path",
    errno.ENOMEM: "give the process more memory (systemd MemoryMax=)",
    Reason.NO_SPACE: "free some space on that filesystem",
    Reason.READ_ONLY: "mount it writable (systemd: ReadWritePaths=) or configure another path",
    Reason.BUSY_TARGET: "the file itself is a mount point: mount its directory instead",
    Reason.LOCAL_RESOURCES: "raise the limit on open files (ulimit -n, systemd LimitNOFILE=)",
    Reason.IO_ERROR: "look for disk or network filesystem errors in the kernel log (dmesg)",
}


def problem_of(error: OSError, path: str | Path, doing: str, *, itself: bool = False) -> Problem:
    """Say in one line what failed on which path, under which errno, and what to do (case B26).

    With `itself` it takes a right on what is there, e.g. to read it; else one on its directory, as replacing it does.
    """
    number = error.errno or 0
    reason = _REASONS.get(number, Reason.IO_ERROR)
    directory = shlex.quote(str(Path(path).parent))
    if reason is Reason.MISSING_DIRECTORY:
        cure = f"make the directory: mkdir -p {directory}"
    elif reason is Reason.PERMISSION:
        there = f"to {shlex.quote(str(path))}" if itself and os.path.lexists(path) else f"in {directory}"
        cure = f"let user id {os.geteuid()} do that {there} (ls -ld {there.partition(' ')[2]})"
    else:
        cure = _CURES.get(number) or _CURES[reason]
    name = errno.errorcode.get(number, "unknown error")
    words = os.strerror(number) if number else str(error)
    return Problem(reason, f"cannot {doing} {shown(path)}: {name} ({words}); {cure}")


def shown(path: str | Path) -> str:
    """Return the path fit for one line of text."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
