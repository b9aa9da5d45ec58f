"""The token endpoint over HTTP: one form out, one `Answer` back, whatever happens on the wire.

The only module that imports httpx and tenacity. httpx is used below its client, at the transport:
no redirects, no cookies, no settings from the environment, one request out for one request in,
HTTP/1.1 only (cases F5, F6, F20). What an HTTP answer means is `core.grant.classify`'s business;
what the lack of one means is decided here, by a table.
"""

import base64
import contextlib
import encodings.idna  # noqa: F401 - needed by the first request: read now, while files can be opened
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final
from urllib.parse import quote_plus, urlencode
from urllib.request import getproxies, proxy_bypass

import httpcore  # noqa: F401 - httpx would import it at the first request, as idna
import httpx
import tenacity

from rotator.adapters.endpoint.failures import CURES, verdict
from rotator.adapters.endpoint.lines import IDLE_SECONDS, HeldBack, Line, Lines
from rotator.adapters.endpoint.refusals import Refusals
from rotator.adapters.endpoint.settings import EndpointSettings
from rotator.adapters.endpoint.trust import Contexts, Notify, TlsFiles
from rotator.core.grant import classify, scrub
from rotator.core.model import (
    Answer,
    ClientAuthentication,
    Granted,
    Reason,
    TokenRequest,
    Unavailable,
)
from rotator.ports import Problem

__all__ = ["EndpointSettings", "HttpTokenEndpoint", "Network", "probe"]

BODY_LIMIT: Final = 1 << 20
"""Bytes of an answer that are read; token answers are a few thousand."""
ATTEMPTS: Final = 3
ROUND_SECONDS: Final = 8.0
"""No repetition starts later than this: longer waits are the schedule's (cases E14, E18)."""

_REPEATED: Final = frozenset({Reason.DNS, Reason.CONNECT})
_SHOWN_FIELDS: Final = frozenset({"grant_type", "scope", "audience", "resource"})
"""Fields that hold no secret; any other, `extra` included, may, and is hidden where a server echoes it."""


class Network:
    """What all endpoints of a process share: connections, deadlines, TLS contexts, refused clients."""

    def __init__(self) -> None:
        self.lines: Lines[httpx.HTTPTransport] = Lines()
        self.contexts = Contexts()
        self.refusals = Refusals()
        self.plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # for http://: trusts nobody, costs nothing

    def abort_all(self) -> None:
        """Cut every request short: the drain has lasted long enough."""
        self.lines.abort()

    def close(self) -> None:
        """Close the connections; requests still running close theirs when they end."""
        self.lines.close_idle()


def _ignore(_event: str, _text: str) -> None:
    """Tell nobody."""


class HttpTokenEndpoint:
    """One token endpoint as one client sees it; implements `ports.TokenEndpoint`.

    Credentials with equal settings should share one. `wall` tells the wall clock's instant; once
    `stopping` is set nothing is waited for or repeated, and a request in flight goes on to its end.
    Raises ValueError, with a line for people, if a URL in the settings is none.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        wall: Callable[[], float],
        stopping: threading.Event,
        notify: Notify = _ignore,
        network: Network | None = None,
    ) -> None:
        self._settings = settings
        self._wall = wall
        self._stopping = stopping
        self._notify = notify
        self._network = network or Network()
        self._url = _url(settings.token_url, "token_url")
        self._tls = TlsFiles(settings.ca_file, settings.client_certificate, settings.client_key)
        self._proxy, self._proxy_secrets = _proxy(settings, self._url)
        way = self._proxy and (self._proxy.url, self._proxy.raw_auth)
        self._line = (way, self._url.scheme, self._url.netloc)
        self._client = (settings.token_url, settings.client_id)
        self._headers = [
            (b"Host", self._url.netloc),
            (b"Accept", b"application/json"),  # GitHub answers a form without it (case A39)
            (b"Content-Type", b"application/x-www-form-urlencoded"),
            (b"User-Agent", settings.user_agent.encode()),
        ]
        limit = settings.read_timeout
        self._timeouts = {
            "connect": settings.connect_timeout,
            "read": limit,
            "write": limit,
            "pool": limit,
        }
        self._repeat = tenacity.Retrying(
            retry=tenacity.retry_if_result(_repeatable),
            stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_when_event_set(stopping) | _TooLate(),
            wait=_wait,
            sleep=tenacity.sleep_using_event(stopping),
            retry_error_callback=_last_answer,
        )

    @property
    def place(self) -> str:
        """Host and port, for messages."""
        return _place(self._url)

    def identity(self) -> str:
        """Return where and as whom is asked; see `ports.TokenEndpoint.identity`."""
        secret = self._settings.client_secret() if self._settings.client_secret else ""
        return self._identity(secret)

    def _identity(self, secret: str | Problem) -> str:
        certificate = self._settings.client_certificate
        shown = b""
        if certificate is not None:
            with contextlib.suppress(OSError):  # making the TLS context will say so
                shown = certificate.read_bytes()
        return repr((*self._client, self._settings.authentication, secret, shown))

    def request(self, request: TokenRequest, secrets: tuple[str, ...]) -> Answer:
        """Send the form; see `ports.TokenEndpoint.request`."""
        started = time.monotonic()
        deadline = started + self._settings.total_timeout
        answers = [self._attempt(request, secrets, deadline)]
        if not _repeatable(answers[0]):
            return answers[0]
        made = answers.copy()  # what tenacity takes for its first attempt

        def attempt(_latest: float) -> Answer:
            if made:
                return made.pop()
            if not self._stopping.is_set():  # else it was stopping that ended the wait
                answers.append(self._attempt(request, secrets, deadline))
            return answers[-1]

        self._repeat(attempt, min(started + ROUND_SECONDS, deadline))
        return answers[-1]

    def close(self) -> None:
        """Close idle connections. Not needed if the network is shared and closed."""
        self._network.close()

    def _attempt(self, request: TokenRequest, secrets: tuple[str, ...], deadline: float) -> Answer:
        secret = self._settings.client_secret() if self._settings.client_secret else ""
        if isinstance(secret, Problem):
            return Unavailable(secret.reason, delivered=False, text=secret.text)
        context = self._network.plain
        if self._url.scheme == "https":
            found = self._network.contexts.get(self._tls, self._notify)
            if isinstance(found, Problem):
                return Unavailable(found.reason, delivered=False, text=found.text)
            context = found
        identity, refusals = self._identity(secret), self._network.refusals
        if (refused := refusals.standing(identity, request.fields, request.refused_wait)) is not None:
            return refused
        if not self._network.lines.turn((self._client, request.fields), self._stopping):
            return Unavailable(Reason.INTERRUPTED, delivered=False, text="rotator is stopping")
        headers, fields, hidden = self._authenticated(request, secret)
        answer = self._exchange(context, headers, urlencode(fields).encode(), deadline, request.held_back)
        if isinstance(answer, Granted):
            refusals.note(identity, request.fields, answer)
            return answer
        told = (value for key, value in request.fields if key not in _SHOWN_FIELDS)
        text = scrub(answer.text, (*secrets, *hidden, *told, *self._proxy_secrets))
        if answer.status is not None and answer.reason is not Reason.REDIRECT:
            text = f"{self.place} answered {answer.status}{text and ': '}{text}"
        answer = replace(answer, text=text)
        refusals.note(identity, request.fields, answer)
        return answer

    def _authenticated(
        self, request: TokenRequest, secret: str
    ) -> tuple[list[tuple[bytes, bytes]], tuple[tuple[str, str], ...], tuple[str, ...]]:
        """Return headers and form with RFC 6749 section 2.3.1 done to them, and what to hide."""
        client_id, style = self._settings.client_id, self._settings.authentication
        if style in (ClientAuthentication.BASIC, ClientAuthentication.BASIC_RAW):
            # The RFC wants both parts form-encoded first; many servers do not undo that (case K4).
            first, second = (client_id, secret)
            if style is ClientAuthentication.BASIC:
                first, second = quote_plus(first), quote_plus(second)
            basic = base64.b64encode(f"{first}:{second}".encode())
            headers = [*self._headers, (b"Authorization", b"Basic " + basic)]
            return headers, request.fields, (secret, basic.decode())
        fields = request.fields
        if client_id:
            fields = (*fields, ("client_id", client_id))
        if secret and style is ClientAuthentication.POST:
            fields = (*fields, ("client_secret", secret))
        return self._headers, fields, (secret,)

    def _exchange(
        self,
        context: ssl.SSLContext,
        headers: list[tuple[bytes, bytes]],
        form: bytes,
        deadline: float,
        held_back: Callable[[], Unavailable | None] | None,
    ) -> Answer:
        """Carry out one HTTP exchange. The line comes back closed unless all went well."""
        key = (context, self._line)
        lines = self._network.lines
        line = lines.take(key, lambda: self._transport(context), deadline)
        line.held_back = held_back
        usable = False
        response: httpx.Response | None = None
        parts: list[bytes] = []
        try:
            sent = httpx.Request(
                "POST",
                self._url,
                headers=[*headers, (b"Content-Length", b"%d" % len(form))],
                stream=httpx.ByteStream(form),
                extensions={"timeout": self._timeouts, "trace": line.trace},
            )
            response = line.transport.handle_request(sent)
            try:
                whole = _read(response, parts)
            finally:
                response.close()
            if line.aborted:  # a body without a length seems to end there
                raise httpx.ReadError("cut short")
            usable = whole
        except HeldBack as held:
            return held.why
        except (httpx.RequestError, OSError, ValueError) as error:  # the last: a host that is no host name
            return self._rescued(response, parts) or self._failed(error, line)
        finally:
            lines.give_back(key, line, usable=usable)
        if not whole and response.is_success:
            text = f"more than {BODY_LIMIT} bytes; {CURES[Reason.UNREADABLE_ANSWER]}"
            return Unavailable(Reason.UNREADABLE_ANSWER, delivered=True, status=response.status_code, text=text)
        return self._classified(response, parts)

    def _classified(self, response: httpx.Response, parts: list[bytes]) -> Answer:
        body, url = b"".join(parts), self._settings.token_url
        return classify(response.status_code, response.headers, body, self._wall(), url)

    def _rescued(self, response: httpx.Response | None, parts: list[bytes]) -> Granted | None:
        """Return the pair of an answer that broke off after it (invariant 2): its refresh token may be the only one.

        JSON shows by its last brace that no token in it was cut; a form does not.
        """
        if response is None:
            return None
        answer = self._classified(response, parts)
        return answer if isinstance(answer, Granted) and not answer.form_encoded else None

    def _transport(self, context: ssl.SSLContext) -> httpx.HTTPTransport:
        one = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_SECONDS)
        return httpx.HTTPTransport(verify=context, trust_env=False, http2=False, limits=one, proxy=self._proxy)

    def _failed(self, error: Exception, line: Line[httpx.HTTPTransport]) -> Unavailable:
        """Say what a failure without an HTTP answer means."""
        reason, delivered, what = verdict(error, sent=line.sent)
        if line.aborted:
            over = line.deadline <= time.monotonic()
            what = f"no whole answer within {self._settings.total_timeout:g} s" if over else "rotator is stopping"
            if delivered:
                reason = Reason.READ_TIMEOUT if over else Reason.INTERRUPTED
        elif reason is Reason.READ_TIMEOUT:
            what = f"no answer within {self._settings.read_timeout:g} s"
        if self._proxy and not delivered and reason is not Reason.TLS:
            place = f"proxy {_place(self._proxy.url)}"
            reason = Reason.PROXY if reason is Reason.CONNECT else reason
        else:
            place = self.place
        return Unavailable(reason, delivered, text=f"{place}: {what}; {CURES[reason]}")


def _read(response: httpx.Response, parts: list[bytes]) -> bool:
    """Add the decoded body to `parts`, up to the limit; tell whether that was all of it."""
    size = 0
    encoded = "content-encoding" in response.headers  # which it is not asked to be
    stream = response.iter_bytes() if encoded else response.stream
    assert isinstance(stream, Iterable)  # noqa: S101 - a synchronous transport streams synchronously
    for part in stream:
        parts.append(part)
        size += len(part)
        if size > BODY_LIMIT:
            return False
    return True


def _repeatable(answer: Answer) -> bool:
    """Tell whether another try within seconds is safe and has hope (invariant 6, case E6)."""
    if not isinstance(answer, Unavailable) or answer.delivered:
        return False
    if answer.reason in (Reason.RATE_LIMITED, Reason.UNAVAILABLE):
        return answer.retry_after is not None  # a long one ends the round
    return answer.reason in _REPEATED


def _wait(state: tenacity.RetryCallState) -> float:
    """Return seconds to wait: what the server asked for, at least 1 and 2 s."""
    answer = _last_answer(state)
    asked = answer.retry_after if isinstance(answer, Unavailable) else None
    return max(float(state.attempt_number), asked or 0.0)


class _TooLate(tenacity.stop.stop_base):
    """Ends a round whose next try would begin after the instant that the round was started with.

    tenacity's own limit counts from the second try, for the first one is made without it.
    """

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        latest: float = retry_state.args[0]
        return time.monotonic() + retry_state.upcoming_sleep > latest


def _last_answer(state: tenacity.RetryCallState) -> Answer:
    assert state.outcome is not None  # noqa: S101 - tenacity asks after an attempt only
    answer: Answer = state.outcome.result()
    return answer


def _place(url: httpx.URL) -> str:
    return f"{url.host}:{url.port or {'https': 443}.get(url.scheme, 80)}"


def _url(text: str, key: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):  # no "from": the text may hold a password
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{key} is no URL: it must look like https://host/path")
    return url


def _proxy(settings: EndpointSettings, url: httpx.URL) -> tuple[httpx.Proxy | None, tuple[str, ...]]:
    """Return the proxy and its secrets; the environment counts only on request (case F13)."""
    text, key = settings.proxy, "proxy"
    if text is None and settings.use_environment_proxies and not proxy_bypass(url.host):
        text, key = getproxies().get(url.scheme), f"{url.scheme}_proxy"
    if not text:
        return None, ()
    parsed = _url(text if "://" in text else f"http://{text}", key)
    return httpx.Proxy(parsed), tuple(part for part in (parsed.username, parsed.password) if part)


def probe(settings: EndpointSettings) -> tuple[Problem | None, str]:
    """Find out whether the token endpoint can be reached: name, connection, TLS, one request.

    The request holds neither a token nor a client, so it spends nothing; a 4xx is the good answer.
    Returns the problem, if any, and one line that says how far it went.
    """
    bare = replace(settings, client_id="", client_secret=None, authentication=ClientAuthentication.NONE)
    network = Network()
    try:
        endpoint = HttpTokenEndpoint(bare, time.time, threading.Event(), network=network)
        answer = endpoint.request(TokenRequest(()), ())
    finally:
        network.close()
    if isinstance(answer, Granted):
        return None, f"{endpoint.place} can be reached"
    if answer.status is None or isinstance(answer, Unavailable) or answer.status in (404, 405, 410):
        text = answer.text or f"{endpoint.place} answered {answer.status}"
        return Problem(answer.reason, text), text
    return None, f"{endpoint.place} can be reached: it answered {answer.status} to an empty request"
