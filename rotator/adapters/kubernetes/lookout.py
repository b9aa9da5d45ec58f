"""Notices what others do to published Secrets, without asking again and again.

The API server tells by a watch, which costs one request an hour. A few Secrets of a namespace are watched by name, so
that the Role need name no others; more than that share one watch of our label, for which the Role must allow to watch
all Secrets of the namespace. Where no watch is allowed, each Secret is looked at about once a minute.
"""

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, Protocol

from rotator.adapters.kubernetes.rules import Right, rule
from rotator.adapters.kubernetes.wire import (
    BAD_REQUEST,
    FORBIDDEN,
    GONE,
    NOT_FOUND,
    SERVER_ERROR,
    Api,
    annotations_of,
    secret_path,
    version_of,
)

LABEL: Final = "token-rotator/managed"
BY_NAME_UP_TO: Final = 8
"""As many Secrets of a namespace are watched one by one, each by a thread."""
POLL_SECONDS: Final = 50.0
_POLLS_PER_SECOND: Final = 20.0
_WATCH_SECONDS: Final = 3000
_GET_SECONDS: Final = 10.0
_REFUSALS: Final = 3
_JOIN_SECONDS: Final = 2.0
_PAUSE_LEAST: Final = 1.0
_PAUSE_MOST: Final = 10.0
_INITIAL_END: Final = "k8s.io/initial-events-end"
_FRESH: Final = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}


def watches_of(secrets: Collection[tuple[str, str]]) -> Iterator[Right]:
    """Yield the rights that watching these Secrets takes; each is a namespace and a name."""
    many = {namespace for namespace, count in Counter(at for at, _ in secrets).items() if count > BY_NAME_UP_TO}
    places = {(namespace, "" if namespace in many else name) for namespace, name in secrets}
    return (Right("watch", "", "secrets", namespace, name) for namespace, name in sorted(places))


class Watched(Protocol):
    """A published Secret."""

    def saw(self, found: Mapping[str, Any] | None, version: str) -> None:
        """Take note of the Secret as it was at this version; None: it was not there."""


class Lookout:
    """Follows Secrets from their first publication on. Forgets those that nobody else holds on to any more."""

    def __init__(self, api: Api, notify: Callable[[str, str], None], poll_seconds: float = POLL_SECONDS) -> None:
        """Follow nothing yet. `notify`: take an event's name and a line, once for each thing that is wrong."""
        self._api = api
        self._poll_seconds = poll_seconds
        self._notify = notify
        self._lock = threading.Lock()
        self._watched: dict[str, weakref.WeakValueDictionary[str, Watched]] = {}
        self._threads: dict[tuple[str, str], threading.Thread] = {}
        self._stopping = threading.Event()

    def follow(self, namespace: str, name: str, secret: Watched) -> None:
        """Tell `secret` from now on what happens to it."""
        with self._lock:
            watched = self._watched.setdefault(namespace, weakref.WeakValueDictionary())
            if watched.get(name) is secret:
                return
            watched[name] = secret
            key = (namespace, name if len(watched) <= BY_NAME_UP_TO else "")
            if key not in self._threads and not self._stopping.is_set():
                self._threads[key] = thread = threading.Thread(target=self._keep, args=key, name="lookout", daemon=True)
                thread.start()

    def stop(self) -> None:
        """Begin no further watch. Those under way end when the client is closed; then `join`."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until the threads have ended; not for long, for a request of theirs may hang."""
        for thread in tuple(self._threads.values()):
            thread.join(_JOIN_SECONDS)

    def _of(self, namespace: str, name: str) -> dict[str, Watched]:
        """Return what one watch is about: a Secret by name, or all of a namespace."""
        with self._lock:
            return {key: secret for key, secret in self._watched[namespace].items() if name in ("", key)}

    def _keep(self, namespace: str, name: str) -> None:
        """Watch for as long as there is something to watch."""
        version, pause, refusals = "", _PAUSE_LEAST, 0
        while self._has_work(namespace, name):
            version, status = self._watch(namespace, name, version)
            # No right to it, or a server too old for it. One that is just starting says so, too: ask some times.
            refused = status is not None and BAD_REQUEST <= status < SERVER_ERROR and status != GONE
            refusals = refusals + 1 if refused else 0
            if refusals < _REFUSALS:
                # Also after a watch that ended well: one that ends at once must not be begun without a pause.
                pause = _PAUSE_LEAST if status is None else min(pause * 2, _PAUSE_MOST)
                self._stopping.wait(pause)
                continue
            if status == FORBIDDEN and refusals == _REFUSALS:
                self._tell(namespace, name)
            self._poll(namespace, name)

    def _has_work(self, namespace: str, name: str) -> bool:
        """Tell whether a thread is to go on; if not, the next one that has work is a new one."""
        with self._lock:
            wanted = name in self._watched[namespace] if name else bool(self._watched[namespace])
            if self._stopping.is_set() or not wanted:
                self._threads.pop((namespace, name), None)
                return False
            return True

    def _tell(self, namespace: str, name: str) -> None:
        right = Right("watch", "", "secrets", namespace, name)
        what = f"Secret {namespace}/{name}" if name else f"the Secrets of namespace {namespace}"
        text = f"{what} cannot be watched, so each is looked at every {self._poll_seconds:g} s; add to the Role"
        self._notify("watch_forbidden", f"{text}: {rule([right])}")

    def _watch(self, namespace: str, name: str, version: str) -> tuple[str, int | None]:
        """Watch until it ends; return the version to go on from, and the status if it failed (0: no answer)."""
        selector = {"fieldSelector": f"metadata.name={name}"} if name else {"labelSelector": f"{LABEL}=true"}
        since = {"resourceVersion": version} if version else _FRESH
        query = {**selector, **since, "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_SECONDS)}
        unseen = set() if version else self._of(namespace, name).keys() | set()
        for event in self._api.watch(secret_path(namespace), query, timeout=_WATCH_SECONDS + _GET_SECONDS):
            found = event["object"]
            if event["type"] == "ERROR":
                return "" if found.get("code") == GONE else version, int(found.get("code") or 0)
            version = version_of(found)
            if event["type"] != "BOOKMARK":
                of = found["metadata"]["name"]
                unseen.discard(of)
                if secret := self._of(namespace, of).get(of):
                    secret.saw(None if event["type"] == "DELETED" else found, version)
            elif _INITIAL_END in annotations_of(found):
                for of in unseen:
                    if secret := self._of(namespace, of).get(of):
                        secret.saw(None, version)
        return version, None

    def _poll(self, namespace: str, name: str) -> None:
        """Look at each Secret once, and be done in no less than the time between two looks."""
        of = self._of(namespace, name)
        pause = max(self._poll_seconds / len(of), 1 / _POLLS_PER_SECOND) if of else self._poll_seconds
        for key in of:
            if self._stopping.wait(pause):
                return
            reply = self._api.call("GET", secret_path(namespace, key), timeout=_GET_SECONDS)
            if reply.good or reply.status == NOT_FOUND:
                of[key].saw(reply.body if reply.good else None, version_of(reply.body) if reply.good else "")
