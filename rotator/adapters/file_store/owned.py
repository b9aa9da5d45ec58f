"""A private directory that one process owns for its life: checked, locked, swept."""

import contextlib
import errno
import fcntl
import os
import re
import shlex
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rotator.adapters import atomic
from rotator.core.model import Reason
from rotator.ports import Problem

_LOCK: Final = ".lock"
_PROBE: Final = ".probe"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_READ_SIZE: Final = 1 << 16
_NO_SUCH_LOCK: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.ENOLCK})
"""How network filesystems answer flock on a directory; the lock file still works there."""


class OwnedDirectory:
    """An open directory of mode 0700, locked against every other process. `open` makes one."""

    __slots__ = ("_fd", "_gid", "_lock_fd", "_renewing", "_uid", "modeless", "path", "warnings")

    def __init__(self, path: Path, fd: int, lock_fd: int) -> None:
        """Take over an open, checked and locked directory."""
        self.path = path
        self.warnings: list[str] = []
        self.modeless = False
        """Whether it is known, and has been told, that the filesystem takes no modes."""
        self._fd = fd
        self._lock_fd = lock_fd
        self._renewing = threading.Lock()
        owner = os.fstat(fd)
        # What root does here on the command line stays readable for the user the daemon runs as.
        foreign = os.geteuid() == 0 and owner.st_uid != 0
        self._uid = owner.st_uid if foreign else None
        self._gid = owner.st_gid if foreign else None
        if foreign:
            os.fchown(lock_fd, owner.st_uid, owner.st_gid)

    @classmethod
    def open(cls, path: Path) -> "OwnedDirectory | Problem":
        """Make the directory if only it is missing, check that it is private, and lock it.

        Never waits for the lock and never goes on without it (case C2). The lock is the kernel's:
        it ends with the process, however that ends (case C24).
        """
        try:
            _make(path)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            return _unopened(error, path)
        try:
            problem = _too_open(path, fd) or _mounted_over(path)
            lock_fd = problem or _locked(path, fd)
            if isinstance(lock_fd, Problem):
                os.close(fd)
                return lock_fd
        except OSError as error:
            os.close(fd)
            return atomic.problem_of(error, path / _LOCK, "lock", itself=True)
        owned = cls(path, fd, lock_fd)
        problem = owned._probe()
        if problem and problem.reason is not Reason.NO_SPACE:
            owned.close()
            return problem
        if problem:  # tokens that are still good can be published without a byte of space
            owned.warnings.append(problem.text)
        return owned

    def _probe(self) -> Problem | None:
        """Write, rename, read and remove a file, so that a bad mount is told at start (case G2)."""
        try:
            tolerated = self.write(_PROBE, b"probe")
            mode = os.stat(_PROBE, dir_fd=self._fd, follow_symlinks=False).st_mode
            self.remove(_PROBE)
        except OSError as error:
            return atomic.problem_of(error, self.path / _PROBE, "write")
        if tolerated:
            self.modeless = True
            name = errno.errorcode.get(tolerated.errno or 0)
            self.warnings.append(f"the filesystem of {self.path} takes no file modes ({name})")
        if mode & _OTHERS:
            text = f"files in {self.path} are readable for others whatever their mode: {_FMASK}"
            return Problem(Reason.PERMISSION, text)
        return None

    def read(self, name: str) -> bytes:
        """Return a whole file; a symbolic link is refused. Raises OSError."""
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            whole = piece = os.read(fd, _READ_SIZE)
            while len(piece) == _READ_SIZE:
                piece = os.read(fd, _READ_SIZE)
                whole += piece
            return whole
        finally:
            os.close(fd)

    def write(self, name: str, payload: bytes) -> OSError | None:
        """Write a file of mode 0600 durably, as `atomic.write` does. A directory that was removed is made again.

        Raises OSError; if the directory is gone and there can be no new one, its `strerror` says why.
        """
        try:
            return self._write(name, payload)
        except FileNotFoundError:
            problem = self._renew()
            if problem is not None:
                raise FileNotFoundError(errno.ENOENT, problem.text) from None
            return self._write(name, payload)

    def _write(self, name: str, payload: bytes) -> OSError | None:
        return atomic.write(
            name, payload, mode=0o600, uid=self._uid, gid=self._gid,
            directory_fd=self._fd, lenient=True,
        )  # fmt: skip

    def _renew(self) -> Problem | None:
        """Go on in the directory that stands where ours was, or in a new one, checked and locked as at first."""
        with self._renewing:
            with contextlib.suppress(OSError):
                if os.path.samestat(self.path.stat(), os.fstat(self._fd)):
                    return None  # another thread was quicker
            fresh = OwnedDirectory.open(self.path)
            if isinstance(fresh, Problem):
                return fresh
            fresh.give(self._fd, self._lock_fd)
            return None

    def give(self, fd: int, lock_fd: int) -> None:
        """Give the directory and its lock over to these open descriptors.

        A thread that is just using them may fail once, but never meets a closed one.
        """
        os.dup2(self._fd, fd, inheritable=False)
        os.dup2(self._lock_fd, lock_fd, inheritable=False)
        self.close()

    def temporaries(self) -> list[tuple[str, str]]:
        """Return what was left half-written, as `atomic.temporaries` does. Raises OSError."""
        return atomic.temporaries(self.path)

    def adopt(self, temporary: str, name: str) -> None:
        """Give a temporary file the name it was to get, durably. Raises OSError."""
        fd = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self.rename(temporary, name)

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of that name. Raises OSError if that cannot be told."""
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def rename(self, name: str, new_name: str) -> None:
        """Rename a file durably. Raises OSError."""
        os.rename(name, new_name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)

    def remove(self, name: str) -> None:
        """Remove a file if it is there. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def names(self) -> Iterator[str]:
        """Yield the names of all files. Raises OSError."""
        with os.scandir(self.path) as entries:
            for entry in entries:
                yield entry.name

    def close(self) -> None:
        """Give the directory up; the lock goes last."""
        os.close(self._fd)
        os.close(self._lock_fd)


_FMASK: Final = "mount that filesystem with fmask=0177,dmask=0077 or use another one"


def _make(path: Path) -> None:
    """Make the directory itself, never its parents: a typing error must not become a tree."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)  # else a power cut may take the directory with everything in it
    finally:
        os.close(parent)


def _unopened(error: OSError, path: Path) -> Problem:
    problem = atomic.problem_of(error, path, "open the directory", itself=True)
    if path.is_file():
        text = f"{atomic.shown(path)} is a file: mount or name the directory that is to hold states"
        return Problem(Reason.BUSY_TARGET, text)
    if problem.reason is not Reason.MISSING_DIRECTORY:
        return problem
    text = (
        f"the directory {atomic.shown(path)} cannot be made: {path.parent} is no directory;"
        f" run: mkdir -p -m 0700 {shlex.quote(str(path))}"
        f" (in a systemd unit: StateDirectory={path.name})"
    )
    return Problem(Reason.MISSING_DIRECTORY, text)


def _too_open(path: Path, fd: int) -> Problem | None:
    """Refuse a directory that others can look into, or that others can swap for their own."""
    quoted = shlex.quote(str(path))
    mode = os.fstat(fd).st_mode
    if mode & _OTHERS:
        text = (
            f"the directory {path} is open to others (mode {stat.S_IMODE(mode):04o}); run:"
            f" chmod 0700 {quoted}, or name a new directory in it, which rotator makes itself"
        )
        return Problem(Reason.PERMISSION, text)
    parent = Path(os.path.realpath(path)).parent
    mode = parent.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        text = (
            f"anyone can replace {path}, because everybody may write in {parent}; run:"
            f" chmod o-w {shlex.quote(str(parent))}, or use another directory"
        )
        return Problem(Reason.PERMISSION, text)
    return None


def _mounted_over(path: Path) -> Problem | None:
    """Refuse single files mounted into the directory: a rename cannot replace them (G2)."""
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return None
    directory = os.path.realpath(path)
    for line in mounts.splitlines():
        octal = line.split(b" ")[4]  # proc(5): blanks and the like are written as \040
        point = os.fsdecode(re.sub(rb"\\(\d{3})", lambda code: bytes([int(code[1], 8)]), octal))
        if str(Path(point).parent) == directory and not Path(point).is_dir():
            text = f"{atomic.shown(point)} is a mount point: mount {path}, not single files in it"
            return Problem(Reason.BUSY_TARGET, text)
    return None


def _locked(path: Path, fd: int) -> int | Problem:
    """Lock the directory, and a file in it that tells who holds it. Raises OSError."""
    lock_fd = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            # A lock file is easily removed by somebody who thinks it is stale; a directory is not.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_SUCH_LOCK:
                raise
    except BlockingIOError:
        holder = os.pread(lock_fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock_fd)
        text = (
            f"{path} is in use by another rotator, process {holder}; stop that one,"
            " or talk to it through its control socket"
        )
        return Problem(Reason.BUSY_TARGET, text)
    except OSError:
        os.close(lock_fd)
        raise
    with contextlib.suppress(OSError):  # a full disk: the lock counts, not what it tells
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, b"%d\n" % os.getpid(), 0)
    return lock_fd
