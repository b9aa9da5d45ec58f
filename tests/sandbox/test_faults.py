"""Faults: what they look like from outside, and whether the rotation was committed."""

import contextlib
import socket
import threading
import time

import httpx
import pytest

from rotator.sandbox.odd import CONNECTION_FAULTS, FAULTS, REFUSAL_ODDITIES
from tests.process.rig import PATIENCE, wait_until
from tests.sandbox.conftest import Customer

STRIKING = [*FAULTS, *REFUSAL_ODDITIES, *(name for name in CONNECTION_FAULTS if name not in {"half", "hang"})]


def strike(customer: Customer, refresh_token: str) -> None:
    """Refresh, whatever comes of it."""
    with contextlib.suppress(httpx.TransportError):
        customer.refresh(refresh_token)


@pytest.mark.parametrize("fault", STRIKING)
def test_fault_before_spends_nothing(customer: Customer, fault: str) -> None:
    """A fault strikes before anything was done: the same refresh token works afterwards."""
    pair = customer.login()
    customer.sandbox.script([fault])
    strike(customer, pair["refresh_token"])
    customer.granted(customer.refresh(pair["refresh_token"]))
    assert customer.books.token_requests == {"granted": 2, fault: 1}
    assert customer.books.replays_outside_grace == 0


@pytest.mark.parametrize("fault", [*STRIKING, "half"])
def test_fault_after_loses_the_pair(customer: Customer, fault: str) -> None:
    """B12: with `after:` the rotation is committed and the answer lost: the same refresh token counts as used."""
    pair = customer.login()
    customer.sandbox.script([f"after:{fault}"])
    strike(customer, pair["refresh_token"])
    assert customer.refused(customer.refresh(pair["refresh_token"])) == (400, "invalid_grant")
    assert customer.books.token_requests == {"granted": 1, f"after:{fault}": 1, "invalid_grant": 1}
    assert (customer.books.refresh_grants, customer.books.replays_outside_grace) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "body"),
    [
        ("500", 500, "text/plain", b"Internal Server Error"),
        ("502_html", 502, "text/html", b"<html>"),
        ("502_empty", 502, "", b""),
        ("503", 503, "text/html", b"<html>"),
        ("429", 429, "application/json", b"{"),
        ("403", 403, "application/json", b"{"),
        ("301", 301, "text/html", b"<html>"),
        ("200_error", 200, "application/json", b'{"error": "bad_refresh_token"'),
        ("200_text", 200, "text/plain", b"Exception"),
        ("200_empty", 200, "", b""),
        ("invalid_client", 401, "application/json", b'{"error": "invalid_client"'),
    ],
)
def test_faults_look_real(customer: Customer, fault: str, status: int, content_type: str, body: bytes) -> None:
    """A29, A35, A37, E12, E13, F20: each fault has its status, type and body, and no Retry-After."""
    customer.sandbox.script([fault])
    answer = customer.post()
    assert answer.status_code == status
    assert answer.content.startswith(body)
    assert bool(answer.content) == bool(body)
    if body:
        assert answer.headers["content-type"].startswith(content_type)
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("fault", ["429_retry_after", "503_retry_after"])
def test_retry_after(customer: Customer, fault: str) -> None:
    """E15: Retry-After is whatever the switch says, seconds, a date or garbage."""
    for value in ("7", "Fri, 15 Jan 2027 08:00:00 GMT", "soon", "-1"):
        customer.sandbox.change(fault=fault, retry_after=value)
        assert customer.post().headers["retry-after"] == value


def test_dropped_connection(customer: Customer) -> None:
    """F1: `drop` closes the connection in order, without a byte."""
    customer.sandbox.script(["drop"])
    assert _raw_exchange(customer) == b""


def test_reset_connection(customer: Customer) -> None:
    """`reset` resets the connection, without a byte."""
    customer.sandbox.script(["reset"])
    with pytest.raises(ConnectionResetError):
        _raw_exchange(customer)


def test_half_an_answer(customer: Customer) -> None:
    """`half` sends the headers and half of the body that they promise, then closes."""
    pair = customer.login()
    customer.sandbox.script(["half"])
    form = f"grant_type=refresh_token&refresh_token={pair['refresh_token']}"
    head, _, body = _raw_exchange(customer, form).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    promised = next(int(line.split()[1]) for line in head.splitlines() if line.lower().startswith(b"content-length"))
    assert len(body) == promised // 2 > 0


def _raw_exchange(customer: Customer, form: str = "") -> bytes:
    """Send one request by hand and return every byte until the end of the connection."""
    form += "&client_id=sandbox-client&client_secret=sandbox-secret"
    with socket.create_connection(
        (customer.http.base_url.host, customer.http.base_url.port or 0), timeout=PATIENCE
    ) as conn:
        conn.sendall(
            b"POST /v2/token HTTP/1.1\r\nHost: sandbox\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            + f"Content-Length: {len(form)}\r\n\r\n{form}".encode()
        )
        received = b""
        while chunk := conn.recv(65_536):
            received += chunk
        return received


@pytest.mark.parametrize(("step", "grants_while_hanging"), [("hang", 0), ("after:hang", 1)])
def test_hanging_until_a_switch_is_turned(customer: Customer, step: str, grants_while_hanging: int) -> None:
    """A hanging request is answered when a switch is turned; `after:` commits before it hangs."""
    pair = customer.login()
    customer.sandbox.script([step])
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(customer.refresh(pair["refresh_token"])))
    thread.start()
    wait_until(lambda: not customer.sandbox.script_left, "the request has met its fate")
    wait_until(lambda: customer.books.refresh_grants == grants_while_hanging, "all was done but the answer")
    thread.join(0.1)
    assert thread.is_alive()
    assert customer.books.refresh_grants == grants_while_hanging
    customer.sandbox.change()
    thread.join(PATIENCE)
    customer.granted(answers[0])


def test_client_that_leaves_a_hanging_request(customer: Customer) -> None:
    """A client that gives up while its request hangs has spent nothing, and the request is forgotten."""
    pair = customer.login()
    customer.sandbox.script(["hang"])
    with pytest.raises(httpx.ReadTimeout):
        customer.http.post(
            "/v2/token",
            data={"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]},
            timeout=0.1,
        )
    deadline = time.monotonic() + PATIENCE
    while not customer.books.token_requests["hang"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert customer.books.token_requests["hang"] == 1
    customer.granted(customer.refresh(pair["refresh_token"]))


def test_latency(customer: Customer) -> None:
    """An answer takes as long as the switch says."""
    customer.sandbox.change(latency_seconds=0.2)
    began = time.monotonic()
    customer.login()
    assert time.monotonic() - began >= 0.2


def test_share_of_faults(customer: Customer) -> None:
    """About the wanted share of the requests is struck, and the choice is repeatable."""
    customer.sandbox.change(fault="503", fault_ratio=0.25)
    for _ in range(200):
        customer.post()
    assert customer.books.token_requests["503"] == pytest.approx(50, abs=20)


def test_script_goes_before_the_switches(customer: Customer) -> None:
    """Scripted steps are met in order, each by one request; then the switches hold again."""
    customer.sandbox.change(fault="503")
    customer.sandbox.script(["429", "ok", "token_type_lower"])
    pair = customer.login
    assert customer.post().status_code == 429
    assert pair()["token_type"] == "Bearer"
    assert customer.sandbox.script_left == ["token_type_lower"]
    assert pair()["token_type"] == "bearer"
    assert customer.post().status_code == 503
