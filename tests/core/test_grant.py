"""What any answer of a token endpoint means: `classify` and `judge`, case by case, then for all inputs."""

import json
import math
import pickle
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rotator.core.grant import (
    Judged,
    classify,
    judge,
    password_request,
    refresh_request,
    scrub,
)
from rotator.core.model import (
    DAY,
    HOUR,
    Answer,
    EarlierToken,
    Grant,
    Granted,
    Oddity,
    Reason,
    Refused,
    RotationPolicy,
    TokenSet,
    Unavailable,
)
from rotator.core.state import CredentialState
from rotator.sandbox.odd import REFUSAL_ODDITIES
from tests.samples import jwt
from tests.secrets_scan import planted, secrets_in

NOW = 1_800_000_000.0
ACCESS, REFRESH = planted("access"), planted("refresh")
POLICY = RotationPolicy()
PAIR = {"access_token": ACCESS, "refresh_token": REFRESH}
CE_API = {**PAIR, "id_token": "a.b.c", "expires_in": 3600, "token_type": "Bearer", "scope": []}


def answer(body: object, status: int = 200, **headers: str) -> Answer:
    """Classify a body, given as bytes or as what JSON makes of it."""
    wire = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(status, names, wire, NOW)


def tokens(access_token: str = ACCESS, scope: str = "", obtained_at: float = NOW) -> TokenSet:
    """Return a token set as it is saved before it is judged."""
    return TokenSet(
        generation=2,
        access_token=access_token,
        refresh_token=REFRESH,
        id_token="old.id.token",
        token_type="Bearer",
        scope=scope,
        obtained_at=obtained_at,
        expires_at=obtained_at + HOUR,
        refresh_obtained_at=obtained_at,
        refresh_expires_at=obtained_at + 30 * DAY,
    )


def judged(policy: RotationPolicy = POLICY, asked_scope: str = "", **raw: Any) -> Judged:
    """Judge the fields of an answer."""
    return judge(tokens(), raw, policy, asked_scope)


LIFETIMES = [
    pytest.param(2700, 2700, None, id="plain"),
    pytest.param("2700", 2700, Oddity.EXPIRES_IN_TEXT, id="A1-text"),
    pytest.param("3599", 3599, Oddity.EXPIRES_IN_TEXT, id="A2-text-is-no-never"),
    pytest.param(" 3600 ", 3600, Oddity.EXPIRES_IN_TEXT, id="A3-blanks"),
    pytest.param("3600.0", 3600, Oddity.EXPIRES_IN_TEXT, id="A3-text-with-point"),
    pytest.param("+3600", 3600, Oddity.EXPIRES_IN_TEXT, id="A5-plus"),
    pytest.param(None, 3600, Oddity.EXPIRES_IN_MISSING, id="A4-null"),
    pytest.param([3600], 3600, Oddity.EXPIRES_IN_ODD, id="A4-list"),
    pytest.param({"seconds": 60}, 3600, Oddity.EXPIRES_IN_ODD, id="A4-dict"),
    pytest.param(True, 3600, Oddity.EXPIRES_IN_ODD, id="A4-A13-true"),
    pytest.param(False, 3600, Oddity.EXPIRES_IN_ODD, id="A4-A13-false"),
    pytest.param("soon", 3600, Oddity.EXPIRES_IN_ODD, id="A4-word"),
    pytest.param("", 3600, Oddity.EXPIRES_IN_ODD, id="A4-empty"),
    pytest.param("1e13", DAY, Oddity.EXPIRES_IN_CLAMPED, id="A10-1e13"),
    pytest.param("1e999", 3600, Oddity.EXPIRES_IN_ODD, id="A10-infinite-text"),
    pytest.param(math.inf, 3600, Oddity.EXPIRES_IN_ODD, id="A10-infinity"),
    pytest.param(math.nan, 3600, Oddity.EXPIRES_IN_ODD, id="A10-nan"),
    pytest.param(0, 0, None, id="A11-zero"),
    pytest.param("0", 0, Oddity.EXPIRES_IN_TEXT, id="A11-zero-text"),
    pytest.param(2**31, DAY, Oddity.EXPIRES_IN_CLAMPED, id="A12-beyond-32-bits"),
    pytest.param(2**63, DAY, Oddity.EXPIRES_IN_CLAMPED, id="A12-beyond-64-bits"),
    pytest.param(10**400, DAY, Oddity.EXPIRES_IN_CLAMPED, id="A12-beyond-a-float"),
    pytest.param(3600.0, 3600, None, id="A13-float"),
    pytest.param(3599.7, 3599, None, id="A13-floored"),
    pytest.param(-1, 0, None, id="A13-negative"),
    pytest.param("-5", 0, Oddity.EXPIRES_IN_TEXT, id="A13-negative-text"),
    pytest.param(0.4, 0, None, id="A13-fraction"),
]


@pytest.mark.parametrize(("spelling", "seconds", "oddity"), LIFETIMES)
def test_every_spelling_of_a_lifetime_has_a_meaning(spelling: object, seconds: float, oddity: Oddity | None) -> None:
    """A1 A2 A3 A4 A10 A11 A12 A13: a lifetime is never 'for ever', never an error; oddities are named."""
    verdict = judged(expires_in=spelling)

    assert verdict.tokens.expires_at - NOW == seconds
    assert oddity is None or oddity in verdict.oddities
    assert oddity is not None or not verdict.oddities


def test_an_absent_lifetime_is_the_assumed_one() -> None:
    """A4 A6 A46: no `expires_in` at all means the assumed lifetime, with one oddity to warn of."""
    verdict = judged(RotationPolicy(assumed_lifetime=1200.0))

    assert verdict.tokens.expires_at == NOW + 1200
    assert verdict.oddities == (Oddity.EXPIRES_IN_MISSING,)


@given(
    seconds=st.integers(0, int(DAY)),
    spell=st.sampled_from([int, float, str, "{}.0".format, " {} ".format, "+{}".format]),
    obtained_at=st.floats(0, 4e9),
)
def test_the_granted_lifetime_is_kept_exactly(seconds: int, spell: Any, obtained_at: float) -> None:
    """A5: for every accepted spelling, expiry minus receipt is the integer."""
    verdict = judge(tokens(obtained_at=obtained_at), {"expires_in": spell(seconds)}, POLICY, "")

    assert verdict.tokens.expires_at - obtained_at == pytest.approx(seconds, abs=1e-6)
    exact = judge(tokens(), {"expires_in": spell(seconds)}, POLICY, "").tokens
    assert exact.lifetime_seconds == seconds


@pytest.mark.parametrize(
    ("claims", "seconds"),
    [
        pytest.param({"exp": NOW + 600}, 600, id="exp"),
        pytest.param({"exp": 5600, "iat": 5000}, 600, id="exp-and-iat-of-another-clock"),
        pytest.param({"exp": NOW + 7200}, 3600, id="later-than-granted"),
        pytest.param({"exp": NOW - 10}, 0, id="already-over"),
        pytest.param({"exp": "soon"}, 3600, id="exp-no-number"),
        pytest.param({"exp": True}, 3600, id="exp-bool"),
        pytest.param({}, 3600, id="no-exp"),
    ],
)
def test_the_earlier_end_of_a_jwt_counts(claims: dict[str, object], seconds: float) -> None:
    """A46: if the access token is a JWT with an earlier `exp`, the earlier one wins."""
    verdict = judge(tokens(jwt(**claims)), {"expires_in": 3600}, POLICY, "")

    assert verdict.tokens.expires_at == NOW + seconds
    assert (Oddity.JWT_EXPIRES_EARLIER in verdict.oddities) == (seconds < 3600)


OLD = {"iat": NOW - 3000, "exp": NOW + 600}


@pytest.mark.parametrize(
    ("claims", "served", "seconds"),
    [
        pytest.param(OLD, NOW, 600, id="made-long-before"),
        pytest.param({"iat": NOW - 100, "exp": NOW + 3500}, NOW, 3600, id="clocks-of-one-server-differ"),
        pytest.param({"exp": NOW + 600}, NOW, 600, id="no-iat"),
        pytest.param(OLD, None, 3600, id="no-date-no-telling"),
        pytest.param({"iat": NOW - 9000, "exp": NOW - 5400}, NOW, 3600, id="a-date-that-cannot-be"),
    ],
)
@pytest.mark.parametrize("ahead", [0.0, DAY, -DAY])
def test_a_jwt_made_before_the_answer_has_less_left(
    claims: dict[str, object], served: float | None, seconds: float, ahead: float
) -> None:
    """A46 L10: what is left of an older JWT is counted by the server's clock, right or wrong as ours may be."""
    raw = {"expires_in": 3600}
    verdict = judge(tokens(jwt(**claims), obtained_at=NOW + ahead), raw, POLICY, "", served)

    assert verdict.tokens.lifetime_seconds == seconds


@pytest.mark.parametrize(
    ("date", "served_at"),
    [
        ("Fri, 15 Jan 2027 08:00:00 GMT", NOW),
        ("", None),
        ("yesterday", None),
        ("Fri, 99 Foo 99999 99:99:99 -9999", None),
    ],
)
def test_an_answer_tells_its_date(date: str, served_at: float | None) -> None:
    """A46: the Date header of an answer is the server's clock; one that makes no sense costs nothing."""
    granted = classify(200, {"date": date}, b'{"access_token": "x"}', 0.0)

    assert isinstance(granted, Granted)
    assert granted.served_at == served_at


@pytest.mark.parametrize(
    ("raw", "scope", "oddities"),
    [
        pytest.param({"scope": "a b"}, "a b", (), id="A16-string"),
        pytest.param({"scope": " a  b "}, "a b", (), id="A16-blanks"),
        pytest.param({"scope": []}, "", (), id="A16-empty-array"),
        pytest.param({"scope": ["a", "b"]}, "a b", (), id="A16-array"),
        pytest.param({"scope": ["a", 7, None]}, "a", (Oddity.SCOPE_SHAPE,), id="A16-mixed-array"),
        pytest.param({"scope": None}, "before", (), id="A16-null"),
        pytest.param({}, "before", (), id="A16-absent"),
        pytest.param({"scope": ""}, "", (), id="A16-empty"),
        pytest.param({"scope": {"a": 1}}, "before", (Oddity.SCOPE_SHAPE,), id="A16-dict"),
        pytest.param({"scope": 7}, "before", (Oddity.SCOPE_SHAPE,), id="A16-number"),
    ],
)
def test_every_shape_of_scope_has_a_meaning(raw: dict[str, object], scope: str, oddities: tuple[Oddity, ...]) -> None:
    """A16: string, array, null, absent and nonsense: none raises, none costs a token."""
    verdict = judge(tokens(scope="before"), {"expires_in": 60, **raw}, POLICY, "")

    assert (verdict.tokens.scope, verdict.oddities) == (scope, oddities)


def test_the_answer_of_an_array_scope_server_is_granted_whole() -> None:
    """A17: an array as scope beside an id token, as CE-API and SATOSA send it, keeps every part."""
    granted = answer(CE_API)

    assert isinstance(granted, Granted)
    assert (granted.access_token, granted.refresh_token) == (ACCESS, REFRESH)
    verdict = judge(tokens(), granted.raw, POLICY, "")
    assert verdict.oddities == ()
    assert verdict.tokens.id_token == "a.b.c"
    assert verdict.tokens.expires_at == NOW + 3600


@pytest.mark.parametrize(
    ("asked", "given_scope", "changed"),
    [
        pytest.param("a b", "a", True, id="A19-narrower"),
        pytest.param("a b", "a b openid", True, id="A21-addition"),
        pytest.param("a b", "b a", False, id="A21-order"),
        pytest.param("a b", None, False, id="A19-absent-means-as-asked"),
        pytest.param("", "a", False, id="A19-nothing-asked"),
    ],
)
def test_a_changed_scope_is_named_and_never_an_error(asked: str, given_scope: str | None, *, changed: bool) -> None:
    """A19 A20 A21: a scope other than the asked one lowers the grade of an answer, nothing else."""
    verdict = judged(asked_scope=asked, expires_in=60, scope=given_scope)

    assert (Oddity.SCOPE_CHANGED in verdict.oddities) is changed
    assert verdict.tokens.access_token == ACCESS


@pytest.mark.parametrize(
    ("raw", "token_type", "id_token"),
    [
        pytest.param({}, "Bearer", "old.id.token", id="absent"),
        pytest.param({"token_type": "bearer"}, "Bearer", "old.id.token", id="lower-case"),
        pytest.param({"token_type": "BEARER"}, "Bearer", "old.id.token", id="upper-case"),
        pytest.param({"token_type": "DPoP"}, "DPoP", "old.id.token", id="another"),
        pytest.param({"token_type": 7}, "Bearer", "old.id.token", id="number"),
        pytest.param({"id_token": None}, "Bearer", "old.id.token", id="null-id-token"),
        pytest.param({"id_token": {"sub": 1}}, "Bearer", "old.id.token", id="id-token-object"),
        pytest.param({"id_token": "n.e.w"}, "Bearer", "n.e.w", id="new-id-token"),
    ],
)
def test_type_and_id_token_are_merged(raw: dict[str, Any], token_type: str, id_token: str) -> None:
    """A6: fields that are absent or odd leave what there was, and raise nothing."""
    verdict = judged(**{"expires_in": 60, **raw})

    assert (verdict.tokens.token_type, verdict.tokens.id_token) == (token_type, id_token)


@pytest.mark.parametrize(
    ("raw", "expires_at"),
    [
        pytest.param({}, NOW + 30 * DAY, id="absent"),
        pytest.param({"refresh_expires_in": 1800}, NOW + 1800, id="keycloak"),
        pytest.param({"refresh_expires_in": 0}, NOW + 30 * DAY, id="keycloak-no-end"),
        pytest.param({"refresh_token_expires_in": "15897600"}, NOW + 15897600, id="github"),
        pytest.param({"refresh_expires_in": "soon"}, NOW + 30 * DAY, id="nonsense"),
        pytest.param({"refresh_expires_in": 2**63 - 1}, NOW + 36500 * DAY, id="A10-for-ever"),
        pytest.param({"refresh_expires_in": "1e300"}, NOW + 36500 * DAY, id="A10-for-ever-and-a-day"),
    ],
)
def test_the_end_of_the_refresh_token_is_an_instant(raw: dict[str, Any], expires_at: float) -> None:
    """A10 B31: a refresh token's lifetime, where a server names it, becomes an absolute instant."""
    assert judged(**raw).tokens.refresh_expires_at == expires_at


GRANTED = [
    pytest.param(json.dumps(PAIR).encode(), id="A6-pair-alone"),
    pytest.param(b"\xef\xbb\xbf" + json.dumps(PAIR).encode(), id="A44-A45-bom"),
    pytest.param(b" \r\n" + json.dumps(PAIR).encode() + b"\n\n", id="A44-blanks"),
    pytest.param(urlencode(PAIR).encode(), id="A39-form"),
    pytest.param(json.dumps({**PAIR, "error": None}).encode(), id="A29-null-error"),
    pytest.param(json.dumps({**PAIR, "scope": "\udc00"}).encode(), id="A16-half-a-character"),
    pytest.param(json.dumps(PAIR)[:-1].encode() + b', "expires_in": 1' + b"0" * 5000 + b"}", id="A12-digits"),
    pytest.param(json.dumps({**PAIR, "name": "Zoë"}, ensure_ascii=False).encode("latin-1"), id="A45-latin-1"),
]


@pytest.mark.parametrize("body", GRANTED)
@pytest.mark.parametrize("content_type", ["application/json", "text/html", "text/plain", ""])
def test_a_pair_is_found_whatever_surrounds_it(body: bytes, content_type: str) -> None:
    """A39 A40 A44 A45: BOM, blanks, form encoding, a wrong content type: the pair is never lost."""
    granted = answer(body, content_type=content_type)

    assert isinstance(granted, Granted)
    assert (granted.access_token, granted.refresh_token) == (ACCESS, REFRESH)
    judge(tokens(), granted.raw, POLICY, "").tokens.scope.encode()


def test_a_form_encoded_answer_says_so() -> None:
    """A39: a form-encoded answer is marked, and its lifetime is read like any other."""
    granted = answer(urlencode({**PAIR, "expires_in": 900}).encode())

    assert isinstance(granted, Granted)
    assert granted.form_encoded
    assert judge(tokens(), granted.raw, POLICY, "").tokens.expires_at == NOW + 900


@pytest.mark.parametrize("refresh", [None, "", "  ", 7, [], "absent"])
def test_no_usable_refresh_token_is_none(refresh: object) -> None:
    """A22: absent, null, empty or no string: there is no new refresh token, and no error."""
    body = {"access_token": ACCESS} | ({} if refresh == "absent" else {"refresh_token": refresh})
    granted = answer(body)

    assert isinstance(granted, Granted)
    assert granted.refresh_token is None


def test_a_refresh_token_alone_is_kept() -> None:
    """A8 A31: a new refresh token without an access token must be saved, and no empty token shown."""
    granted = answer({"refresh_token": REFRESH, "access_token": None})

    assert isinstance(granted, Granted)
    assert (granted.access_token, granted.refresh_token) == ("", REFRESH)


NO_VERDICT = [
    pytest.param(200, b"", Reason.UNREADABLE_ANSWER, True, id="A31-empty"),
    pytest.param(204, b"", Reason.UNREADABLE_ANSWER, True, id="A31-no-content"),
    pytest.param(200, b"{}", Reason.UNREADABLE_ANSWER, True, id="A31-no-field"),
    pytest.param(200, b'{"access_token": ""}', Reason.UNREADABLE_ANSWER, True, id="A31-empty-token"),
    pytest.param(200, b'{"access_token": null}', Reason.UNREADABLE_ANSWER, True, id="A31-null"),
    pytest.param(200, b"[]", Reason.UNREADABLE_ANSWER, True, id="A31-array"),
    pytest.param(200, b"null", Reason.UNREADABLE_ANSWER, True, id="A31-json-null"),
    pytest.param(200, b"[" * 100_000, Reason.UNREADABLE_ANSWER, True, id="A31-nested"),
    pytest.param(200, b"<html>Sign in</html>", Reason.UNREADABLE_ANSWER, True, id="A37-html"),
    pytest.param(
        200,
        b"Exception while refreshing token, please retry",
        Reason.UNREADABLE_ANSWER,
        True,
        id="A37-text",
    ),
    pytest.param(502, b"<html>Bad Gateway</html>", Reason.HTTP_5XX, True, id="A35-html"),
    pytest.param(502, b"", Reason.HTTP_5XX, True, id="E13-empty-502"),
    pytest.param(500, b'{"error": "invalid_grant"}', Reason.HTTP_5XX, True, id="E13-no-guess"),
    pytest.param(503, b"", Reason.HTTP_5XX, True, id="503-without-a-date"),
    pytest.param(504, b"", Reason.HTTP_5XX, True, id="504"),
    pytest.param(999, b"", Reason.HTTP_5XX, True, id="999"),
    pytest.param(429, b"slow down", Reason.RATE_LIMITED, False, id="429"),
    pytest.param(408, b"", Reason.UNAVAILABLE, False, id="408"),
    pytest.param(403, b"<html>", Reason.FORBIDDEN, False, id="403-firewall"),
    pytest.param(400, b'{"error": "slow_down"}', Reason.RATE_LIMITED, False, id="slow-down"),
    pytest.param(400, b'{"error": "temporarily_unavailable"}', Reason.UNAVAILABLE, False, id="busy"),
    pytest.param(400, b'{"error": "server_error"}', Reason.HTTP_5XX, True, id="server-error"),
    pytest.param(200, b'{"error": "server_error"}', Reason.HTTP_5XX, True, id="A29-server-error"),
]


@pytest.mark.parametrize(("status", "body", "reason", "delivered"), NO_VERDICT)
def test_an_answer_without_a_verdict_is_unavailable(
    status: int, body: bytes, reason: Reason, *, delivered: bool
) -> None:
    """A31 A35 A37 E13: no verdict is passed by guessing; a pair may be lost unless surely not."""
    found = answer(body, status)

    assert isinstance(found, Unavailable)
    assert (found.reason, found.delivered, found.status) == (reason, delivered, status)


REFUSALS = [
    pytest.param(400, {"error": "invalid_grant"}, Reason.INVALID_GRANT, id="json"),
    pytest.param(401, {"error": "Invalid_Grant "}, Reason.INVALID_GRANT, id="case-and-blanks"),
    pytest.param(400, b"invalid_grant", Reason.INVALID_GRANT, id="A34-text"),
    pytest.param(400, b'"invalid_grant"', Reason.INVALID_GRANT, id="A34-json-string"),
    pytest.param(400, b"invalid_grant: gone", Reason.INVALID_GRANT, id="A34-text-with-more"),
    pytest.param(400, b"error=invalid_grant&x=1", Reason.INVALID_GRANT, id="A34-form"),
    pytest.param(400, {"error": {"code": "invalid_grant", "message": "no"}}, Reason.INVALID_GRANT, id="nested"),
    pytest.param(200, {"error": "bad_refresh_token"}, Reason.INVALID_GRANT, id="A29-github"),
    pytest.param(200, {"error": "invalid_client"}, Reason.INVALID_CLIENT, id="A29-client"),
    pytest.param(200, b"error=bad_verification_code&x=1", Reason.OTHER_REFUSAL, id="A29-form"),
    pytest.param(200, {"error": "invalid_grant", "refresh_token": "x"}, Reason.INVALID_GRANT, id="A29-both"),
    pytest.param(400, {"error": "invalid_request"}, Reason.INVALID_REQUEST, id="A32-request"),
    pytest.param(401, {"error": "invalid_token"}, Reason.OTHER_REFUSAL, id="A32-token"),
    pytest.param(401, b"", Reason.OTHER_REFUSAL, id="A32-bare-401"),
    pytest.param(401, {"error": "invalid_client"}, Reason.INVALID_CLIENT, id="client"),
    pytest.param(401, {"error": "unauthorized_client"}, Reason.UNAUTHORIZED_CLIENT, id="unauthorized"),
    pytest.param(400, {"error": "invalid_scope"}, Reason.INVALID_SCOPE, id="scope"),
    pytest.param(400, {"error": "unsupported_grant_type"}, Reason.UNSUPPORTED_GRANT_TYPE, id="grant-type"),
    pytest.param(403, {"error": "invalid_grant"}, Reason.INVALID_GRANT, id="403-that-says-why"),
    pytest.param(400, {"error": "brand_new_code"}, Reason.OTHER_REFUSAL, id="unknown-code"),
    pytest.param(404, b"<html>", Reason.OTHER_REFUSAL, id="404"),
    pytest.param(
        400,
        {"error": "invalid_grant", "error_description": "Refresh token already used"},
        Reason.TOKEN_REUSE,
        id="C19-used",
    ),
    pytest.param(
        400,
        {"error": "invalid_grant", "error_description": "token claimed by another client"},
        Reason.TOKEN_REUSE,
        id="C19-claimed",
    ),
    pytest.param(
        400,
        {"error": "invalid_request", "error_description": "Refresh token has already been claimed by another client."},
        Reason.TOKEN_REUSE,
        id="C19-dex",
    ),
    pytest.param(
        400,
        {"code": 400, "error_code": "refresh_token_already_used", "msg": "Invalid Refresh Token: Already Used"},
        Reason.TOKEN_REUSE,
        id="C19-supabase",
    ),
    pytest.param(401, {"error": {"code": "refresh_token_reused"}}, Reason.TOKEN_REUSE, id="C19-nested-code"),
    pytest.param(
        400,
        {"error": {"code": "invalid_grant", "message": "Refresh token already used"}},
        Reason.TOKEN_REUSE,
        id="C19-nested",
    ),
    pytest.param(400, {"message": "Token was previously used."}, Reason.TOKEN_REUSE, id="C19-message"),
    pytest.param(400, b"invalid_grant: already used", Reason.TOKEN_REUSE, id="C19-text"),
    pytest.param(400, b"The token has already been redeemed", Reason.TOKEN_REUSE, id="C19-text-without-a-code"),
    pytest.param(
        401,
        {"error": "invalid_client", "error_description": "The token of this client was already used"},
        Reason.INVALID_CLIENT,
        id="C19-of-the-client",
    ),
    pytest.param(
        400,
        {"error": "invalid_request", "error_description": "The nonce was already used"},
        Reason.INVALID_REQUEST,
        id="C19-of-something-else",
    ),
]


@pytest.mark.parametrize(("status", "body", "reason"), REFUSALS)
def test_a_refusal_is_found_in_every_shape(status: int, body: object, reason: Reason) -> None:
    """A29 A32 A34 C19: the code counts, in JSON, form and bare text, whatever the status."""
    found = answer(body, status)

    assert isinstance(found, Refused)
    assert (found.reason, found.status) == (reason, status)


@pytest.mark.parametrize(
    ("oddity", "reason"),
    [
        ("invalid_grant", Reason.INVALID_GRANT),
        ("invalid_grant_text", Reason.INVALID_GRANT),
        ("invalid_grant_form", Reason.INVALID_GRANT),
        ("invalid_grant_401", Reason.INVALID_GRANT),
        ("invalid_request", Reason.INVALID_REQUEST),
        ("invalid_token", Reason.OTHER_REFUSAL),
        ("already_used", Reason.TOKEN_REUSE),
        ("echo", Reason.INVALID_GRANT),
        ("401_empty", Reason.OTHER_REFUSAL),
        ("502_empty", Reason.HTTP_5XX),
    ],
)
def test_each_odd_refusal_of_the_sandbox_has_its_reason(oddity: str, reason: Reason) -> None:
    """A32 A34 C19 E13: what rotator makes of every way in which the sandbox tells a dead grant."""
    reply = REFUSAL_ODDITIES[oddity]("sent")
    found = answer(reply.body, reply.status)

    assert isinstance(found, Refused | Unavailable)
    assert found.reason is reason


def test_a_redirect_names_its_cure() -> None:
    """F19 F20: a redirect is not followed; the text says what to set, without the query."""
    found = answer(b"", 301, location="https://new.example/v2/token?session=1")

    assert isinstance(found, Unavailable)
    assert (found.reason, found.delivered) == (Reason.REDIRECT, False)
    assert found.text == (
        "token endpoint answered 301 to https://new.example/v2/token; set token_url to https://new.example/v2/token"
    )


def http_date(instant: float) -> str:
    """Spell an instant as HTTP does."""
    return format_datetime(datetime.fromtimestamp(instant, UTC), usegmt=True)


RETRY_AFTER = [
    pytest.param({}, None, id="absent"),
    pytest.param({"retry_after": "120"}, 120, id="seconds"),
    pytest.param({"retry_after": " 120 "}, 120, id="blanks"),
    pytest.param({"retry_after": "1.5"}, 1.5, id="fraction"),
    pytest.param({"retry_after": "0"}, 0, id="zero"),
    pytest.param({"retry_after": "-5"}, 0, id="negative"),
    pytest.param({"retry_after": "soon"}, None, id="garbage"),
    pytest.param({"retry_after": ""}, None, id="empty"),
    pytest.param({"retry_after": "60, 120"}, 120, id="two-headers"),
    pytest.param({"retry_after": "soon, 7"}, 7, id="garbage-and-seconds"),
    pytest.param({"retry_after": "9" * 12}, 999999999999, id="ages"),
    pytest.param({"retry_after": "9" * 400}, None, id="absurd"),
    pytest.param({"retry_after": http_date(NOW + 90)}, 90, id="date"),
    pytest.param({"retry_after": http_date(NOW - 90)}, 0, id="past-date"),
    pytest.param({"retry_after": http_date(NOW + 90)[:-3] + "-0000"}, 90, id="date-minus-zero"),
    pytest.param(
        {"retry_after": http_date(NOW + 5090), "date": http_date(NOW + 5000)},
        90,
        id="date-by-the-server's-clock",
    ),
    pytest.param({"retry_after": "Fri, 32 Jan 2027 99:00:00 GMT"}, None, id="impossible-date"),
]


@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER)
def test_every_retry_after_is_defined(
    headers: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D7 E15: seconds, date, past date, negative, garbage and two headers, in any time zone."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "XYZ-5:30")
        time.tzset()
        found = answer(b"", 429, **headers)
    time.tzset()

    assert isinstance(found, Unavailable)
    assert found.retry_after == seconds


def test_503_with_a_date_to_come_back_was_not_carried_out() -> None:
    """E15: 503 with Retry-After is a plain statement that nothing was done."""
    found = answer(b"", 503, retry_after="3")

    assert found == Unavailable(Reason.UNAVAILABLE, delivered=False, retry_after=3, status=503)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(CE_API)[:-20].encode(),
        b"data: " + json.dumps(CE_API).encode(),
        json.dumps([CE_API]).encode(),
        json.dumps({"data": CE_API}).encode(),
        b"token=" + planted("token-in-a-form-that-is-none").encode() * 2,
    ],
)
def test_an_unreadable_answer_is_not_quoted_where_it_may_hold_tokens(body: bytes) -> None:
    """J5: tokens in an answer that could not be read are new, so no scrubber knows them yet."""
    found = answer(body)

    assert isinstance(found, Unavailable)
    assert found.text
    assert not secrets_in(found.text)


@pytest.mark.parametrize(
    "thing",
    [
        tokens(),
        EarlierToken(1, REFRESH, NOW),
        answer(PAIR),
        refresh_request(Grant.REFRESH_TOKEN, tokens(), "", ()),
        CredentialState(tokens(), (EarlierToken(1, REFRESH, NOW),)),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_holds_secrets_is_not_pickled(thing: object) -> None:
    """J3: no copy of a secret that nobody asked for: neither alone nor as part of a state."""
    with pytest.raises(TypeError, match=r"^a \w+ is not pickled: it holds secrets$"):
        pickle.dumps(thing)


def test_what_was_granted_is_not_shown() -> None:
    """J3: neither a granted answer nor a token set shows a token when printed."""
    assert not secrets_in(f"{answer(CE_API)!r} {answer(CE_API)} {tokens()!r} {tokens()}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(f"token {REFRESH} is dead", "token *** is dead", id="plain"),
        pytest.param("a%2Bb%2Fc%3D%20d gone", "*** gone", id="percent"),
        pytest.param("a%2Bb%2Fc%3D+d gone", "*** gone", id="form"),
        pytest.param('say \\"x\\" twice', "*** twice", id="json"),
        pytest.param("one\ntwo\tthree\x1b[31m\x00", "one two three [31m", id="control-characters"),
        pytest.param("x" * 300, "x" * 199 + "…", id="length"),
        pytest.param("abc", "abc", id="too-short-to-be-a-secret"),
    ],
)
def test_a_server_s_words_are_made_fit_to_show(text: str, shown: str) -> None:
    """J5: live secrets are replaced in every spelling; the rest is one line of bounded length."""
    secrets = (REFRESH[:-2], REFRESH, "a+b/c= d", 'say "x"', "abc", "")

    assert scrub(text, secrets) == shown


@given(
    secret=st.text(st.characters(codec="utf-8"), min_size=4, max_size=40),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_no_secret_survives_the_scrubber(secret: str, before: str, after: str) -> None:
    """J5: whatever the secret is and wherever it stands, the text shown does not hold it."""
    shown = scrub(before + secret + after, (secret,))

    assert secret not in shown or secret in "***"
    assert len(shown) <= 200
    assert shown.isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/v2/token/", "https://api.example/v2/token/"),
        ("token/", "https://api.example/v2/token/"),
        ("//new.example/t", "https://new.example/t"),
        ("http://new.example/t?session=1", "http://new.example/t"),
    ],
)
def test_the_cure_of_a_redirect_is_a_whole_url(location: str, target: str) -> None:
    """F19 F20: a place named from the token endpoint's own is spelled out, fit to be put into the configuration."""
    found = classify(308, {"location": location}, b"", NOW, "https://api.example/v2/token?tenant=7")

    assert isinstance(found, Unavailable)
    assert found.text == f"token endpoint answered 308 to {target}; set token_url to {target}"


@pytest.mark.parametrize("headers", [{}, {"location": ""}, {"location": "?a=b"}, {"location": "//[::1"}])
def test_a_redirect_to_nowhere_says_what_to_check(headers: dict[str, str]) -> None:
    """F19: a 3xx that names no place, as 304, gives no place to set."""
    found = classify(304, headers, b"", NOW, "https://api.example/v2/token")

    assert isinstance(found, Unavailable)
    assert found.text == "token endpoint answered 304 and named no other place; check token_url"


WORDS = st.sampled_from(["access_token", "refresh_token", "error", "error_description", "expires_in"])
BODIES = (
    st.binary()
    | JSON.map(lambda document: json.dumps(document).encode())
    | st.dictionaries(WORDS, JSON).map(lambda document: json.dumps(document).encode())
    | st.dictionaries(WORDS, st.text(st.characters(codec="utf-8"))).map(lambda form: urlencode(form).encode())
)
HEADERS = st.dictionaries(st.sampled_from(["retry-after", "date", "location", "content-type"]), st.text(max_size=40))


@given(status=st.integers(100, 999), headers=HEADERS, body=BODIES)
@example(200, {}, b'{"access_token": "\\ud800", "refresh_token": "\\udfff"}')
def test_every_answer_whatsoever_has_a_meaning(status: int, headers: dict[str, str], body: bytes) -> None:
    """A6 A20 A31: classify is total; what it grants can be encoded, judged and is never empty."""
    found = classify(status, headers, body, NOW, "https://api.example/v2/token")

    if isinstance(found, Granted):
        assert 200 <= status < 300
        assert found.access_token or found.refresh_token
        assert found.access_token == found.access_token.strip()
        f"{found.access_token}{found.refresh_token}".encode()
        judge(tokens(found.access_token), found.raw, POLICY, "a b")
    elif isinstance(found, Unavailable):
        assert found.retry_after is None or found.retry_after >= 0
        scrub(found.text, ()).encode(errors="surrogatepass")


FIELDS = st.sampled_from(["expires_in", "scope", "token_type", "id_token", "refresh_expires_in", "other"])


@given(raw=st.dictionaries(FIELDS, JSON), access=st.text() | JSON.map(lambda claims: jwt(exp=claims)))
def test_no_field_of_a_saved_answer_can_raise(raw: dict[str, object], access: str) -> None:
    """A4 A6 A8 A16: judge is total, keeps both tokens, and every lifetime it finds is bounded."""
    verdict = judge(tokens(access), raw, POLICY, "a")

    assert (verdict.tokens.access_token, verdict.tokens.refresh_token) == (access, REFRESH)
    assert 0 <= verdict.tokens.lifetime_seconds <= POLICY.max_lifetime
    assert verdict.tokens.generation == 2


def test_the_forms_are_those_of_the_rfc() -> None:
    """RFC 6749 sections 4.3, 4.4 and 6: the fields of each grant, then what is configured beside."""
    extra = (("audience", "x"),)

    assert refresh_request(Grant.REFRESH_TOKEN, tokens(), "a b", extra).fields == (
        ("grant_type", "refresh_token"),
        ("refresh_token", REFRESH),
        ("scope", "a b"),
        ("audience", "x"),
    )
    assert refresh_request(Grant.CLIENT_CREDENTIALS, None, "", ()).fields == (("grant_type", "client_credentials"),)
    assert password_request("user", "word", "", extra).fields == (
        ("grant_type", "password"),
        ("username", "user"),
        ("password", "word"),
        ("audience", "x"),
    )
    assert "word" not in repr(password_request("user", "word", "", ()))
