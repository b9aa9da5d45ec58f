"""A published Secret as files: for pods that may read the token, and nothing that could renew it."""

import base64
import binascii
import contextlib
import stat
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rotator.adapters import atomic
from rotator.adapters.kubernetes import state_secret
from rotator.adapters.kubernetes.rules import Right
from rotator.adapters.kubernetes.watch import Watch
from rotator.adapters.kubernetes.wire import Api, annotations_of, secret_path

_GENERATION: Final = "token-rotator/generation"
_EXPIRES_AT: Final = "token-rotator/expires-at"


def rights_of(namespace: str, name: str) -> tuple[Right, ...]:
    """Return the rights that a mirror uses, and no others."""
    return tuple(Right(verb, "", "secrets", namespace, name) for verb in ("list", "watch"))


class Mirror:
    """Keeps files as the keys of one Secret are. A file never goes back to an older generation."""

    def __init__(
        self,
        api: Api,
        place: tuple[str, str],
        files: Mapping[str, Path],
        mode: int,
        timeout: float,
        told: Callable[[str], None],
    ) -> None:
        """Take namespace and name of the Secret, and where each key goes. `told` hears of each new generation."""
        self.written = threading.Event()
        """Every file has been written."""
        namespace, self._name = place
        self._files = files
        self._mode = mode
        self._told = told
        self._lock = threading.Lock()
        self._generation = 0
        self._expires_at = ""
        self._body: Mapping[str, Any] | None = None
        """The Secret whose contents are to stand in the files; None if it is of no use."""
        self._signatures: dict[Path, int] = {}
        """How each file looked when it had been written."""
        selector = {"fieldSelector": f"metadata.name={self._name}"}
        self._watch = Watch(api, secret_path(namespace), selector, timeout, self._came)
        self._problem = f"Secret {namespace}/{self._name} is not there yet"

    @property
    def trouble(self) -> str:
        """Return why the files are not as they should be, on one line; empty if they are."""
        return self._watch.trouble or self._problem

    def start(self) -> None:
        """Begin."""
        for directory in {path.parent for path in self._files.values()}:
            with contextlib.suppress(OSError):  # writing will say what is wrong with it
                atomic.sweep_temporaries(directory)
        self._watch.start()

    def stop(self) -> None:
        """End."""
        self._watch.stop()

    def again(self) -> None:
        """Write again what could not be written, or what somebody has removed or changed since (case H15)."""
        with self._lock:
            changed = [path for path, signature in self._signatures.items() if _signature(path) != signature]
            if changed:
                self._told(f"{changed[0]} was removed or changed by somebody else: it is written again")
            if self._body is not None and (changed or not self._signatures.keys() >= set(self._files.values())):
                self._write(self._body)

    def _came(self, body: Mapping[str, Any]) -> str:
        with self._lock:
            self._write(body)
        return ""

    def _write(self, body: Mapping[str, Any]) -> None:
        annotations = annotations_of(body)
        generation, expires_at = annotations.get(_GENERATION, "0"), annotations.get(_EXPIRES_AT, "")
        number = int(generation) if generation.isdecimal() else 0
        if number < self._generation and expires_at <= self._expires_at:
            return  # somebody who was late wrote it; the owner will write again
        self._signatures.clear()
        contents = self._contents(body)
        self._body = body if contents is not None else None
        if contents is None:
            return
        for path, content in contents.items():
            try:
                atomic.write(path, content, mode=self._mode, durable=False)
            except OSError as error:
                self._problem = atomic.problem_of(error, path, "write").text
                return
            self._signatures[path] = self._signature_of(path, content)
        self._problem = ""
        if number != self._generation or not self.written.is_set():
            self._told(f"generation {number} of Secret {self._name} is in place")
        self._generation, self._expires_at = number, expires_at
        self.written.set()

    def _signature_of(self, path: Path, content: bytes) -> int:
        """Return the signature of what was written; 0, which no file has, if somebody has changed it already."""
        try:
            status = path.stat()
            ours = stat.S_IMODE(status.st_mode) == self._mode and path.read_bytes() == content
        except OSError:
            return 0
        return atomic.signature(status) if ours else 0

    def _contents(self, body: Mapping[str, Any]) -> dict[Path, bytes] | None:
        """Return what is to stand in the files; None if it is not worth writing: a problem says why."""
        expires_at = annotations_of(body).get(_EXPIRES_AT, "")
        if expires_at and expires_at < datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"):
            self._problem = f"the token in Secret {self._name} is over since {expires_at}: see who should renew it"
            return None
        if body.get("type") == state_secret.TYPE:
            self._problem = f"Secret {self._name} holds a state, refresh token included: name the published Secret"
            return None
        data = body.get("data") or {}
        missing = [key for key in self._files if not data.get(key)]
        if missing:
            self._problem = f"Secret {self._name} has no key {missing[0]}; it has {', '.join(sorted(data)) or 'none'}"
            return None
        try:
            return {path: base64.b64decode(data[key], validate=True) for key, path in self._files.items()}
        except (ValueError, binascii.Error):
            self._problem = f"Secret {self._name} holds something that is no base64"
            return None


def _signature(path: Path) -> int:
    try:
        return atomic.signature(path.stat())
    except OSError:
        return 0
