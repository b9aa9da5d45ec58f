"""`KubernetesClient`: one request in, one `Reply` out, whatever happens on the wire.

lightkube knows the configuration, TLS and authentication (`connection`). Its own client is not used: it turns an answer
without a content type into a KeyError, waits between tries in a sleep that no stop can end, and reads every object
into classes of its own, where what we need of one is a few keys. Seven kinds of request are not worth that.
"""

import base64
import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from rotator import VERSION
from rotator.adapters.kubernetes.connection import MOUNT, Connection, NoToken, Unconfigured, connect
from rotator.adapters.kubernetes.verdict import away, judged
from rotator.adapters.kubernetes.wire import JSON, OK, UNAUTHORIZED, Reply
from rotator.core.model import Reason

_CONNECT_SECONDS: Final = 5.0
_WORD: Final = re.compile(r"[^\s\"'=,:;{}?&]+")
_HEADERS: Final = {
    "Accept": JSON,
    # Kubernetes 1.37 compresses a watch with bookmarks if it may, and then holds the events back until some have come.
    "Accept-Encoding": "identity",
    "User-Agent": f"rotator/{VERSION}",
}
# Beside httpx's own: a token file or an exec plugin that fails, a client that was closed, JSON that is none.
_FAILURES: Final = (httpx.HTTPError, httpx.InvalidURL, NoToken, OSError, RuntimeError, ValueError)


class KubernetesClient:
    """Implements `rotator.adapters.kubernetes.wire.Api`; thread-safe.

    The configuration is read when it is first needed. It is read again, and the request repeated once, when the API
    server does not know us or we do not know it: token, client certificate or CA may have been replaced (case H4).
    """

    def __init__(self, environ: Mapping[str, str], mount: Path = MOUNT) -> None:
        """Take the environment and the place of the pod's service account. Nothing is read or sent yet."""
        self._environ = environ
        self._mount = mount
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._old: list[Connection] = []
        self._watches: set[socket.socket] = set()
        self._closed = False

    def namespace(self) -> str:
        """Return the pod's own namespace or the kubeconfig's; empty if nothing is configured."""
        try:
            return self._connect().namespace
        except Unconfigured:
            return ""

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
        """Make one request; see `wire.Api`."""
        reply = Reply(0, {})
        for last in (False, True):
            try:
                connection = self._connect()
            except Unconfigured as error:
                return Reply(0, {}, str(error), Reason.BAD_INPUT, delivered=False)
            try:
                answer = connection.http.request(
                    method,
                    connection.server + path,
                    params=query,
                    content=None if body is None else json.dumps(body),
                    headers={"Content-Type": content_type, **_HEADERS},
                    timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
                )
                reply = judged(answer, method, path, _hidden(body))
            except _FAILURES as error:
                reply = away(error, connection.server)
            if last or not (reply.status == UNAUTHORIZED or reply.reason is Reason.TLS):
                break
            self._forget(connection)  # nothing was done
        return reply

    def watch(self, path: str, query: Mapping[str, str], *, timeout: float) -> Iterator[Mapping[str, Any]]:
        """Yield a watch's events until it ends; see `wire.Api`. `close` ends it."""
        try:
            connection = self._connect()
        except Unconfigured as error:
            yield _failed(Reply(0, {}, str(error)))
            return
        limits = httpx.Timeout(timeout, connect=_CONNECT_SECONDS)
        try:
            with (
                connection.http.stream(
                    "GET", connection.server + path, params={**query, "watch": "true"}, headers=_HEADERS, timeout=limits
                ) as answer,
                self._cancellable(answer),
            ):
                if answer.status_code == OK:
                    yield from map(_event, answer.iter_lines())
                    return
                answer.read()
                reply = judged(answer, "GET", path, ())
        except _FAILURES as error:
            reply = away(error, connection.server)
        if reply.status == UNAUTHORIZED or reply.reason is Reason.TLS:
            self._forget(connection)
        yield _failed(reply)

    @contextlib.contextmanager
    def _cancellable(self, answer: httpx.Response) -> Iterator[None]:
        line: socket.socket = answer.extensions["network_stream"].get_extra_info("socket")
        with self._lock:
            self._watches.add(line)
            if self._closed:
                _cut(line)
        try:
            yield
        finally:
            with self._lock:
                self._watches.discard(line)

    def close(self) -> None:
        """End every watch and close the connections; nothing is sent any more."""
        with self._lock:
            self._closed = True
            for line in self._watches:
                _cut(line)
            connections = [*self._old, *([self._connection] if self._connection else [])]
            self._connection, self._old = None, []
        for connection in connections:
            connection.http.close()

    def _connect(self) -> Connection:
        with self._lock:
            if self._closed:
                raise Unconfigured("Kubernetes: rotator is stopping")
            if self._connection is None:
                self._connection = connect(self._environ, self._mount)
            return self._connection

    def _forget(self, connection: Connection) -> None:
        """Read the configuration anew next time. Others may still use the old connection, but not for long."""
        with self._lock:
            if self._connection is connection:
                while self._old:
                    self._old.pop().http.close()
                self._old.append(connection)
                self._connection = None


def _cut(line: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        # SSLSocket.shutdown would first turn the socket into one that sends plain text.
        socket.socket.shutdown(line, socket.SHUT_RDWR)


def _hidden(body: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return what a text about this request must not show: the words in the data of a Secret, coded and plain."""
    coded = [str(value) for value in ((body or {}).get("data") or {}).values()]
    plain = (base64.b64decode(value, validate=False).decode(errors="replace") for value in coded)
    return (*coded, *(word for text in plain for word in _WORD.findall(text)))


def _event(line: str) -> Mapping[str, Any]:
    event = json.loads(line)
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise ValueError("no event of a watch")  # noqa: TRY004 - as from json
    return event


def _failed(reply: Reply) -> Mapping[str, Any]:
    return {"type": "ERROR", "object": {"code": reply.status, "message": reply.text}}
