"""How followers hear of new states: a watch, resumed where it ended.

With few credentials each Secret is watched by its name, so that a Role need name only those; with many, one watch of
all Secrets with the store's label, for which the Role must allow to list and watch the namespace's Secrets.
"""

import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from rotator.adapters.kubernetes import state_secret
from rotator.adapters.kubernetes.wire import GONE, Api, version_of
from rotator.core.record import RecordError
from rotator.core.state import CredentialState

BY_NAME_UP_TO: Final = 8
WATCH_SECONDS: Final = 60
"""A watch ends after this time and is resumed: a connection that died unnoticed is then found out."""
_PAGE: Final = 500
_AGAIN_LEAST: Final = 0.5
_AGAIN_MOST: Final = 10.0

CopyCame = Callable[[str, CredentialState], None]


class Copies:
    """Watches the states of credentials and hands every new one on."""

    def __init__(self, api: Api, collection: str, prefix: str, timeout: float, came: CopyCame) -> None:
        """Watch nothing before `follow`. `came` is called in our threads, with each state, old ones included."""
        self.trouble = ""
        """Why a watch fails, on one line; empty if none does."""
        self._api = api
        self._collection = collection
        self._prefix = prefix
        self._timeout = timeout
        self._came = came
        self._closing = threading.Event()
        self._watched: dict[str, threading.Event] = {}

    def follow(self, names: Collection[str], patience: float) -> None:
        """Watch these credentials from now on; return once all that is stored has come, or after `patience` seconds."""
        if len(names) > BY_NAME_UP_TO:
            wanted = {"labelSelector": f"{state_secret.LABEL}={state_secret.label_of(self._prefix)}"}
            selectors = {"": wanted}
        else:
            secrets = {state_secret.secret_name(self._prefix, name) for name in names}
            selectors = {secret: {"fieldSelector": f"metadata.name={secret}"} for secret in secrets}
        for key in self._watched.keys() - selectors.keys():
            self._watched.pop(key).set()
        arrived = []
        for key in selectors.keys() - self._watched.keys():
            stop, listed = threading.Event(), threading.Event()
            self._watched[key] = stop
            arguments = (selectors[key], stop, listed)
            threading.Thread(target=self._keep, args=arguments, name="copies", daemon=True).start()
            arrived.append(listed)
        for listed in arrived:
            listed.wait(patience)

    def close(self) -> None:
        """Hand nothing on any more. The threads end with their connections."""
        self._closing.set()
        for stop in self._watched.values():
            stop.set()

    def _keep(self, selector: Mapping[str, str], stop: threading.Event, listed: threading.Event) -> None:
        version, wait = "", _AGAIN_LEAST
        while not stop.is_set():
            began, trouble = time.monotonic(), ""
            if not version:
                version, trouble = self._list(selector)
            if version:
                listed.set()
                version, trouble = self._watch(selector, version, stop)
            self.trouble = trouble
            # Also without a failure: a server that ends each watch at once must not be asked without a pause.
            wait = min(2 * wait, _AGAIN_MOST) if trouble else _AGAIN_LEAST
            if trouble or time.monotonic() - began < _AGAIN_LEAST:
                stop.wait(wait * random.uniform(0.5, 1.0))  # noqa: S311 - so that replicas do not march in step

    def _list(self, selector: Mapping[str, str]) -> tuple[str, str]:
        """Hand on everything there is; return the version to watch from, empty if that failed, and what went wrong."""
        query = {**selector, "limit": str(_PAGE)}
        while True:
            reply = self._api.call("GET", self._collection, query=query, timeout=self._timeout)
            if not reply.good:
                return "", reply.text or str(reply.status)
            for item in reply.body.get("items") or ():
                self._hand_on(item)
            following = (reply.body.get("metadata") or {}).get("continue")
            if not following:
                return version_of(reply.body), ""
            query["continue"] = following

    def _watch(self, selector: Mapping[str, str], version: str, stop: threading.Event) -> tuple[str, str]:
        """Hand on what happens; return the version to go on from, empty if none is good, and what went wrong."""
        query = {
            **selector, "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)
        }  # fmt: skip
        for event in self._api.watch(self._collection, query, timeout=WATCH_SECONDS + self._timeout):
            body = event.get("object") or {}
            if event.get("type") == "ERROR":
                return "" if body.get("code") == GONE else version, str(body.get("message", "the watch failed"))
            version, self.trouble = version_of(body) or version, ""
            if event.get("type") in ("ADDED", "MODIFIED"):
                self._hand_on(body)
            if stop.is_set():
                break
        return version, ""

    def _hand_on(self, body: Mapping[str, Any]) -> None:
        name = state_secret.credential_of(body)
        try:
            state = state_secret.read(body, name) if name else None
        except RecordError as error:
            self.trouble = f"Secret {body.get('metadata', {}).get('name')}: {error}"
            return
        if state is not None and not self._closing.is_set():
            self._came(name, state)
