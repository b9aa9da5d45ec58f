"""What is left of a directory after a power cut: only what was synced is sure.

A model of a disk that keeps as little as POSIX allows: data reach it with fsync of the file, names with fsync of the
directory. What was not synced may be there or not.
"""

from dataclasses import dataclass
from pathlib import Path

from tests.process.trace import Call


@dataclass(slots=True)
class _File:
    cached: bytes = b""
    synced: bytes = b""


class Disk:
    """One directory, followed call by call."""

    def __init__(self, directory: Path) -> None:
        """Take the directory as it is now, all of it synced."""
        self._path = str(directory)
        self._cached = {each.name: _File(*[each.read_bytes()] * 2) for each in directory.iterdir()}
        self._synced = dict(self._cached)

    def follow(self, call: Call) -> None:
        """Do what a call did."""
        directory, _, name = call.path.rpartition("/")
        if not call.succeeded:
            return
        if call.path == self._path:
            names = [each.decode() for each in call.strings]
            if call.name == "openat" and "O_CREAT" in call.arguments:
                self._cached[names[0]] = _File()
            elif call.name == "renameat":
                self._cached[names[1]] = self._cached.pop(names[0])
            elif call.name == "unlinkat":
                del self._cached[names[0]]
            elif call.name == "fsync":
                self._synced = dict(self._cached)
        elif directory == self._path and name in self._cached:
            file = self._cached[name]
            if call.name == "write":
                file.cached += call.strings[-1][: int(call.result)]
            elif call.name == "fsync":
                file.synced = file.cached

    def kept(self, *, names: bool) -> dict[str, bytes]:
        """Return the directory after a power cut: with unsynced names lost, or kept while unsynced data are torn."""
        if not names:
            return {name: file.synced for name, file in self._synced.items()}
        return {
            name: file.synced if file.synced == file.cached else file.cached[: len(file.cached) // 2]
            for name, file in self._cached.items()
        }


def restore(directory: Path, files: dict[str, bytes]) -> None:
    """Make the directory hold these files and no others."""
    for each in directory.iterdir():
        each.unlink()
    for name, content in files.items():
        path = directory / name
        path.write_bytes(content)
        path.chmod(0o600)
