"""`FileStore`: reads, saves, and keeps everything that cannot be read."""

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from rotator.adapters import atomic
from rotator.adapters.file_store import document
from rotator.adapters.file_store.owned import OwnedDirectory
from rotator.core.model import Reason
from rotator.core.record import NewerFormatError, RecordError
from rotator.core.state import CredentialState
from rotator.ports import Loaded, Problem

_SUFFIX: Final = ".json"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_SET_ASIDE: Final = re.compile(r"(.+)\.json\.corrupt-[0-9]+")
_KEY_FILE: Final = ".fingerprint-key"
_KEY_SIZE: Final = 32
_PATIENCE: Final = 10.0
"""Seconds that `close` waits for a save that is still under way."""


class _Damaged(Problem):
    """There was a state, it cannot be read, and it has been set aside."""

    __slots__ = ()


class FileStore:
    """Implements `rotator.ports.Store`; thread-safe for different names.

    With a spill directory, a state whose ordinary save fails is written there (case B25): better a
    pair in an odd place than a pair in memory alone. The next good save takes it away again.
    """

    def __init__(self, main: OwnedDirectory, spill: OwnedDirectory | None) -> None:
        """Take over the opened directories. Raises OSError if they cannot be read."""
        self.warnings: list[str] = [*main.warnings, *(spill.warnings if spill else ())]
        """What is odd about the directories or their files; see `rotator.ports.OpenStore`."""
        self._main = main
        self._spill = spill
        self._known: dict[str, int] = {}
        """What is stored, as `_mark` tells it; a small number, as there may be 100,000 names."""
        present = set(main.names())
        self._damaged = {
            match[1]: file
            for file in present
            if (match := _SET_ASIDE.fullmatch(file)) and match[1] + _SUFFIX not in present
        }
        self._spilled = set(_state_names(spill.names())) if spill else set()
        self._key = self._read_key()
        for directory in filter(None, (main, spill)):
            self._settle(directory)
        self._lock = threading.Lock()
        self._gate = threading.Condition(self._lock)
        self._working = 0
        self._closed = False

    @classmethod
    def open(cls, directory: Path, spill: Path | None = None) -> "FileStore | Problem":
        """Own the directories until `close`, or say why that is not possible."""
        opened: list[OwnedDirectory] = []
        for path in (directory, *([spill] if spill else [])):
            owned = OwnedDirectory.open(path)
            if isinstance(owned, Problem):
                for other in opened:
                    other.close()
                return owned
            opened.append(owned)
        try:
            return cls(opened[0], opened[1] if spill else None)
        except OSError as error:
            for owned in opened:
                owned.close()
            return atomic.problem_of(error, directory, "use")

    def close(self) -> None:
        """Refuse further work, wait for what is under way, give up the locks.

        A save that hangs (a dead network filesystem) keeps its lock: the kernel releases it when
        the process ends.
        """
        with self._gate:
            if self._closed:
                return
            self._closed = True
            idle = self._gate.wait_for(lambda: self._working == 0, _PATIENCE)
        if idle:
            self._main.close()
            if self._spill:
                self._spill.close()

    def names(self) -> tuple[str, ...]:
        """Return the names that have a state, the spilled ones included."""
        try:
            return tuple({*_state_names(self._main.names()), *self._spilled})
        except OSError as error:
            self.warnings.append(atomic.problem_of(error, self._main.path, "list").text)
            return tuple({*self._known, *self._spilled})

    def vanished(self, name: str) -> bool:
        """Tell with one stat whether a state that was stored is gone; see `rotator.ports.Store`."""
        if not self._known.get(name) or name in self._spilled:
            return False
        try:
            return not self._main.exists(name + _SUFFIX)
        except OSError:
            return False

    def load(self, name: str) -> Loaded | Problem:
        """Read the durable state; see `rotator.ports.Store`. A damaged file is set aside, kept."""
        refused = self._enter(name)
        if refused:
            return refused
        try:
            return self._load(name)
        finally:
            self._leave()

    def save(self, name: str, state: CredentialState) -> Problem | None:
        """Make the state durable; see `rotator.ports.Store`."""
        refused = self._enter(name)
        if refused:
            return refused
        try:
            return self._save(name, state)
        finally:
            self._leave()

    def fingerprint_key(self) -> bytes:
        """Return the key for fingerprints: 32 random bytes that stay the same over restarts."""
        return self._key

    def _settle(self, directory: OwnedDirectory) -> None:
        """Take over a whole state that a killed process could not name any more; remove other leftovers (case G6).

        A kill between the answer and the end of its save would else cost the only good refresh token (case B1).
        """
        for temporary, file in directory.temporaries():
            try:
                self._settle_one(directory, temporary, file)
            except OSError as error:  # one odd file keeps no daemon from starting
                problem = atomic.problem_of(error, directory.path / temporary, "clear up what a killed process left in")
                self.warnings.append(problem.text)

    def _settle_one(self, directory: OwnedDirectory, temporary: str, file: str) -> None:
        name = next(_state_names([file]), None)
        try:
            left = document.decode(directory.read(temporary)) if name else None
        except NewerFormatError:
            return
        except RecordError:
            left = None
        stored = self._load(name) if name and left else None
        if isinstance(stored, Problem) and not isinstance(stored, _Damaged):
            return  # it must not be judged without knowing what is stored
        if name and _mark(left) > _mark(stored.state if isinstance(stored, Loaded) else None):
            directory.adopt(temporary, file)
            self._known[name] = _mark(left)
            if directory is self._spill:
                self._spilled.add(name)
            self._damaged.pop(name, None)
            self.warnings.append(f"the last save of {name} had been cut off; its state was whole and is used")
        else:
            directory.remove(temporary)

    def _read_key(self) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            key = self._main.read(_KEY_FILE)
            if len(key) == _KEY_SIZE:
                return key
        if any(_state_names(self._main.names())):
            path = self._main.path / _KEY_FILE
            self.warnings.append(f"{path} was lost: all fingerprints of tokens are new")
        key = os.urandom(_KEY_SIZE)
        self._main.write(_KEY_FILE, key)
        return key

    def _enter(self, name: str) -> Problem | None:
        if not _NAME.fullmatch(name):
            text = f"{name!r} is no name for a credential: use letters, digits, dot, dash, underscore"
            return Problem(Reason.BAD_INPUT, text)
        with self._lock:
            if self._closed:
                return Problem(Reason.SAVE_FAILED, "the store is closed: rotator is stopping")
            self._working += 1
        return None

    def _leave(self) -> None:
        with self._lock:
            self._working -= 1
            if self._closed:
                self._gate.notify_all()

    def _load(self, name: str) -> Loaded | Problem:
        result = self._read(self._main, name)
        if name in self._spilled and self._spill and isinstance(result, (Loaded, _Damaged)):
            spilled = self._read(self._spill, name)
            if isinstance(spilled, _Damaged):
                self.warnings.append(spilled.text)
            elif isinstance(spilled, Problem):
                return spilled  # it may hold the only good refresh token: using an older one harms
            elif _mark(spilled.state) > (_mark(result.state) if isinstance(result, Loaded) else -1):
                result = replace(spilled, kept=True)
        if isinstance(result, Loaded):
            self._known[name] = _mark(result.state)
        elif isinstance(result, _Damaged):
            self._known[name] = 0
        return result

    def _read(self, directory: OwnedDirectory, name: str) -> Loaded | Problem:
        path = directory.path / (name + _SUFFIX)
        try:
            raw = directory.read(path.name)
        except FileNotFoundError:
            return self._missing(directory, path, name)
        except OSError as error:
            return atomic.problem_of(error, path, "read the state in", itself=True)
        try:
            return Loaded(document.decode(raw))
        except NewerFormatError as error:
            text = f"the state in {path} cannot be used: {error}; install the newer rotator again"
            return Problem(Reason.STATE_NEWER, text)
        except RecordError as error:
            return self._set_aside(directory, path, name, error)

    def _missing(self, directory: OwnedDirectory, path: Path, name: str) -> Loaded | Problem:
        if directory is not self._main:
            return Loaded(None)
        if self._known.get(name):
            return Problem(Reason.STATE_DAMAGED, f"{path} was removed while rotator runs; {_cure(name)}")
        aside = self._damaged.get(name)
        if aside is None or not directory.exists(aside):
            return Loaded(None)
        text = f"the state of {name} is missing since a damaged one was kept as {path.parent / aside}"
        return _Damaged(Reason.STATE_DAMAGED, f"{text}; {_cure(name)}")

    def _set_aside(self, directory: OwnedDirectory, path: Path, name: str, error: RecordError) -> Problem:
        """Keep a damaged file under another name: there may be a token in it to recover (G8)."""
        number = 1
        try:
            while directory.exists(aside := f"{path.name}.corrupt-{number}"):
                number += 1
            directory.rename(path.name, aside)
        except OSError as failure:
            why = atomic.problem_of(failure, path, "set aside").text
            return Problem(
                Reason.STATE_UNREADABLE,
                f"the state in {path} is damaged ({error}) and stays: {why}",
            )
        if directory is self._main:
            self._damaged[name] = aside
        text = f"the state in {path} is damaged ({error}) and was kept as {aside}"
        return _Damaged(Reason.STATE_DAMAGED, f"{text}; {_cure(name)}")

    def _save(self, name: str, state: CredentialState) -> Problem | None:
        if name not in self._known:  # what is stored must be known before it is replaced
            loaded = self._load(name)
            if isinstance(loaded, Problem) and not isinstance(loaded, _Damaged):
                return loaded
        mark, known = _mark(state), self._known[name]
        if mark < known and not self.vanished(name):
            text = (
                f"state of {name} not saved: generation {state.generation} must not replace"
                f" generation {known // 2} in {self._main.path}; please report this as a bug"
            )
            return Problem(Reason.SAVE_FAILED, text)
        file, payload = name + _SUFFIX, document.encode(state)
        try:
            tolerated = self._main.write(file, payload)
        except OSError as error:
            return self._save_elsewhere(name, mark, payload, error)
        self._known[name] = mark
        if tolerated and not self._main.modeless:
            self._main.modeless = True
            self.warnings.append(atomic.problem_of(tolerated, self._main.path, "set modes in").text)
        self._damaged.pop(name, None)
        with contextlib.suppress(OSError):  # it went with the directory, and is only for people to compare
            if not self._main.exists(_KEY_FILE):
                self._main.write(_KEY_FILE, self._key)
        if name in self._spilled and self._spill:
            with contextlib.suppress(OSError):  # an older generation in the spill is not read
                self._spill.remove(file)
                self._spilled.discard(name)
        return None

    def _save_elsewhere(self, name: str, mark: int, payload: bytes, error: OSError) -> Problem:
        problem = atomic.problem_of(error, self._main.path / (name + _SUFFIX), "save the state in")
        if problem.reason is Reason.MISSING_DIRECTORY:
            again = f"make it again, with mode 0700, for user id {os.geteuid()}"
            why = error.strerror if self._main.path.exists() else again
            text = f"{self._main.path} was removed while rotator runs: {why}"
            problem = Problem(problem.reason, f"{text}; do not restart rotator: only its memory holds the tokens")
        if self._spill is None:
            return problem
        path = self._spill.path / (name + _SUFFIX)
        try:
            self._spill.write(path.name, payload)
        except OSError as second:
            why = atomic.problem_of(second, path, "spill it to").text
            return Problem(problem.reason, f"{problem.text}; {why}")
        self._spilled.add(name)
        self._known[name] = mark
        return Problem(problem.reason, f"{problem.text}; until then it is kept in {path}", kept=True)


def _mark(state: CredentialState | None) -> int:
    """Return a number that must not fall: the generation, then if an expiry is known (C15)."""
    if state is None or state.tokens is None:
        return 0
    return 2 * state.tokens.generation + (state.tokens.expires_at > 0)


def _state_names(files: Iterable[str]) -> Iterator[str]:
    for file in files:
        name = file.removesuffix(_SUFFIX)
        if name != file and _NAME.fullmatch(name):
            yield name


def _cure(name: str) -> str:
    """Name a login, and no old copy: its refresh token is spent, and a strict server revokes all when it comes back."""
    return f"log in again (rotator login {name})"
