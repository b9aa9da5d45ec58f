"""The token endpoint over real sockets: what leaves, and what each way of failing means."""

import base64
import contextlib
import gzip
import json
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from itertools import count
from typing import Any
from urllib.parse import quote_plus, unquote_plus

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotator.adapters.endpoint import BODY_LIMIT, EndpointSettings, HttpTokenEndpoint, Network, probe
from rotator.adapters.endpoint.failures import CURES, FAILURES
from rotator.core.model import Answer, ClientAuthentication, Granted, Reason, Refused, TokenRequest, Unavailable
from rotator.ports import Problem, TokenEndpoint
from tests.adapters.wire import Peer, Script, Server, answering, dead_port
from tests.process.rig import PATIENCE
from tests.secrets_scan import planted, secrets_in

SECRET, REFRESH = planted("client-secret"), planted("refresh")
PAIR = {"access_token": planted("access"), "refresh_token": planted("new"), "expires_in": 3600}
BODY = json.dumps(PAIR).encode()
NUMBERS = count()


def form(refresh_token: str = "") -> TokenRequest:
    """Return a refresh request like no other, so that no floor applies to it."""
    token = refresh_token or f"{REFRESH}-{next(NUMBERS)}"
    return TokenRequest((("grant_type", "refresh_token"), ("refresh_token", token)))


class Client:
    """Makes endpoints that share a network, and closes it."""

    def __init__(self) -> None:
        self.network = Network()
        self.stopping = threading.Event()
        self.notices: list[tuple[str, str]] = []

    def endpoint(self, url: str, **options: Any) -> HttpTokenEndpoint:
        """Return an endpoint with these settings."""
        options = {"client_id": "rotator-test", "client_secret": lambda: SECRET, **options}
        configured = EndpointSettings(url, **options)
        return HttpTokenEndpoint(configured, time.time, self.stopping, self._notify, self.network)

    def request(self, url: str, request: TokenRequest | None = None, **options: Any) -> Answer:
        """Send one request."""
        return self.endpoint(url, **options).request(request or form(), ())

    def _notify(self, event: str, text: str) -> None:
        self.notices.append((event, text))


@pytest.fixture
def client() -> Generator[Client]:
    """Give a client whose connections are closed at the end."""
    client = Client()
    yield client
    client.network.abort_all()
    client.network.close()


@pytest.fixture
def final(client: Client) -> Client:
    """Give a client that repeats nothing, because it is stopping."""
    client.stopping.set()
    return client


def granted(answer: Answer) -> Granted:
    """Demand that an answer was granted."""
    assert isinstance(answer, Granted), answer
    return answer


def unavailable(answer: Answer) -> Unavailable:
    """Demand that an answer holds no verdict, one line of text and no secret."""
    assert isinstance(answer, Unavailable), answer
    assert answer.text
    assert "\n" not in answer.text
    assert not secrets_in(answer.text)
    return answer


# What leaves.


def test_the_adapter_keeps_the_port(client: Client) -> None:
    """HttpTokenEndpoint is a TokenEndpoint: type checkers see it here."""
    port: TokenEndpoint = client.endpoint("http://127.0.0.1:9/")

    assert callable(port.request)


def test_the_form_is_the_whole_request(client: Client) -> None:
    """A39 F5: one HTTP/1.1 POST with the form, Accept and User-Agent, and nothing of the environment's."""
    with Server(answering(BODY)) as server:
        answer = granted(client.request(f"{server.url}?tenant=7", form("r"), user_agent="rotator/1"))

    assert (answer.access_token, answer.refresh_token) == (PAIR["access_token"], PAIR["refresh_token"])
    (received,) = server.requests
    assert received.line == "POST /v2/token?tenant=7 HTTP/1.1"
    assert received.form == [
        ("grant_type", "refresh_token"),
        ("refresh_token", "r"),
        ("client_id", "rotator-test"),
        ("client_secret", SECRET),
    ]
    assert received.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "application/json",
        "content-type": "application/x-www-form-urlencoded",
        "user-agent": "rotator/1",
        "content-length": str(len(received.body)),
    }


ODD = "s3cret:/+ %&=ü"


@pytest.mark.parametrize(
    ("style", "authorization", "in_form"),
    [
        pytest.param(ClientAuthentication.POST, None, {"client_id": "a:b", "client_secret": ODD}, id="post"),
        pytest.param(ClientAuthentication.NONE, None, {"client_id": "a:b"}, id="none"),
        pytest.param(ClientAuthentication.BASIC, f"{quote_plus('a:b')}:{quote_plus(ODD)}", {}, id="basic"),
        pytest.param(ClientAuthentication.BASIC_RAW, f"a:b:{ODD}", {}, id="basic_raw"),
    ],
)
def test_the_client_authenticates_as_configured_and_no_other_way(
    client: Client, style: ClientAuthentication, authorization: str | None, in_form: dict[str, str]
) -> None:
    """C7 K4: each style is what its name says, and a refusal never makes rotator try another."""
    with Server(answering(b'{"error": "invalid_client"}', status="401 Unauthorized")) as server:
        answer = client.request(server.url, client_id="a:b", client_secret=lambda: ODD, authentication=style)

    assert isinstance(answer, Refused)
    assert answer.reason is Reason.INVALID_CLIENT
    (received,) = server.requests
    sent = received.headers.get("authorization")
    expected = authorization and "Basic " + base64.b64encode(authorization.encode()).decode()
    assert sent == expected
    assert dict(received.form[2:]) == in_form


@pytest.fixture(scope="module")
def echo() -> Generator[tuple[Server, HttpTokenEndpoint]]:
    """Give a server that grants everything, and its endpoint."""
    network = Network()
    with Server(answering(BODY)) as server:
        configured = EndpointSettings(server.url)
        yield server, HttpTokenEndpoint(configured, time.time, threading.Event(), network=network)
        network.close()


PRINTABLE = "".join(map(chr, range(32, 127)))


@given(value=st.just(PRINTABLE) | st.text(st.characters(codec="utf-8")), name=st.sampled_from(["refresh_token", "ü &"]))
@settings(max_examples=60, deadline=None)
def test_every_character_survives_the_form(echo: tuple[Server, HttpTokenEndpoint], value: str, name: str) -> None:
    """K3: all printable ASCII and UTF-8 arrive as they were, in every field."""
    server, endpoint = echo
    fields = (("nonce", str(next(NUMBERS))), (name, value))
    granted(endpoint.request(TokenRequest(fields), ()))

    assert server.requests[-1].form == list(fields)


@given(secret=st.just(PRINTABLE) | st.text(st.characters(codec="utf-8"), min_size=1))
@settings(max_examples=40, deadline=None)
def test_every_character_survives_basic_authentication(echo: tuple[Server, HttpTokenEndpoint], secret: str) -> None:
    """K3 K4: with `client_secret_basic` the server finds id and secret again by undoing what the RFC says."""
    server, _ = echo
    network = Network()
    configured = EndpointSettings(server.url, secret, lambda: secret, ClientAuthentication.BASIC)
    granted(HttpTokenEndpoint(configured, time.time, threading.Event(), network=network).request(form(), ()))
    network.close()

    basic = base64.b64decode(server.requests[-1].headers["authorization"].removeprefix("Basic ")).decode()
    assert [unquote_plus(part) for part in basic.split(":")] == [secret, secret]


def test_a_client_secret_is_read_before_each_request(client: Client) -> None:
    """K1 K8: a corrected secret is used by the next request; an unusable one sends none and says why."""
    problem = Problem(Reason.BAD_INPUT, "client_secret file secret.txt holds a control character: rewrite it")
    secrets: Iterator[str | Problem] = iter(["one", problem, "two"])
    with Server(answering(BODY)) as server:
        endpoint = client.endpoint(server.url, client_secret=lambda: next(secrets))
        answers = [endpoint.request(form(), ()) for _ in range(3)]

    assert [dict(received.form)["client_secret"] for received in server.requests] == ["one", "two"]
    assert answers[1] == Unavailable(Reason.BAD_INPUT, delivered=False, text=problem.text)


# What comes back.


def chunked(peer: Peer) -> None:
    """Answer in chunks of three bytes."""
    peer.read()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for start in range(0, len(BODY), 3):
        piece = BODY[start : start + 3]
        peer.send(b"%x\r\n" % len(piece), piece, b"\r\n")
    peer.send(b"0\r\n\r\n")


def old_http(peer: Peer) -> None:
    """Answer as HTTP/1.0 does: no length, close at the end."""
    peer.read()
    peer.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n", BODY)


def compressed(peer: Peer) -> None:
    """Answer with gzip, which was not asked for."""
    peer.read()
    peer.answer(gzip.compress(BODY), "200 OK", "Content-Encoding: gzip")


def after_continue(peer: Peer) -> None:
    """Answer after an interim answer."""
    peer.read()
    peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")
    peer.answer(BODY)


def byte_by_byte(peer: Peer) -> None:
    """Answer one byte at a time."""
    peer.read()
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY:
        peer.send(bytes([byte]))


@pytest.mark.parametrize("script", [chunked, old_http, compressed, after_continue, byte_by_byte])
def test_a_pair_arrives_in_every_framing(client: Client, script: Script) -> None:
    """A40: chunks, HTTP/1.0, gzip, interim answers and single bytes all deliver the pair."""
    with Server(script) as server:
        assert granted(client.request(server.url)).refresh_token == PAIR["refresh_token"]


def too_long_a_length(peer: Peer) -> None:
    """Name a length that the pair does not fill."""
    peer.read()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(BODY) + 7), BODY)


def no_last_chunk(peer: Peer) -> None:
    """Answer in one chunk and close before the one that says that it was the last."""
    peer.read()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY), BODY, b"\r\n")


def bad_last_chunk(peer: Peer) -> None:
    """Answer in one chunk, followed by what is none."""
    peer.read()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY), BODY, b"\r\nzz\r\n\r\n")


def no_length(peer: Peer) -> None:
    """Name no length, and leave the connection open."""
    peer.read()
    peer.send(b"HTTP/1.1 200 OK\r\n\r\n", BODY)
    peer.wait_for_close()


@pytest.mark.parametrize("script", [too_long_a_length, no_last_chunk, bad_last_chunk, no_length])
def test_a_whole_pair_is_kept_whatever_is_wrong_with_its_frame(client: Client, script: Script) -> None:
    """A37 A40: a pair that came whole is spent for, so an end of the answer that is missing does not cost it."""
    with Server(script) as server:
        assert granted(client.request(server.url, read_timeout=2.0)).refresh_token == PAIR["refresh_token"]
        assert server.connections == 1


@pytest.mark.parametrize("length", [b"", b"Content-Length: 900\r\n"], ids=["without-length", "with-length"])
def test_a_whole_pair_is_kept_when_its_time_is_over(client: Client, length: bytes) -> None:
    """L3: the deadline of the request as a whole ends the wait, and a whole pair that has come until then counts."""

    def drip(peer: Peer) -> None:
        peer.read()
        peer.send(b"HTTP/1.1 200 OK\r\n", length, b"\r\n", BODY)
        while not peer.server.over.wait(0.05):
            peer.send(b" ")

    with Server(drip) as server:
        assert granted(client.request(server.url, total_timeout=2.0)).refresh_token == PAIR["refresh_token"]


def test_what_our_own_deadline_cuts_is_not_taken_for_whole(client: Client) -> None:
    """L3: a body without a length seems to end where we cut it off; its last token may be half a one."""

    def drip(peer: Peer) -> None:
        peer.read()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\naccess_token=a&refresh_token=")
        while not peer.server.over.wait(0.05):
            peer.send(b"x")

    with Server(drip) as server:
        assert unavailable(client.request(server.url, total_timeout=0.5)).reason is Reason.READ_TIMEOUT


CUT_BODIES = [
    *(pytest.param(BODY[:length], id=f"json-{length}") for length in (1, 40, len(BODY) - 1)),
    pytest.param(b"access_token=abcdefgh&refresh_token=abcd", id="form"),  # nobody can tell that the token goes on
]


@pytest.mark.parametrize("begun", CUT_BODIES)
def test_a_token_that_may_be_cut_is_never_taken(client: Client, begun: bytes) -> None:
    """A37 B12: what came before the connection broke counts only if it is JSON and whole."""

    def cut(peer: Peer) -> None:
        peer.read()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", begun)

    with Server(cut) as server:
        answer = unavailable(client.request(server.url))

    assert (answer.reason, answer.delivered) == (Reason.CONNECTION_LOST, True)


def test_a_no_that_is_cut_off_is_no_verdict(client: Client) -> None:
    """A37: only a pair is worth taking from a broken answer; all else is asked again."""

    def cut(peer: Peer) -> None:
        peer.read()
        peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 900\r\n\r\n", b'{"error": "invalid_grant"}')

    with Server(cut) as server:
        assert unavailable(client.request(server.url)).reason is Reason.CONNECTION_LOST


def at_once(peer: Peer) -> None:
    """Close without reading: bytes that arrive later are answered by RST."""


def after_reading(peer: Peer) -> None:
    """Close after the request."""
    peer.read()


def with_reset(peer: Peer) -> None:
    """Reset the connection after the request."""
    peer.read()
    peer.reset()


def within_the_head(peer: Peer) -> None:
    """Close in the middle of a header."""
    peer.read()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")


def within_the_body(peer: Peer) -> None:
    """Close in the middle of the pair."""
    peer.read()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY), BODY[:40])


def too_short_a_length(peer: Peer) -> None:
    """Name a length that cuts the pair."""
    peer.read()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n", BODY)


def another_protocol(peer: Peer) -> None:
    """Speak something else."""
    peer.read()
    peer.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


def no_gzip(peer: Peer) -> None:
    """Promise gzip and send none."""
    peer.read()
    peer.answer(BODY, "200 OK", "Content-Encoding: gzip")


def endless_head(peer: Peer) -> None:
    """Send a header without an end."""
    peer.read()
    peer.send(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 200_000)


def huge(peer: Peer) -> None:
    """Send far more than any token answer, in valid JSON."""
    peer.read()
    body = json.dumps({**PAIR, "filler": "x" * (2 * BODY_LIMIT)}).encode()
    peer.answer(body)


def silence(peer: Peer) -> None:
    """Read the request and say nothing."""
    peer.read()
    peer.wait_for_close()


def silence_within_the_body(peer: Peer) -> None:
    """Begin to answer and stop."""
    peer.read()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")
    peer.wait_for_close()


FATES = [
    (at_once, Reason.CONNECTION_LOST),
    (after_reading, Reason.CONNECTION_LOST),
    (with_reset, Reason.CONNECTION_LOST),
    (within_the_head, Reason.CONNECTION_LOST),
    (within_the_body, Reason.CONNECTION_LOST),
    (too_short_a_length, Reason.UNREADABLE_ANSWER),
    (another_protocol, Reason.UNREADABLE_ANSWER),
    (no_gzip, Reason.UNREADABLE_ANSWER),
    (endless_head, Reason.UNREADABLE_ANSWER),
    (huge, Reason.UNREADABLE_ANSWER),
    (silence, Reason.READ_TIMEOUT),
    (silence_within_the_body, Reason.READ_TIMEOUT),
]


@pytest.mark.parametrize(("script", "reason"), FATES, ids=lambda value: getattr(value, "__name__", None))
def test_a_request_of_unknown_fate_is_told_as_such(client: Client, script: Script, reason: Reason) -> None:
    """A37 E6 F1 F3 B12: whatever breaks after the request left is ambiguous, and is sent once only."""
    with Server(script) as server:
        answer = unavailable(client.request(server.url, read_timeout=0.3))

    assert (answer.reason, answer.delivered) == (reason, True)
    assert server.connections == 1
    assert f"127.0.0.1:{server.port}" in answer.text


@pytest.mark.parametrize("drips_the_head", [True, False])
def test_a_dripping_server_meets_the_hard_deadline(client: Client, *, drips_the_head: bool) -> None:
    """L3 E18: a byte now and then keeps every single read alive, not the whole request."""

    def drip(peer: Peer) -> None:
        peer.read()
        peer.send(b"HTTP/1.1 200 OK\r\n" + (b"X: " if drips_the_head else b"Content-Length: 900\r\n\r\n"))
        while not peer.server.over.wait(0.05):
            peer.send(b"x")

    with Server(drip) as server:
        started = time.monotonic()
        answer = unavailable(client.request(server.url, total_timeout=0.5))

        assert time.monotonic() - started < 5
    assert (answer.reason, answer.delivered) == (Reason.READ_TIMEOUT, True)
    assert "within 0.5 s" in answer.text


def test_the_end_of_a_drain_cuts_requests_short(final: Client) -> None:
    """E16: `abort_all` ends a hanging request at once; its fate is unknown and the text says why."""
    answers: list[Answer] = []
    with Server(silence) as server:
        thread = threading.Thread(target=lambda: answers.append(final.request(server.url)))
        thread.start()
        assert server.has_request.wait(PATIENCE)
        final.network.abort_all()
        thread.join(PATIENCE)

    answer = unavailable(answers[0])
    assert (answer.reason, answer.delivered) == (Reason.INTERRUPTED, True)


def test_a_refused_connection_was_not_delivered(final: Client) -> None:
    """F1: nobody listens: nothing left, and the text names the place and the cure."""
    with dead_port() as port:
        answer = unavailable(final.request(f"http://127.0.0.1:{port}/"))

    assert (answer.reason, answer.delivered) == (Reason.CONNECT, False)
    assert answer.text == f"127.0.0.1:{port}: [Errno 111] Connection refused; {CURES[Reason.CONNECT]}"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64 + ".invalid"])
def test_an_unknown_name_is_told_from_a_dead_server(final: Client, host: str) -> None:
    """E21 E24: a name that does not resolve is not the server's fault."""
    answer = unavailable(final.request(f"http://{host}/"))

    assert (answer.reason, answer.delivered) == (Reason.DNS, False)
    assert answer.text.startswith(f"{host}:80: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_running_out_of_descriptors_is_our_own_fault(final: Client, host: str) -> None:
    """F12: EMFILE is reported as a local fault, also where the resolver hides it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endpoint = final.endpoint(f"http://{host}:9/")
    taken: list[int] = []
    answers: list[Answer] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            answers.append(endpoint.request(form(), ()))
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    answer = unavailable(answers[0])
    assert (answer.reason, answer.delivered) == (Reason.LOCAL_RESOURCES, False)


def test_every_failure_of_httpx_has_a_meaning() -> None:
    """F1 F2: all classes below httpx.TransportError, and decoding errors, are in the table."""

    def below(kind: type[Exception]) -> set[type[Exception]]:
        return {kind}.union(*(below(sub) for sub in kind.__subclasses__()))

    assert below(httpx.TransportError) | {httpx.DecodingError} == set(FAILURES)
    assert {reason for reason, _ in FAILURES.values()} <= set(CURES)


def test_a_form_that_may_not_leave_any_more_stays_here(client: Client) -> None:
    """C5: the question is asked once the connection stands; after a no, not a byte of the form is written."""
    heads: list[bytes | None] = []

    def script(peer: Peer) -> None:
        heads.append(peer._until(b"\r\n\r\n"))
        assert not peer._unread
        peer.wait_for_close()

    with Server(script) as server:
        asked: list[bool] = []

        def held_back() -> Unavailable:
            asked.append(True)
            return Unavailable(Reason.NOT_OWNER, delivered=False, text="the lease is over")

        answer = unavailable(client.request(server.url, replace(form(), held_back=held_back)))
        assert server.client_closed.wait(PATIENCE)

    assert (answer.reason, answer.delivered) == (Reason.NOT_OWNER, False)
    assert asked == [True]
    assert len(heads) == 1
    assert server.requests == []


def test_a_form_that_may_leave_leaves(client: Client) -> None:
    """C5: the question costs nothing, also on a connection that is used again."""
    with Server(answering(BODY, BODY)) as server:
        for _ in range(2):
            granted(client.request(server.url, replace(form(), held_back=lambda: None)))


def test_a_redirect_is_not_followed(client: Client) -> None:
    """F19 F20: one request, and a text that says what to set."""
    with Server(answering(status="301 Moved Permanently", headers=("Location: https://new.example/t",))) as server:
        answer = unavailable(client.request(server.url))

    assert answer.reason is Reason.REDIRECT
    assert answer.text == "token endpoint answered 301 to https://new.example/t; set token_url to https://new.example/t"
    assert len(server.requests) == 1


def test_a_redirect_within_the_server_names_the_whole_url(client: Client) -> None:
    """F19 F20: what the text says to set can be set as it stands."""
    with Server(answering(status="308 Permanent Redirect", headers=("Location: /v2/token/",))) as server:
        answer = unavailable(client.request(server.url))

    assert answer.text.endswith(f"; set token_url to http://127.0.0.1:{server.port}/v2/token/")


def test_a_server_that_echoes_secrets_is_scrubbed(client: Client) -> None:
    """J2 J5: refresh token, client secret, password, `extra` and authorization header never reach a text."""
    password = planted("password")
    request = TokenRequest(
        (("refresh_token", f"{REFRESH}+/="), ("password", password), ("api_key", planted("api-key")), ("pin", "8093"))
    )

    def echoes(peer: Peer) -> None:
        received = peer.read()
        assert received
        words = received.body.decode() + " " + received.headers.get("authorization", "")
        told = {"error": "invalid_grant", "error_description": f"{words} {REFRESH}+/= {planted('earlier')}"}
        peer.answer(json.dumps(told).encode(), "400 Bad Request")

    for style in ClientAuthentication:
        with Server(echoes) as server:
            endpoint = client.endpoint(server.url, authentication=style)
            answer = endpoint.request(replace(request, fields=(*request.fields, ("x", style))), (planted("earlier"),))

        assert isinstance(answer, Refused)
        assert answer.reason is Reason.INVALID_GRANT
        assert "***" in answer.text
        assert not secrets_in(answer.text), style
        assert "8093" not in answer.text
        assert answer.text.startswith(f"127.0.0.1:{server.port} answered 400: invalid_grant")


def test_what_is_no_secret_is_shown(client: Client) -> None:
    """J5: scope, audience and resource stay in a server's words: an operator needs them to mend the settings."""
    words = b'{"error": "invalid_scope", "error_description": "offline for https://api.example and https://of.example"}'
    named = (("scope", "offline"), ("audience", "https://api.example"), ("resource", "https://of.example"))
    with Server(answering(words, status="400 Bad Request")) as server:
        answer = client.request(server.url, replace(form(), fields=(*form().fields, *named)))

    assert isinstance(answer, Refused)
    assert answer.text.endswith("invalid_scope: offline for https://api.example and https://of.example")


# Connections.


def test_a_connection_is_reused_while_fresh_and_closed_when_idle(client: Client) -> None:
    """E23 F3 F9: a second request within two seconds shares the connection; then it is closed unasked."""

    def script(peer: Peer) -> None:
        for _ in range(2):
            peer.read()
            peer.answer(BODY)
        peer.wait_for_close()

    with Server(script) as server:
        endpoint = client.endpoint(server.url)
        granted(endpoint.request(form(), ()))
        granted(endpoint.request(form(), ()))
        assert server.connections == 1
        assert server.client_closed.wait(PATIENCE)


def test_a_connection_closed_by_the_server_is_not_used_again(client: Client) -> None:
    """F2 F3 F6: a keep-alive connection that a balancer closed costs no request."""
    closed = threading.Event()

    def once(peer: Peer) -> None:
        peer.read()
        peer.answer(BODY)
        peer.socket.close()
        closed.set()

    with Server(once) as server:
        endpoint = client.endpoint(server.url)
        for number in range(1, 4):
            granted(endpoint.request(form(), ()))
            assert closed.wait(PATIENCE)
            closed.clear()
            assert server.connections == number


@contextlib.contextmanager
def heard(event: str) -> Generator[list[tuple[Any, ...]]]:
    """Collect what this thread does of one kind, by an audit hook (Python gives no way to remove it)."""
    facts: list[tuple[Any, ...]] = []
    thread = threading.get_ident()
    armed = True

    def hear(name: str, arguments: tuple[Any, ...]) -> None:
        if armed and name == event and threading.get_ident() == thread:
            facts.append(arguments)

    sys.addaudithook(hear)
    yield facts
    armed = False


def test_every_connection_resolves_the_name_anew(client: Client) -> None:
    """E23 E24: there is no cache of names in the process, so a new address is found at once."""
    with Server(old_http) as server:
        endpoint = client.endpoint(f"http://localhost:{server.port}/")
        with heard("socket.getaddrinfo") as resolutions:
            for _ in range(3):
                granted(endpoint.request(form(), ()))

    assert [facts[0] for facts in resolutions] == ["localhost"] * 3


def test_endpoints_of_one_place_share_connections_but_not_clients(client: Client) -> None:
    """F7: two clients of one server use one connection, each with its own authentication."""
    with Server(answering(BODY)) as server:
        granted(client.request(server.url, client_id="one"))
        granted(client.request(server.url, client_id="two"))

    assert [dict(received.form)["client_id"] for received in server.requests] == ["one", "two"]
    assert server.connections == 1


def test_hundreds_of_requests_leave_nothing_behind(final: Client) -> None:
    """F7 F8 F9 F10 F11: good and bad requests from several threads: no descriptor, thread or memory stays."""
    good = answering(BODY)

    def mixed(peer: Peer) -> None:
        with server_lock:
            script = next(scripts)
        script(peer)

    server_lock = threading.Lock()
    scripts = (script for _ in count() for script in (good, after_reading, with_reset, within_the_body, old_http))
    with Server(mixed) as server:
        endpoint = final.endpoint(server.url, read_timeout=5.0)

        def some(number: int) -> None:
            threads = [
                threading.Thread(target=lambda: [endpoint.request(form(), ()) for _ in range(number)]) for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            endpoint.close()

        some(10)
        descriptors, before = _sockets_to(server.port), _resident()
        some(100)

        assert _sockets_to(server.port) == descriptors == 0
        assert _resident() - before < 8 << 20
        assert len(server.requests) >= 300


def _sockets_to(port: int) -> int:
    """Return how many connections of ours are open to a port, by the kernel's table."""
    with open("/proc/net/tcp", encoding="ascii") as table:  # noqa: PTH123 - a table, not a file
        rows = [line.split() for line in table][1:]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as memory:  # noqa: PTH123 - as above
        return int(memory.read().split()[1]) * resource.getpagesize()


# Repetition within the hop.


def in_turn(*answers: Callable[[Peer], None]) -> Script:
    """Return a script that gives each request its own answer, the last for ever."""
    left = list(answers)

    def script(peer: Peer) -> None:
        while peer.read():
            (left.pop(0) if len(left) > 1 else left[0])(peer)

    return script


def says(status: str, body: bytes = b"", *headers: str) -> Callable[[Peer], None]:
    """Return an answer."""
    return lambda peer: peer.answer(body, status, *headers)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_a_short_retry_after_is_waited_for(client: Client, status: str) -> None:
    """E14 E15: 429 or 503 with a short Retry-After was plainly not done, so it is repeated when asked."""
    with Server(in_turn(says(status, b"", "Retry-After: 1"), says("200 OK", BODY))) as server:
        granted(client.request(server.url))

    first, second = server.requests
    assert second.at - first.at >= 1
    assert second.form == first.form


FINAL_ANSWERS = [
    pytest.param("400 Bad Request", b'{"error": "invalid_grant"}', (), id="E6-invalid_grant"),
    pytest.param("401 Unauthorized", b'{"error": "invalid_client"}', (), id="E1-invalid_client"),
    pytest.param("502 Bad Gateway", b"", (), id="E13-empty-502"),
    pytest.param("503 Service Unavailable", b"", (), id="503-without-a-date"),
    pytest.param("429 Too Many Requests", b"", (), id="429-without-a-date"),
    pytest.param("429 Too Many Requests", b"", ("Retry-After: 86400",), id="E14-days"),
    pytest.param("429 Too Many Requests", b"", ("Retry-After: 1", "Retry-After: 60"), id="E15-two-headers"),
    pytest.param("200 OK", b"Exception, please retry", (), id="A37-text"),
    pytest.param("403 Forbidden", b"<html>", (), id="E12-firewall"),
]


@pytest.mark.parametrize(("status", "body", "headers"), FINAL_ANSWERS)
def test_nothing_else_is_repeated(client: Client, status: str, body: bytes, headers: tuple[str, ...]) -> None:
    """E1 E6 E13 E14: refusals, ambiguous answers and long waits go back to the schedule after one request."""
    with Server(answering(body, status=status, headers=headers)) as server:
        assert not isinstance(client.request(server.url), Granted)

    assert len(server.requests) == 1


def test_a_refused_connection_is_tried_again_within_seconds(client: Client) -> None:
    """E21: nothing can have been delivered, so a server that comes back is found in the same round."""
    with dead_port() as port, heard("socket.connect") as connects:
        started = time.monotonic()
        answer = unavailable(client.request(f"http://127.0.0.1:{port}/"))

    assert (answer.reason, answer.delivered) == (Reason.CONNECT, False)
    assert [facts[1] for facts in connects] == [("127.0.0.1", port)] * 3
    assert time.monotonic() - started < 15


def test_a_round_is_bounded(client: Client) -> None:
    """E18: a server that always says 'at once' gets three requests, and the caller an answer within seconds."""
    with Server(answering(status="429 Too Many Requests", headers=("Retry-After: 0",))) as server:
        started = time.monotonic()
        answer = unavailable(client.request(server.url))

    assert answer.reason is Reason.RATE_LIMITED
    assert len(server.requests) == 3
    assert time.monotonic() - started < 15


def test_a_first_try_that_took_long_is_not_repeated(client: Client) -> None:
    """E18: the time of the first try counts; the total timeout ends the round as well as each try."""
    with contextlib.ExitStack() as open_, heard("socket.connect") as connects:
        silent = open_.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # its queue is full: whoever comes now is not answered
            filler = open_.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        connects.clear()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        started = time.monotonic()
        answer = unavailable(client.request(url, connect_timeout=1.0, total_timeout=1.5))

        assert time.monotonic() - started < 5
    assert (answer.reason, answer.delivered) == (Reason.CONNECT, False)
    assert len(connects) == 1


class Stopping(threading.Event):
    """Tells when somebody has begun to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, and tell that this has begun."""
        self.waited_for.set()
        return super().wait(timeout)


def test_stopping_ends_a_wait_at_once(client: Client) -> None:
    """E16: a wait on a server's word ends within a second of being told to stop, without another request."""
    client.stopping = stopping = Stopping()
    answers: list[Answer] = []
    with Server(answering(status="429 Too Many Requests", headers=("Retry-After: 5",))) as server:
        thread = threading.Thread(target=lambda: answers.append(client.request(server.url)))
        thread.start()
        assert stopping.waited_for.wait(PATIENCE)
        thread.join(1.2)  # longer than the floor, which would hide a second request
        assert thread.is_alive()
        stopped = time.monotonic()
        stopping.set()
        thread.join(PATIENCE)

        assert time.monotonic() - stopped < 3  # of the five that the server asks for
    assert unavailable(answers[0]).reason is Reason.RATE_LIMITED
    assert len(server.requests) == 1


def test_two_calls_with_one_token_are_a_second_apart(client: Client) -> None:
    """E4: whatever the code path, the same refresh token is sent at most once a second; another need not wait."""
    with Server(answering(BODY)) as server:
        one, other = form(), form()
        for request in (one, other, one):
            granted(client.request(server.url, request))

    first, second, third = (received.at for received in server.requests)
    assert third - first >= 0.9
    assert second - first < third - second


def test_stopping_ends_the_wait_of_the_floor(client: Client) -> None:
    """E4 E16: a call that would have to wait for its turn is not made once we are stopping."""
    request = form()
    with Server(answering(BODY)) as server:
        granted(client.request(server.url, request))
        client.stopping.set()
        answer = unavailable(client.request(server.url, request))

    assert (answer.reason, answer.delivered) == (Reason.INTERRUPTED, False)
    assert len(server.requests) == 1


# Asking without spending.


def test_a_probe_spends_nothing() -> None:
    """The online check sends one empty form: no token, no client, and a refusal is the good answer."""
    with Server(answering(b'{"error": "invalid_request"}', status="400 Bad Request")) as server:
        found = probe(EndpointSettings(server.url, "client", lambda: SECRET, ClientAuthentication.BASIC))

    place = f"127.0.0.1:{server.port}"
    assert found == (None, f"{place} can be reached: it answered 400 to an empty request")
    (received,) = server.requests
    assert received.body == b""
    assert "authorization" not in received.headers


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("404 Not Found", Reason.OTHER_REFUSAL),
        ("302 Found", Reason.REDIRECT),
        ("502 Bad Gateway", Reason.HTTP_5XX),
        ("200 OK", Reason.UNREADABLE_ANSWER),
    ],
)
def test_a_probe_names_the_problem(status: str, reason: Reason) -> None:
    """The online check reports what would stop a refresh, with the place and the cure."""
    with Server(answering(b"<html>", status=status)) as server:
        problem, text = probe(EndpointSettings(server.url))

    assert problem is not None
    assert problem == Problem(reason, text)


@pytest.mark.parametrize("url", ["", "example.org/token", "ftp://example.org/", "http://", "http://[::1"])
def test_a_token_url_that_is_none_is_refused(client: Client, url: str) -> None:
    """A wrong URL is told in plain words when the endpoint is made."""
    with pytest.raises(ValueError, match=r"^token_url is no URL: it must look like https://host/path$"):
        client.endpoint(url)
