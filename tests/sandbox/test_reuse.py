"""A refresh token that is presented twice: grace window, reuse detection, and the count of it."""

import threading
import time

import pytest

from tests.process.rig import PATIENCE
from tests.sandbox.conftest import Customer


def test_reuse_without_grace_is_refused(customer: Customer) -> None:
    """Without a grace window a used refresh token is invalid_grant; without revocation the new one stays good."""
    customer.sandbox.change(reuse_revokes_family=False)
    first = customer.login()
    second = customer.granted(customer.refresh(first["refresh_token"]))
    assert customer.refused(customer.refresh(first["refresh_token"])) == (400, "invalid_grant")
    customer.granted(customer.refresh(second["refresh_token"]))
    assert customer.books.refusals == {"used": 1}
    assert (customer.books.replays_outside_grace, customer.books.families_revoked) == (1, 0)


def test_reuse_revokes_the_family(customer: Customer) -> None:
    """C20: with family revocation, reuse kills every refresh and access token of that login, and of no other."""
    first, other = customer.login(), customer.login()
    second = customer.granted(customer.refresh(first["refresh_token"]))
    for _ in range(2):
        assert customer.refused(customer.refresh(first["refresh_token"])) == (400, "invalid_grant")
    assert customer.refused(customer.refresh(second["refresh_token"])) == (400, "invalid_grant")
    assert customer.me(second["access_token"]).status_code == 401
    customer.granted(customer.refresh(other["refresh_token"]))
    assert (customer.books.replays_outside_grace, customer.books.families_revoked) == (2, 1)


def test_replay_in_the_grace_window_gets_the_same_pair(customer: Customer) -> None:
    """B12: a replay within the window gets the first answer and the lifetime that is left; later it is reuse."""
    customer.sandbox.change(grace_seconds=10)
    first = customer.login()
    second = customer.granted(customer.refresh(first["refresh_token"]))
    customer.clock.now += 9
    assert customer.granted(customer.refresh(first["refresh_token"])) == second | {"expires_in": 3591}
    assert (customer.books.replays_in_grace, customer.books.replays_outside_grace) == (1, 0)
    customer.clock.now += 1
    assert customer.refused(customer.refresh(first["refresh_token"])) == (400, "invalid_grant")
    assert customer.refused(customer.refresh(second["refresh_token"])) == (400, "invalid_grant")
    assert (customer.books.replays_in_grace, customer.books.families_revoked) == (1, 1)


def test_replay_may_get_a_new_pair(customer: Customer) -> None:
    """With `grace_answer` new, a replay gets another pair, and both pairs are good."""
    customer.sandbox.change(grace_seconds=10, grace_answer="new")
    first = customer.login()
    pairs = [customer.granted(customer.refresh(first["refresh_token"])) for _ in range(2)]
    assert pairs[0]["refresh_token"] != pairs[1]["refresh_token"]
    for pair in pairs:
        customer.granted(customer.refresh(pair["refresh_token"]))
    assert (customer.books.replays_in_grace, customer.books.refresh_grants) == (1, 3)


@pytest.mark.parametrize("kill", ["revoke", "disable"])
def test_grace_does_not_revive(customer: Customer, kill: str) -> None:
    """The grace window does not help a grant that was revoked or whose user was disabled."""
    customer.sandbox.change(grace_seconds=10)
    first = customer.login()
    customer.granted(customer.refresh(first["refresh_token"]))
    if kill == "revoke":
        customer.sandbox.revoke()
    else:
        customer.sandbox.change(disabled_users=["user@example.com"])
    assert customer.refused(customer.refresh(first["refresh_token"])) == (400, "invalid_grant")


def test_simultaneous_requests_are_counted(customer: Customer) -> None:
    """The books know how many requests for one refresh token were under way at once."""
    first, other = customer.login(), customer.login()
    customer.refresh(other["refresh_token"])
    assert customer.books.most_simultaneous == 1
    customer.sandbox.script(["hang"] * 3)
    threads = [threading.Thread(target=customer.refresh, args=(first["refresh_token"],)) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    while customer.books.most_simultaneous < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    customer.sandbox.change()
    for thread in threads:
        thread.join()
    assert customer.books.most_simultaneous == 3
    assert customer.books.token_requests == {"granted": 4, "invalid_grant": 2}
