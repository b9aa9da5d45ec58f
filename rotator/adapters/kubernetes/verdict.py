"""What an API server's answer means, or the lack of one: the reason, a line for people, when to try again."""

import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import httpx

from rotator.adapters.kubernetes.rules import right_of, rule
from rotator.adapters.kubernetes.wire import BAD_REQUEST, CREATED, OK, SERVER_ERROR, Reply
from rotator.core.grant import scrub
from rotator.core.model import Reason

SLOWLY: Final = 300.0
"""Seconds until the next try of what only a person can mend."""
_REASONS: Final = {
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    409: Reason.CONFLICT,
    413: Reason.TOO_LARGE,
    429: Reason.RATE_LIMITED,
    503: Reason.UNAVAILABLE,
}
_CURES: Final = {
    Reason.UNAUTHORIZED: "it does not know this service account's token: see that the account exists and its token is "
    "mounted",
    Reason.TOO_LARGE: "a Secret holds 1 MiB at most: publish less in it",
    Reason.IMMUTABLE: "what is immutable stays so: delete the Secret, and it is made anew",
    Reason.HTTP_5XX: "it may have been carried out; see the API server and its etcd",
}
_BY_A_PERSON: Final = frozenset({Reason.FORBIDDEN, Reason.TOO_LARGE, Reason.IMMUTABLE, Reason.REJECTED})


def judged(answer: httpx.Response, method: str, path: str, hidden: Iterable[str]) -> Reply:
    """Judge an answer, whatever its status and body; what is `hidden` shows in no text."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.status_code in (OK, CREATED):
        if isinstance(body, Mapping):
            return Reply(answer.status_code, body)
        text = f"Kubernetes API: {answer.url.host} answers {method} with something that is no JSON: check the address"
        return Reply(0, {}, text, Reason.UNREADABLE_ANSWER)
    status: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    message = str(status.get("message") or answer.reason_phrase)
    reason = _reason(answer.status_code, message)
    cure = _cure(reason, path, message)
    text = f"Kubernetes API: {answer.status_code}: {scrub(message, hidden)}{f'; {cure}' if cure else ''}"
    wait = _seconds(answer.headers.get("Retry-After")) or (SLOWLY if reason in _BY_A_PERSON else None)
    return Reply(answer.status_code, status, text, reason, wait)


def _reason(status: int, message: str) -> Reason:
    if status in _REASONS:
        return _REASONS[status]
    if status >= SERVER_ERROR:
        return Reason.HTTP_5XX
    if status < BAD_REQUEST:  # redirects are never followed: a token would go along
        return Reason.REDIRECT
    if "immutable" in message:
        return Reason.IMMUTABLE
    return Reason.TOO_LARGE if "Too long: may not be" in message else Reason.REJECTED


def _cure(reason: Reason, path: str, message: str) -> str:
    right = right_of(path, message) if reason is Reason.FORBIDDEN else None
    if right is None:
        return _CURES.get(reason, "")
    return f"add to the Role in namespace {right.namespace}: {rule([right])}"


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isdecimal() else None


def away(error: Exception, server: str) -> Reply:
    """Judge a request that had no answer."""
    reason, what, delivered = _lack(error)
    return Reply(0, {}, f"Kubernetes API: {server}: {what}", reason, delivered=delivered)


def _lack(error: Exception) -> tuple[Reason, str, bool]:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            said = getattr(cause, "verify_message", None) or (cause.reason or "TLS failed").replace("_", " ").lower()
            return Reason.TLS, f"{said}: check the certificate authority in the kubeconfig or the pod", False
        if isinstance(cause, socket.gaierror):
            return (
                Reason.DNS,
                f"the name cannot be resolved ({cause.strerror}): check the address and the resolver",
                False,
            )
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        text = "no connection: see that the API server runs, and that no NetworkPolicy is in the way"
        return Reason.CONNECT, text, False
    if isinstance(error, httpx.TimeoutException):
        return Reason.READ_TIMEOUT, "no answer in time; it may have been carried out", True
    if isinstance(error, ValueError | httpx.RemoteProtocolError) and "disconnected" not in str(error):
        return Reason.UNREADABLE_ANSWER, "the answer is not that of an API server: check the address", True
    if not isinstance(error, httpx.TransportError):  # a token file, an exec plugin: nothing was sent
        return Reason.BAD_INPUT, " ".join(str(error).split()), False
    return Reason.CONNECTION_LOST, "the connection was lost; it may have been carried out", True


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
