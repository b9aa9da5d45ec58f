"""What it means when no HTTP answer came: the reason, and whether the request may have been carried out."""

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import httpx

from rotator.core.model import Reason

FAILURES: Final[dict[type[Exception], tuple[Reason, bool]]] = {
    # class: (reason, the request may have been carried out if its body had begun to leave)
    httpx.TransportError: (Reason.CONNECTION_LOST, True),
    httpx.TimeoutException: (Reason.READ_TIMEOUT, True),
    httpx.ConnectTimeout: (Reason.CONNECT, False),
    httpx.ReadTimeout: (Reason.READ_TIMEOUT, True),
    httpx.WriteTimeout: (Reason.CONNECTION_LOST, True),
    httpx.PoolTimeout: (Reason.LOCAL_RESOURCES, False),
    httpx.NetworkError: (Reason.CONNECTION_LOST, True),
    httpx.ConnectError: (Reason.CONNECT, False),
    httpx.ReadError: (Reason.CONNECTION_LOST, True),
    httpx.WriteError: (Reason.CONNECTION_LOST, True),
    httpx.CloseError: (Reason.CONNECTION_LOST, True),
    httpx.ProxyError: (Reason.PROXY, False),
    httpx.UnsupportedProtocol: (Reason.BAD_INPUT, False),
    httpx.ProtocolError: (Reason.UNREADABLE_ANSWER, True),
    httpx.LocalProtocolError: (Reason.BAD_INPUT, True),
    httpx.RemoteProtocolError: (Reason.UNREADABLE_ANSWER, True),
    httpx.DecodingError: (Reason.UNREADABLE_ANSWER, True),
}
"""What each httpx failure means (case F1); a test fails if httpx gains one that is not here."""

_OUR_LIMITS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})

CURES: Final = {
    Reason.DNS: "check the host in token_url and the resolver",
    Reason.CONNECT: "check token_url, the firewall and that the server runs",
    Reason.TLS: "check ca_file, the client certificate and the host in token_url",
    Reason.PROXY: "check proxy and what it allows",
    Reason.LOCAL_RESOURCES: "this machine is at its limit: raise LimitNOFILE, free memory",
    Reason.BAD_INPUT: "check token_url and the client's settings",
    Reason.READ_TIMEOUT: "it may have been carried out; if the server is slow, raise read_timeout",
    Reason.CONNECTION_LOST: "it may have been carried out; look for what closes connections",
    Reason.UNREADABLE_ANSWER: "it may have been carried out; check token_url",
    Reason.INTERRUPTED: "it is tried again at the next start",
}


def verdict(error: Exception, *, sent: bool) -> tuple[Reason, bool, str]:
    """Return reason, whether the request may have been carried out, and what happened.

    `sent`: the request's body had begun to leave. The operating system and OpenSSL know best, so what
    they said counts before httpx's class.
    """
    for cause in _causes(error):
        told = _undelivered(cause, sent=sent)
        if told:
            reason, what = told
            return reason, False, what
    reason, may_be_done = FAILURES.get(type(error), FAILURES[httpx.TransportError])
    what = (
        "no connection in time"
        if type(error) is httpx.ConnectTimeout
        else str(error).removesuffix(".") or type(error).__name__
    )
    if type(error) is httpx.RemoteProtocolError and ("disconnected" in what or "closed" in what):
        reason = Reason.CONNECTION_LOST
    if not sent and reason in (Reason.READ_TIMEOUT, Reason.CONNECTION_LOST, Reason.UNREADABLE_ANSWER):
        reason = Reason.CONNECT
    return reason, may_be_done and sent, what


def _undelivered(cause: BaseException, *, sent: bool) -> tuple[Reason, str] | None:
    """Return reason and words if this cause alone says that nothing was carried out."""
    if isinstance(cause, ssl.SSLError):
        alert = (cause.reason or "TLS failed").replace("_", " ").lower()
        # With TLS 1.3 a server's no to our certificate comes after our request, which it then never reads.
        if not sent or "certificate" in alert or "unknown ca" in alert:
            return Reason.TLS, getattr(cause, "verify_message", None) or alert
    elif sent:
        return None
    elif isinstance(cause, socket.gaierror):
        if (limit := _limit_reached()) is not None:  # the resolver hides that it could open nothing
            return Reason.LOCAL_RESOURCES, os.strerror(limit)
        return Reason.DNS, f"the name cannot be resolved ({cause.strerror})"
    elif isinstance(cause, UnicodeError):  # Python's own verdict on a label that is too long
        return Reason.DNS, "this cannot be a host's name"
    elif isinstance(cause, OSError) and cause.errno in _OUR_LIMITS:
        return Reason.LOCAL_RESOURCES, os.strerror(cause.errno)
    return None


def _limit_reached() -> int | None:
    """Return the errno if no file can be opened now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from an httpx error down to that of the operating system."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
