"""One watch: everything there is, then every change, resumed where it ended."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from rotator.adapters.kubernetes.wire import GONE, Api, metadata_of, version_of

WATCH_SECONDS: Final = 60
"""A watch ends after this time and is resumed: a connection that died unnoticed is then found out."""
_PAGE: Final = 500
_AGAIN_LEAST: Final = 0.5
_AGAIN_MOST: Final = 10.0

Came = Callable[[Mapping[str, Any]], str]
"""Takes an object as it is now; returns what is wrong with it, on one line, or nothing."""
Gone = Callable[[str, str], object]
"""Takes the name of an object that is no longer there, and a version by which it was not."""


class Watch:
    """Hands on the objects of a collection that a selector picks, in a thread of its own."""

    def __init__(
        self, api: Api, collection: str, selector: Mapping[str, str], timeout: float, came: Came,
        gone: Gone = lambda _name, _version: None,
    ) -> None:  # fmt: skip
        """Watch nothing before `start`."""
        self.trouble = ""
        """Why nothing comes, or what is wrong with what came, on one line; empty if all is well."""
        self.listed = threading.Event()
        """Everything that was there has been handed on."""
        self._api = api
        self._collection = collection
        self._selector = selector
        self._timeout = timeout
        self._came = came
        self._gone = gone
        self._there: set[str] = set()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._keep, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Hand nothing on any more. The thread ends with its connection."""
        self._stopping.set()

    def _keep(self) -> None:
        version, wait = "", _AGAIN_LEAST
        while not self._stopping.is_set():
            began, failed = time.monotonic(), ""
            if not version:
                version, failed = self._list()
            if version:
                self.listed.set()
                version, failed = self._watch(version)
            self.trouble = failed or self.trouble
            # Also without a failure: a server that ends each watch at once must not be asked without a pause.
            wait = min(2 * wait, _AGAIN_MOST) if failed else _AGAIN_LEAST
            if failed or time.monotonic() - began < _AGAIN_LEAST:
                self._stopping.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311 - replicas must not march in step

    def _list(self) -> tuple[str, str]:
        """Hand on everything there is; return the version to watch from, empty if that failed, and what went wrong."""
        query = {**self._selector, "limit": str(_PAGE)}
        before, self._there = self._there, set()
        while True:
            reply = self._api.call("GET", self._collection, query=query, timeout=self._timeout)
            if not reply.good:
                self._there |= before
                return "", reply.text or str(reply.status)
            self.trouble = ""
            for item in reply.body.get("items") or ():
                self._hand_on(item)
            following = (reply.body.get("metadata") or {}).get("continue")
            if not following:
                version = version_of(reply.body)
                for name in before - self._there:
                    self._gone(name, version)
                return version, ""
            query["continue"] = following

    def _watch(self, version: str) -> tuple[str, str]:
        """Hand on what happens; return the version to go on from, empty if none is good, and what went wrong."""
        query = {
            **self._selector, "resourceVersion": version, "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }  # fmt: skip
        for event in self._api.watch(self._collection, query, timeout=WATCH_SECONDS + self._timeout):
            body = event.get("object") or {}
            if event.get("type") == "ERROR":
                return "" if body.get("code") == GONE else version, str(body.get("message", "the watch failed"))
            version, self.trouble = version_of(body) or version, ""
            if event.get("type") in ("ADDED", "MODIFIED"):
                self._hand_on(body)
            elif event.get("type") == "DELETED":
                name = str(metadata_of(body).get("name"))
                self._there.discard(name)
                self._gone(name, version)
            if self._stopping.is_set():
                break
        return version, ""

    def _hand_on(self, body: Mapping[str, Any]) -> None:
        self._there.add(str(metadata_of(body).get("name")))
        if not self._stopping.is_set():
            self.trouble = self._came(body) or self.trouble
