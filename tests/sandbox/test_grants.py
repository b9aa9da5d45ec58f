"""Grants, client authentication, and what a token is worth."""

import base64
import json

import pytest

from rotator.sandbox.books import Books
from tests.sandbox.conftest import CLIENT, LOGIN, Customer
from tests.secrets_scan import PREFIX, secrets_in


def test_login_answers_in_the_shape_of_ce_api(customer: Customer) -> None:
    """A password grant answers with exactly CE-API's fields; scope is an empty JSON array."""
    answer = customer.post(**LOGIN)
    fields = customer.granted(answer)
    assert list(fields) == ["access_token", "refresh_token", "id_token", "expires_in", "token_type", "scope"]
    assert (fields["expires_in"], fields["token_type"], fields["scope"]) == (3600, "Bearer", [])
    assert answer.headers["cache-control"] == "no-store"


def test_refresh_replaces_the_pair(customer: Customer) -> None:
    """A refresh answers in the same shape, with other tokens, and the resource takes the new access token."""
    first = customer.login()
    second = customer.granted(customer.refresh(first["refresh_token"]))
    assert list(second) == list(first)
    assert {first[name] for name in first if name.endswith("_token")}.isdisjoint(
        second[name] for name in second if name.endswith("_token")
    )
    assert customer.me(second["access_token"]).status_code == 200
    assert (customer.books.password_grants, customer.books.refresh_grants) == (1, 1)


def test_without_rotation_the_refresh_token_stays(customer: Customer) -> None:
    """With rotation off, every refresh repeats the refresh token and brings a new access token."""
    customer.sandbox.change(rotation=False)
    pairs = [customer.login()]
    for _ in range(3):
        pairs.append(customer.granted(customer.refresh(pairs[-1]["refresh_token"])))
    assert len({pair["refresh_token"] for pair in pairs}) == 1
    assert len({pair["access_token"] for pair in pairs}) == 4
    assert customer.books.replays_outside_grace == 0


def test_client_may_use_basic(customer: Customer) -> None:
    """Client id and secret are taken from the Authorization header too, form-encoded; not from both places."""
    customer.sandbox.change(client_secret="a+b:c d%")
    word = base64.b64encode(b"sandbox-client:a%2Bb%3Ac+d%25").decode()
    answer = customer.http.post("/v2/token", data=LOGIN, headers={"Authorization": f"Basic {word}"})
    customer.granted(answer)
    both = customer.http.post("/v2/token", data=LOGIN | CLIENT, headers={"Authorization": f"Basic {word}"})
    assert customer.refused(both) == (400, "invalid_request")


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !", "Basic eA=="])
def test_broken_basic_is_invalid_client(customer: Customer, header: str) -> None:
    """An Authorization header that holds no client id and secret is refused with a challenge."""
    answer = customer.http.post("/v2/token", data=LOGIN, headers={"Authorization": header})
    assert customer.refused(answer) == (401, "invalid_client")
    assert answer.headers["www-authenticate"] == "Basic"


def test_secret_changes_while_it_runs(customer: Customer) -> None:
    """After the client secret was changed, the old one is invalid_client and spends nothing; the new one works."""
    pair = customer.login()
    customer.sandbox.change(client_secret="another")
    assert customer.refused(customer.refresh(pair["refresh_token"])) == (401, "invalid_client")
    form = {"client_secret": "another", "grant_type": "refresh_token", "refresh_token": pair["refresh_token"]}
    customer.granted(customer.post(**form))


def test_public_client_needs_no_secret(customer: Customer) -> None:
    """With an empty client secret a request with the client id alone is good."""
    customer.sandbox.change(client_secret="")
    answer = customer.http.post("/v2/token", data=LOGIN | {"client_id": "sandbox-client"})
    customer.granted(answer)


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ({}, (400, "invalid_request")),
        ({"grant_type": ""}, (400, "invalid_request")),
        ({"grant_type": "device"}, (400, "unsupported_grant_type")),
        ({"grant_type": "client_credentials"}, (400, "unsupported_grant_type")),
        ({"grant_type": "refresh_token"}, (400, "invalid_request")),
        ({"grant_type": "refresh_token", "refresh_token": "no"}, (400, "invalid_grant")),
        ({"grant_type": "password", "username": "user@example.com"}, (400, "invalid_request")),
        (LOGIN | {"password": "no"}, (400, "invalid_grant")),
        (LOGIN | {"username": "nobody"}, (400, "invalid_grant")),
        (LOGIN | {"client_secret": "nö"}, (401, "invalid_client")),
        (LOGIN | {"client_id": "no"}, (401, "invalid_client")),
    ],
)
def test_refusals(customer: Customer, form: dict[str, str], wanted: tuple[int, str]) -> None:
    """What RFC 6749 section 5.2 refuses is refused with its error code, and counted by it."""
    assert customer.refused(customer.post(**form)) == wanted
    assert customer.books.token_requests == {wanted[1]: 1}


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (json.dumps(CLIENT | LOGIN), "application/json", 415),
        ("grant_type=password", "", 415),
        (b"grant_type=%ff", "application/x-www-form-urlencoded", 400),
        ("grant_type=password&grant_type=password", "application/x-www-form-urlencoded", 400),
    ],
)
def test_bodies_that_are_no_form(customer: Customer, body: str | bytes, content_type: str, status: int) -> None:
    """A body that is no form, or that names a field twice, is an invalid_request."""
    answer = customer.http.post("/v2/token", content=body, headers={"Content-Type": content_type})
    assert customer.refused(answer) == (status, "invalid_request")


def test_client_credentials(customer: Customer) -> None:
    """`/v1/token` answers with a JWT that expires, without a refresh token, and knows no other grant."""
    answer = customer.http.post("/v1/token", data=CLIENT | {"grant_type": "client_credentials"})
    fields = customer.granted(answer)
    assert "refresh_token" not in fields
    claims = json.loads(base64.urlsafe_b64decode(fields["access_token"].split(".")[1] + "=="))
    assert claims["exp"] == int(customer.clock.now) + 3600
    assert customer.me(fields["access_token"]).status_code == 200
    assert customer.refused(customer.http.post("/v1/token", data=CLIENT | LOGIN)) == (400, "unsupported_grant_type")
    assert customer.books.client_credentials_grants == 1


def test_access_tokens_die(customer: Customer) -> None:
    """The resource refuses expired, revoked and unknown tokens and none at all, and the books tell them apart."""
    pair = customer.login()
    assert customer.me(pair["access_token"]).status_code == 200
    customer.clock.now += 3600
    expired = customer.me(pair["access_token"])
    assert expired.status_code == 401
    assert expired.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
    assert customer.me("unknown").status_code == 401
    second = customer.granted(customer.refresh(pair["refresh_token"]))
    assert customer.sandbox.revoke() == 1
    assert customer.me(second["access_token"]).status_code == 401
    assert customer.http.get("/v2/me").headers["www-authenticate"] == "Bearer"
    assert customer.books.resource_calls == {"good": 1, "expired": 1, "unknown": 1, "revoked": 1, "bare": 1}
    assert (customer.books.good_calls, customer.books.dead_calls) == (1, 3)


def test_refresh_tokens_expire(customer: Customer) -> None:
    """A refresh token is good for 30 days, each new one for 30 days of its own."""
    first = customer.login()
    customer.clock.now += 30 * 86_400 - 1
    second = customer.granted(customer.refresh(first["refresh_token"]))
    customer.clock.now += 30 * 86_400
    assert customer.refused(customer.refresh(second["refresh_token"])) == (400, "invalid_grant")
    assert customer.books.refusals == {"expired": 1}


def test_disabled_user(customer: Customer) -> None:
    """A disabled user's grants and tokens are refused, nobody else's, and work again when he is enabled."""
    pair, other = customer.login(), customer.login("fleet-7@example.com")
    customer.sandbox.change(disabled_users=["user@example.com"])
    assert customer.refused(customer.refresh(pair["refresh_token"])) == (400, "invalid_grant")
    assert customer.refused(customer.post(**LOGIN)) == (400, "invalid_grant")
    assert customer.me(pair["access_token"]).status_code == 401
    customer.granted(customer.refresh(other["refresh_token"]))
    customer.sandbox.change(disabled_users=[])
    customer.granted(customer.refresh(pair["refresh_token"]))


def test_revoking_one_user(customer: Customer) -> None:
    """Revoking one user's grants leaves the others alone, and is not counted as reuse."""
    pair, other = customer.login(), customer.login("fleet-7@example.com")
    assert customer.sandbox.revoke("fleet-7@example.com") == 1
    assert customer.refused(customer.refresh(other["refresh_token"])) == (400, "invalid_grant")
    customer.granted(customer.refresh(pair["refresh_token"]))
    assert (customer.books.grants_revoked, customer.books.families_revoked) == (1, 0)


def test_tokens_are_marked(customer: Customer) -> None:
    """A search for planted secrets finds every token, also where a JWT hides its mark; another mark can be chosen."""
    pair = customer.login()
    assert pair["access_token"].startswith(PREFIX + "AT-")
    assert pair["refresh_token"].startswith(PREFIX + "RT-")
    customer.sandbox.change(jwt_access_tokens=True)
    jwt = customer.login()["access_token"]
    assert all(secrets_in(token) for token in (pair["id_token"], jwt))
    customer.sandbox.change(token_prefix="mark-", jwt_access_tokens=False)
    assert customer.login()["refresh_token"].startswith("mark-RT-")


def test_issue_needs_no_password(customer: Customer) -> None:
    """Issued pairs are as good as those of a login."""
    pair = customer.sandbox.issue("fleet-1@example.com")
    customer.granted(customer.refresh(pair["refresh_token"]))
    assert customer.books.password_grants == 0


def test_books_are_a_copy(customer: Customer) -> None:
    """Books that were read do not change afterwards."""
    before = customer.books
    customer.login()
    assert before == Books()
