"""Odd answers: what stands in them, and that the grant behind them is real."""

import json
import math
from typing import Any
from urllib.parse import parse_qs

import pytest

from rotator.sandbox.odd import GRANT_ODDITIES, KEEPS_REFRESH_TOKEN
from tests.sandbox.conftest import Customer

ABSENT = object()


@pytest.mark.parametrize(
    ("odd", "field", "value"),
    [
        ("expires_in_string", "expires_in", "3600"),
        ("expires_in_padded", "expires_in", " 3600 "),
        ("expires_in_missing", "expires_in", ABSENT),
        ("expires_in_null", "expires_in", None),
        ("expires_in_list", "expires_in", [3600]),
        ("expires_in_dict", "expires_in", {"seconds": 3600}),
        ("expires_in_bool", "expires_in", True),
        ("expires_in_float", "expires_in", 3600.7),
        ("expires_in_zero", "expires_in", 0),
        ("expires_in_negative", "expires_in", -60),
        ("expires_in_1e13", "expires_in", "1e13"),
        ("expires_in_huge", "expires_in", 2**53),
        ("expires_in_infinity", "expires_in", math.inf),
        ("expires_in_text", "expires_in", "soon"),
        ("expires_in_overstated", "expires_in", 360_000),
        ("scope_array", "scope", ["openid", "energy"]),
        ("scope_string", "scope", "openid energy"),
        ("scope_empty", "scope", ""),
        ("scope_null", "scope", None),
        ("scope_missing", "scope", ABSENT),
        ("scope_ints", "scope", [1, 2]),
        ("refresh_token_absent", "refresh_token", ABSENT),
        ("refresh_token_null", "refresh_token", None),
        ("refresh_token_empty", "refresh_token", ""),
        ("refresh_expires_in", "refresh_expires_in", 2_592_000),
        ("access_token_missing", "access_token", ABSENT),
        ("access_token_null", "access_token", None),
        ("access_token_empty", "access_token", ""),
        ("id_token_missing", "id_token", ABSENT),
        ("token_type_lower", "token_type", "bearer"),
        ("token_type_missing", "token_type", ABSENT),
        ("error_null", "error", None),
    ],
)
def test_odd_field(customer: Customer, odd: str, field: str, value: Any) -> None:
    """A1 to A31, A46: the field is as odd as its name says, and nothing else is."""
    customer.sandbox.change(odd=odd)
    fields = customer.login()
    assert fields.get(field, ABSENT) == value
    assert type(fields.get(field, ABSENT)) is type(value)
    plain = {"access_token", "refresh_token", "id_token", "expires_in", "token_type", "scope"}
    assert set(fields) - {field} == plain - {field}


@pytest.mark.parametrize("odd", sorted(KEEPS_REFRESH_TOKEN))
def test_answer_without_refresh_token_keeps_the_old_one(customer: Customer, odd: str) -> None:
    """A22: an answer that brings no refresh token leaves the old one good, with rotation on too."""
    pair = customer.login()
    customer.sandbox.change(odd=odd)
    for _ in range(2):
        customer.granted(customer.refresh(pair["refresh_token"]))
    assert customer.books.replays_outside_grace == 0


def test_old_refresh_token_repeated(customer: Customer) -> None:
    """A28: a server in its grace window hands back the old refresh token, which is used up."""
    pair = customer.login()
    customer.sandbox.script(["refresh_token_repeated"])
    assert customer.granted(customer.refresh(pair["refresh_token"]))["refresh_token"] == pair["refresh_token"]
    assert customer.refused(customer.refresh(pair["refresh_token"])) == (400, "invalid_grant")


@pytest.mark.parametrize("odd", sorted(GRANT_ODDITIES))
def test_odd_answers_grant(customer: Customer, odd: str) -> None:
    """Behind an odd answer stands a grant like any other, and the books say so."""
    pair = customer.login()
    customer.sandbox.script([odd])
    assert customer.refresh(pair["refresh_token"]).status_code == 200
    assert customer.books.refresh_grants == 1
    assert customer.books.token_requests == {"granted": 2}


def test_bodies_and_content_types(customer: Customer) -> None:
    """A39, A40, A44: JSON under another type, with a BOM, between blanks, and a form instead."""
    pair = customer.login()
    kinds = {}
    for odd in ("html_type", "text_type", "bom", "blanks", "form_body"):
        customer.sandbox.script([odd])
        kinds[odd] = customer.refresh(pair["refresh_token"])
        if odd == "form_body":
            break
        pair = json.loads(kinds[odd].content.decode("utf-8-sig"))
    assert kinds["html_type"].headers["content-type"].startswith("text/html")
    assert kinds["text_type"].headers["content-type"].startswith("text/plain")
    assert kinds["bom"].content.startswith(b"\xef\xbb\xbf{")
    assert kinds["blanks"].content.strip() != kinds["blanks"].content
    assert parse_qs(kinds["form_body"].text)["token_type"] == ["Bearer"]


def test_more_digits_than_python_reads(customer: Customer) -> None:
    """A10, A12: a lifetime of 5,000 digits makes Python's own JSON reader give up."""
    customer.sandbox.script(["expires_in_digits"])
    answer = customer.post(grant_type="password", username="user@example.com", password="sandbox-password")
    assert '"expires_in": ' + "9" * 5000 in answer.text
    with pytest.raises(ValueError, match="digits"):
        answer.json()


@pytest.mark.parametrize(
    ("odd", "status", "said"),
    [
        ("invalid_grant_text", 400, "invalid_grant"),
        ("invalid_grant_form", 400, "error=invalid_grant"),
        ("invalid_grant_401", 401, '{"error": "invalid_grant"'),
        ("invalid_request", 400, '{"error": "invalid_request"'),
        ("invalid_token", 401, '{"error": "invalid_token"'),
        ("already_used", 400, '{"error": "invalid_request"'),
        ("401_empty", 401, ""),
        ("502_empty", 502, ""),
    ],
)
def test_odd_refusals(customer: Customer, odd: str, status: int, said: str) -> None:
    """A32, A34, C19, E13: a dead grant is told oddly, a good one is granted plainly."""
    pair = customer.login()
    customer.sandbox.change(odd=odd)
    pair = customer.granted(customer.refresh(pair["refresh_token"]))
    customer.sandbox.revoke()
    answer = customer.refresh(pair["refresh_token"])
    assert answer.status_code == status
    assert answer.text.startswith(said)
    assert bool(answer.text) == bool(said)


def test_error_text_that_holds_the_refresh_token(customer: Customer) -> None:
    """E11: the error text echoes the refresh token that was sent."""
    customer.sandbox.change(odd="echo")
    assert "dead-token" in customer.refresh("dead-token").json()["error_description"]


def test_jwt_that_ends_before_expires_in(customer: Customer) -> None:
    """A46: with JWT access tokens and an overstated lifetime, the resource goes by the JWT."""
    customer.sandbox.change(jwt_access_tokens=True, odd="expires_in_overstated", access_lifetime=60)
    pair = customer.login()
    assert pair["expires_in"] == 6000
    assert pair["access_token"].count(".") == 2
    customer.clock.now += 60
    assert customer.me(pair["access_token"]).status_code == 401


def test_session_with_an_absolute_end(customer: Customer) -> None:
    """B30: `refresh_expires_in_shrinking` counts from the login and does not start anew with each refresh."""
    customer.sandbox.change(odd="refresh_expires_in_shrinking", refresh_lifetime=7200)
    pair = customer.login()
    customer.clock.now += 3000
    after = customer.granted(customer.refresh(pair["refresh_token"]))
    assert (pair["refresh_expires_in"], after["refresh_expires_in"]) == (7200, 4200)
