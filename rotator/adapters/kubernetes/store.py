"""`SecretStore`: each save is conditional on the version that this process last read or wrote."""

import hashlib
import secrets
import threading
from typing import Final

from rotator.adapters.kubernetes import state_secret
from rotator.adapters.kubernetes.wire import (
    APPLY,
    CONFLICT,
    MANAGER,
    MERGE,
    NOT_FOUND,
    Api,
    Reply,
    annotations_of,
    is_earlier,
    version_of,
)
from rotator.core.model import Reason
from rotator.core.record import NewerFormatError, RecordError
from rotator.core.state import CredentialState
from rotator.ports import Loaded, Problem

_PENDING_AT_MOST: Final = 20


class _Known:
    """What this process knows of one Secret."""

    __slots__ = ("mark", "pending", "version")

    def __init__(self, version: str, mark: int) -> None:
        self.version = version
        """The fence; empty: there is no Secret."""
        self.mark = mark
        self.pending: tuple[str, ...] = ()
        """Our writes of unknown fate: the server may still carry them out."""


class SecretStore:
    """Implements `rotator.ports.SharedStore`; thread-safe for different names."""

    def __init__(self, api: Api, namespace: str, prefix: str, timeout: float) -> None:
        """Take the API server, where the Secrets are, and the seconds that one request may take."""
        self.warnings: list[str] = []
        self._api = api
        self._namespace = namespace
        self.prefix = prefix
        self.timeout = timeout
        self.save_allowance = 2 * timeout
        self._known: dict[str, _Known] = {}
        self._lost: dict[str, str] = {}
        self._closed = threading.Event()

    @property
    def collection(self) -> str:
        """Return the path of the namespace's Secrets."""
        return f"/api/v1/namespaces/{self._namespace}/secrets"

    def close(self) -> None:
        """Refuse further work."""
        self._closed.set()

    def fingerprint_key(self) -> bytes:
        """Return the key for fingerprints, the same in all replicas.

        It is no secret here: eight hex digits of a hash tell nothing of a random token.
        """
        return hashlib.sha256(f"rotator {self._namespace} {self.prefix}".encode()).digest()

    def names(self) -> tuple[str, ...]:
        """Return the credentials that have a Secret; needs the right to list Secrets."""
        selector = f"{state_secret.LABEL}={state_secret.label_of(self.prefix)}"
        reply = self._api.call("GET", self.collection, query={"labelSelector": selector}, timeout=self.timeout)
        return tuple(state_secret.credential_of(one) for one in reply.body.get("items", ()) if one.get("data"))

    def lost(self, secret: str, version: str) -> None:
        """Take note that a watch found a Secret gone, of no use, or behind what we stored, at this version."""
        self._lost[secret] = version

    def is_ahead_of(self, name: str, state: CredentialState) -> bool:
        """Tell whether this process has loaded or stored a later state: an older one was restored, or is old news."""
        known = self._known.get(name)
        return known is not None and _mark(state) < known.mark

    def vanished(self, name: str) -> bool:
        """Tell what a watch has told; see `rotator.ports.Store`. What we wrote since is stored again."""
        if not self._lost:
            return False
        version, known = self._lost.get(state_secret.secret_name(self.prefix, name)), self._known.get(name)
        if version is None or known is None:  # a copy is all that there is in memory, and is no longer stored
            return version is not None
        return is_earlier(known.version, version)

    def load(self, name: str) -> Loaded | Problem:
        """Read the durable state; see `rotator.ports.Store`. From now on a save may be made over what was read."""
        reply = self._get(name)
        loaded = self._read(name, reply)
        if isinstance(loaded, Loaded):
            self._known[name] = _Known(version_of(reply.body), _mark(loaded.state))
        return loaded

    def look(self, name: str) -> Loaded | Problem:
        """Read the durable state; see `rotator.ports.SharedStore`."""
        return self._read(name, self._get(name))

    def save(self, name: str, state: CredentialState) -> Problem | None:
        """Make the state durable; see `rotator.ports.SharedStore`."""
        if self._closed.is_set():
            return Problem(Reason.SAVE_FAILED, "the store is closed: rotator is stopping")
        known = self._known.get(name)
        if known is None:  # what is stored must be known before it is replaced
            loaded = self.load(name)
            if isinstance(loaded, Problem):
                return loaded
            known = self._known[name]
        mark = _mark(state)
        if mark < known.mark:
            text = (
                f"state of {name} not saved: generation {state.generation} must not replace generation"
                f" {known.mark // 2} in {self._place(name)}; please report this as a bug"
            )
            return Problem(Reason.SAVE_FAILED, text)
        if not known.version and (problem := self._make(name, known)):
            return problem
        problem = self._write(name, known, state)
        if problem is None:
            known.mark = mark
        return problem

    def _write(self, name: str, known: _Known, state: CredentialState) -> Problem | None:
        write = secrets.token_hex(8)
        reply = self._patch(name, state_secret.patch(state, known.version, write))
        if reply.status == CONFLICT or reply.unclear:
            stored = self._get(name)
            if not stored.good:
                if reply.unclear:
                    known.pending = (*known.pending, write)[-_PENDING_AT_MOST:]
                return self._unsaved(name, reply)
            found = annotations_of(stored.body).get(state_secret.WRITE, "")
            if found == write:
                reply = stored  # it was carried out: the reply alone was lost
            elif reply.unclear and version_of(stored.body) == known.version:
                known.pending = (*known.pending, write)[-_PENDING_AT_MOST:]
                return self._unsaved(name, reply)
            elif found in known.pending:
                known.version = version_of(stored.body)  # an earlier write of ours was carried out after all
                reply = self._patch(name, state_secret.patch(state, known.version, write))
            else:
                return self._fenced(name, stored)
        if reply.status in (CONFLICT, NOT_FOUND):
            return self._fenced(name, reply)
        if not reply.good:
            if reply.unclear:
                known.pending = (*known.pending, write)[-_PENDING_AT_MOST:]
            return self._unsaved(name, reply)
        known.version, known.pending = version_of(reply.body), ()
        return None

    def _make(self, name: str, known: _Known) -> Problem | None:
        """Make the Secret, empty: server-side apply needs no right to make any other (case H11)."""
        path = f"{self.collection}/{state_secret.secret_name(self.prefix, name)}"
        reply = _whole(
            self._api.call(
                "PATCH",
                path,
                state_secret.vessel(self.prefix, name),
                content_type=APPLY,
                query={"fieldManager": MANAGER},
                timeout=self.timeout,
            )
        )
        if not reply.good:
            return self._unsaved(name, reply)
        if reply.body.get("data"):
            return self._fenced(name, reply)
        known.version = version_of(reply.body)
        return None

    def _get(self, name: str) -> Reply:
        path = f"{self.collection}/{state_secret.secret_name(self.prefix, name)}"
        return _whole(self._api.call("GET", path, timeout=self.timeout))

    def _patch(self, name: str, body: dict[str, object]) -> Reply:
        path = f"{self.collection}/{state_secret.secret_name(self.prefix, name)}"
        query = {"fieldManager": MANAGER}
        return _whole(self._api.call("PATCH", path, body, content_type=MERGE, query=query, timeout=self.timeout))

    def _read(self, name: str, reply: Reply) -> Loaded | Problem:
        if reply.status == NOT_FOUND:
            return Loaded(None)
        if not reply.good:
            text = f"the state in {self._place(name)} cannot be read: {reply.text or reply.status}"
            return Problem(Reason.STATE_UNREADABLE, text)
        try:
            return Loaded(state_secret.read(reply.body, name))
        except NewerFormatError as error:
            text = f"the state in {self._place(name)} cannot be used: {error}; install the newer rotator again"
            return Problem(Reason.STATE_NEWER, text)
        except RecordError as error:
            secret = state_secret.secret_name(self.prefix, name)
            cure = f"kubectl -n {self._namespace} delete secret {secret}"
            text = (
                f"{self._place(name)} cannot be used: {error}; keep a copy if in doubt, then {cure}: whoever has its"
                " tokens in memory writes them again, and if nobody does, log in again"
            )
            return Problem(Reason.STATE_DAMAGED, text)

    def _fenced(self, name: str, stored: Reply) -> Problem:
        generation = annotations_of(stored.body).get(state_secret.GENERATION, "none")
        text = f"{self._place(name)} was changed by another replica meanwhile: it holds generation {generation} now"
        return Problem(Reason.FENCED, text)

    def _unsaved(self, name: str, reply: Reply) -> Problem:
        text = f"the state was not saved in {self._place(name)}: {reply.text or reply.status}"
        return Problem(Reason.SAVE_FAILED, text)

    def _place(self, name: str) -> str:
        return f"Secret {self._namespace}/{state_secret.secret_name(self.prefix, name)}"


def _whole(reply: Reply) -> Reply:
    """Believe no success that does not say which version it is about: whether a write was done must be looked up."""
    if not reply.good or version_of(reply.body):
        return reply
    text = "Kubernetes API: its answer is about an object without a resourceVersion: check the address"
    return Reply(0, {}, text, Reason.UNREADABLE_ANSWER)


def _mark(state: CredentialState | None) -> int:
    """Return a number that must not fall: the generation, then if an expiry is known (C15)."""
    if state is None or state.tokens is None:
        return 0
    return 2 * state.tokens.generation + (state.tokens.expires_at > 0)
