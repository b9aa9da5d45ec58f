"""A model of an API server: Secrets in memory, conditional writes, and networks on the way that lose things."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from rotator.adapters.kubernetes.wire import CONFLICT, CREATED, JSON, MERGE, NOT_FOUND, OK, Reply
from rotator.core.model import Reason

Secret = dict[str, Any]
_AWAY = Reply(0, {}, "the API server is away", Reason.CONNECTION_LOST, delivered=False)
_LOST = Reply(0, {}, "no answer in time", Reason.READ_TIMEOUT)


@dataclass
class ModelApi:
    """Secrets by path. It knows merge patches, and the server-side apply of a manager that never drops a field."""

    secrets: dict[str, Secret] = field(default_factory=dict)
    version: int = 0
    changed: Callable[[str, Secret | None], None] = lambda _path, _secret: None
    """Told of each change."""
    late: list[tuple[float, Callable[[], Reply]]] = field(default_factory=list)
    """Requests that nobody waits for any more, and when they are carried out after all."""

    def land(self, now: float) -> None:
        """Carry out what is late and has now arrived."""
        for late in [late for late in self.late if late[0] <= now]:
            self.late.remove(late)
            late[1]()

    def remove(self, path: str) -> None:
        """Delete a Secret."""
        if self.secrets.pop(path, None) is not None:
            self.version += 1
            self.changed(path, None)

    def listed(self, collection: str, selector: str) -> Reply:
        """Answer with the Secrets that have a label, given as `key=value`."""
        key, _, value = selector.partition("=")
        items = [
            deepcopy(secret)
            for path, secret in sorted(self.secrets.items())
            if path.startswith(f"{collection}/") and secret["metadata"].get("labels", {}).get(key) == value
        ]
        return Reply(OK, {"items": items})

    def carry_out(self, method: str, path: str, body: Mapping[str, Any] | None, content_type: str) -> Reply:
        """Answer one request. A write that names another uid or resourceVersion than the Secret has is refused."""
        stored = self.secrets.get(path)
        if body is None or method == "GET":
            return Reply(NOT_FOUND, {}, "not found", Reason.REJECTED) if stored is None else Reply(OK, deepcopy(stored))
        wanted = body["metadata"]
        if stored is None and content_type == MERGE:
            return Reply(NOT_FOUND, {}, "not found", Reason.REJECTED)
        has = stored["metadata"] if stored else {"uid": "", "resourceVersion": ""}
        if any(wanted.get(key, has[key]) != has[key] for key in ("uid", "resourceVersion")):
            return Reply(CONFLICT, {}, "the object has been modified", Reason.REJECTED)
        made = _merged(stored or {"metadata": {"uid": f"uid-{self.version}"}}, body)
        if made != stored:
            self.version += 1
            made["metadata"]["resourceVersion"] = str(self.version)
            self.secrets[path] = made
            self.changed(path, made)
        return Reply(OK if stored else CREATED, deepcopy(made))


class Network:
    """A `rotator.adapters.kubernetes.wire.Api`: the way of one replica to the server.

    `fates` are those of its next requests. `request lost`: it never arrives. `reply lost`: it is carried out, and
    nobody hears of it. A number: it is carried out so many seconds later. Empty: all is well.
    """

    def __init__(
        self,
        api: ModelApi,
        touch: Callable[[], None] = lambda: None,
        now: Callable[[], float] = lambda: 0.0,
        wait: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`touch` is called before and after a request; `now` in seconds, and `wait` for an answer that never comes."""
        self.api = api
        self.away = False
        self.fates: deque[str | float] = deque()
        self.before_write: dict[str, Callable[[], None]] = {}
        """By path: happens once, when the next write to it has been made up and has yet to leave."""
        self._touch = touch
        self._now = now
        self._wait = wait

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
        timeout: float,
    ) -> Reply:
        """Implement `wire.Api`."""
        happens = self.before_write.pop(path, None) if method == "PATCH" else None
        if happens is not None:
            happens()
        self._touch()
        if self.away:
            return _AWAY
        if query and "labelSelector" in query:
            return self.api.listed(path, query["labelSelector"])
        fate = self.fates.popleft() if self.fates else ""
        sent, reply = deepcopy(body), _LOST
        if isinstance(fate, float):
            self.api.late.append((self._now() + fate, lambda: self.api.carry_out(method, path, sent, content_type)))
        elif fate != "request lost":
            reply = self.api.carry_out(method, path, sent, content_type)
        if fate:
            self._wait(timeout)
        self._touch()
        return _LOST if fate else reply

    def watch(self, path: str, query: Mapping[str, str], *, timeout: float) -> Iterator[Mapping[str, Any]]:
        """Implement `wire.Api`: nothing ever comes, for tests hand on what changes."""
        return iter(())

    def namespace(self) -> str:
        """Implement `wire.Api`."""
        return "apps"


def _merged(stored: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Merge by RFC 7396."""
    made = deepcopy(dict(stored))
    for key, value in body.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, Mapping):
            there = made.get(key)
            made[key] = _merged(there if isinstance(there, Mapping) else {}, value)
        else:
            made[key] = value
    return made
