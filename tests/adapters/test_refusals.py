"""A client that was refused: who waits for whom, and what ends it at once."""

import threading
import time
from collections.abc import Generator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rotator.adapters.endpoint import EndpointSettings, HttpTokenEndpoint, Network
from rotator.adapters.endpoint.refusals import ENOUGH, Refusals
from rotator.core.model import Answer, Granted, Reason, Refused, TokenRequest
from tests.adapters.wire import Peer, Server
from tests.secrets_scan import planted

WAIT = 900.0
GRANTED = Granted("access", "refresh", {})
NUMBERS = count()


class Seconds:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        """Return the time it shows."""
        return self.at


@pytest.fixture
def clock() -> Seconds:
    """Give a clock."""
    return Seconds()


def refused(clock: Seconds, askers: int = ENOUGH, reason: Reason = Reason.INVALID_CLIENT) -> Refusals:
    """Return what is known once so many credentials of one client have been refused."""
    refusals = Refusals(clock)
    for asker in range(askers):
        refusals.note("client", asker, Refused(reason, 401, "no"))
    return refusals


@pytest.mark.parametrize("reason", [Reason.INVALID_CLIENT, Reason.UNAUTHORIZED_CLIENT])
def test_a_client_refused_for_some_is_refused_for_all(clock: Seconds, reason: Reason) -> None:
    """E1: a credential that has not asked yet is told what the others were, and when asking makes sense."""
    refusals = refused(clock, reason=reason)
    clock.at += 100

    assert refusals.standing("client", "another", WAIT) == Refused(reason, 401, "no", retry_after=WAIT - 100)
    assert refusals.standing("another client", "another", WAIT) is None


def test_one_credential_s_trouble_is_its_own(clock: Seconds) -> None:
    """E1: one that is refused again and again waits itself, and holds nobody else back."""
    refusals = refused(clock, askers=1)
    refusals.note("client", 0, Refused(Reason.INVALID_CLIENT, 401, "no"))

    assert refusals.standing("client", "another", WAIT) is None
    assert refusals.standing("client", 0, WAIT) is not None


def test_the_next_ones_find_out_when_the_time_is_over(clock: Seconds) -> None:
    """E1: after the wait some ask again; while they are refused the others go on waiting."""
    refusals = refused(clock)
    clock.at += WAIT
    assert refusals.standing("client", "another", WAIT) is None
    for asker in range(ENOUGH):
        assert refusals.standing("client", asker, WAIT) is None
        refusals.note("client", asker, Refused(Reason.INVALID_CLIENT, 401, "no"))

    assert refusals.standing("client", "another", WAIT) is not None


def test_a_grant_lets_all_through(clock: Seconds) -> None:
    """E1: one that is granted shows that the client is right, and nobody waits any more."""
    refusals = refused(clock)
    refusals.note("client", "another", GRANTED)

    assert refusals.standing("client", 0, WAIT) is None


@pytest.mark.parametrize("reason", [Reason.INVALID_GRANT, Reason.INVALID_SCOPE, Reason.OTHER_REFUSAL])
def test_what_concerns_one_credential_concerns_no_other(clock: Seconds, reason: Reason) -> None:
    """E1 E6: a dead refresh token says nothing about the client."""
    assert refused(clock, reason=reason).standing("client", 0, WAIT) is None


def test_who_asks_in_any_case_is_let_through(clock: Seconds) -> None:
    """E1: a person's request is sent: it may be that the client has been put right at the server."""
    assert refused(clock).standing("client", 0, 0.0) is None


# Over the wire.


class Guarded:
    """A server that knows one client secret."""

    def __init__(self) -> None:
        self.secret = planted("right-secret")

    def __call__(self, peer: Peer) -> None:
        """Answer request after request."""
        while received := peer.read():
            if dict(received.form).get("client_secret") == self.secret:
                peer.answer(b'{"access_token": "a", "refresh_token": "r"}')
            else:
                peer.answer(b'{"error": "invalid_client"}', "401 Unauthorized")


class Fleet:
    """Many credentials of one client."""

    def __init__(self, url: str, network: Network, **options: Any) -> None:
        self.secret = planted("wrong-secret")
        configured = EndpointSettings(url, "client", lambda: self.secret, **options)
        self.endpoint = HttpTokenEndpoint(configured, time.time, threading.Event(), network=network)

    def ask(self, number: int = 1, wait: float = WAIT) -> list[Answer]:
        """Ask for so many credentials that have not asked yet."""
        forms = (TokenRequest((("refresh_token", str(next(NUMBERS))),), refused_wait=wait) for _ in range(number))
        return [self.endpoint.request(form, ()) for form in forms]


@pytest.fixture
def network() -> Generator[Network]:
    """Give a network that is closed at the end."""
    network = Network()
    yield network
    network.close()


def test_a_wrong_secret_costs_a_handful_of_requests(network: Network) -> None:
    """E1: two hundred credentials of a client with a wrong secret; each is told, the server hears of a few."""
    with Server(Guarded()) as server:
        answers = Fleet(server.url, network).ask(200)

    assert len(server.requests) == ENOUGH
    assert all(isinstance(answer, Refused) and answer.reason is Reason.INVALID_CLIENT for answer in answers)
    assert all("answered 401: invalid_client" in answer.text for answer in answers if isinstance(answer, Refused))
    waits = [answer.retry_after for answer in answers if isinstance(answer, Refused)]
    assert waits[:ENOUGH] == [None] * ENOUGH
    assert all(wait is not None and WAIT - 30 < wait <= WAIT for wait in waits[ENOUGH:])


def test_a_corrected_secret_is_used_at_once(network: Network) -> None:
    """E1 K8: the right secret waits for nothing, whatever was refused with the wrong one."""
    guarded = Guarded()
    with Server(guarded) as server:
        fleet = Fleet(server.url, network)
        fleet.ask(10)
        fleet.secret = guarded.secret

        assert all(isinstance(answer, Granted) for answer in fleet.ask(3))


def test_a_secret_put_right_at_the_server_is_found_by_a_person(network: Network) -> None:
    """E1: who asks by hand is let through, and his grant lets all others through."""
    guarded = Guarded()
    with Server(guarded) as server:
        fleet = Fleet(server.url, network)
        fleet.ask(10)
        guarded.secret = fleet.secret
        assert isinstance(fleet.ask()[0], Refused)

        assert isinstance(fleet.ask(wait=0.0)[0], Granted)
        assert all(isinstance(answer, Granted) for answer in fleet.ask(3))


def test_another_client_certificate_is_another_client(network: Network, tmp_path: Path) -> None:
    """E1 K8: where the certificate says who we are, a renewed one is tried at once."""
    certificate = tmp_path / "client.pem"
    certificate.write_text("one")
    with Server(Guarded()) as server:
        fleet = Fleet(server.url, network, client_certificate=certificate)
        fleet.ask(10)
        certificate.write_text("two")
        fleet.ask(10)

    assert len(server.requests) == 2 * ENOUGH
