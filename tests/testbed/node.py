"""Packages of Node that tests need: installed from a lock file, outside the clone, so that it is done once."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

_LOCK: Final = ("package.json", "package-lock.json", ".npmrc")


class Packages:
    """What the lock file in a directory says, in the cache under a key that changes with it."""

    def __init__(self, directory: Path, *more: str) -> None:
        """`more` names files of the directory that have to lie beside the packages."""
        self._files = [directory / name for name in (*_LOCK, *more)]
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in self._files)).hexdigest()[:12]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.place: Final = cache / f"rotator-{directory.name}" / digest
        """The directory where they are, or will be, installed."""
        self.mark: Final = self.place / "done"
        """A file that is there once all is installed."""

    def install(self) -> None:
        """Install them, unless that was done; raises CalledProcessError, OSError."""
        self.place.mkdir(parents=True, exist_ok=True)
        with (self.place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another clone of the same lock file may be at it
            if not self.mark.exists():
                for file in self._files:
                    shutil.copy(file, self.place)
                subprocess.run(["npm", "ci"], cwd=self.place, check=True, stdin=subprocess.DEVNULL)
                self.mark.touch()
