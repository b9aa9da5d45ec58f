"""Refresh token replaced, refresh token preserved: what a granted answer does to the state."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.core.grant import classify
from rotator.core.model import DAY, Grant, Granted, Oddity, Reason, RotationPolicy, Unavailable
from rotator.core.record import to_record
from rotator.core.state import (
    CredentialState,
    adopted,
    after_unavailable,
    begin_refresh,
    from_refresh_token,
    judged,
    received,
)
from tests.samples import jwt
from tests.secrets_scan import planted

NOW = 1_800_000_000.0
JWT = jwt(iat=NOW, exp=NOW + 3600)
ROTATING = RotationPolicy(rotation_required=True, refresh_token_lifetime=30 * DAY)


def seeded(policy: RotationPolicy = ROTATING) -> CredentialState:
    """Return the state of a credential that was given a refresh token and nothing else."""
    tokens = from_refresh_token(planted("seed"), policy, NOW)
    return adopted(CredentialState(), tokens, "fingerprint", NOW, policy.keep_generations)


def after(
    state: CredentialState, body: dict[str, Any], now: float, policy: RotationPolicy = ROTATING
) -> tuple[CredentialState, tuple[Oddity, ...]]:
    """Take in an answer as the line does: from the wire, in two steps."""
    granted = classify(200, {}, json.dumps(body).encode(), now)
    assert isinstance(granted, Granted)
    saved = received(begin_refresh(state, now), granted, policy, now)
    return judged(saved, policy, Grant.REFRESH_TOKEN, "", on_schedule=True)


def refresh_token(state: CredentialState) -> str | None:
    """Return the refresh token that the next refresh would send."""
    assert state.tokens is not None
    return state.tokens.refresh_token


def answer(number: int, **fields: object) -> dict[str, Any]:
    """Return the body of the answer to refresh `number`."""
    return {"access_token": planted(f"access-{number}"), "expires_in": 3600, **fields}


def test_refresh_token_replaced() -> None:
    """A23 B33: a new refresh token replaces the old one, which is kept as an earlier generation."""
    first, _ = after(seeded(), answer(1, refresh_token=planted("one")), NOW)
    second, oddities = after(first, answer(2, refresh_token=planted("two")), NOW + 3600)

    assert refresh_token(second) == planted("two")
    assert [kept.refresh_token for kept in second.earlier] == [planted("one"), planted("seed")]
    assert second.generation == first.generation + 1
    assert oddities == ()


@pytest.mark.parametrize("fields", [{}, {"refresh_token": None}, {"refresh_token": ""}])
def test_refresh_token_preserved(fields: dict[str, object]) -> None:
    """A22 A23: an answer without a refresh token keeps the old one, two cycles long and its clock too."""
    policy = RotationPolicy(refresh_token_lifetime=30 * DAY)
    first, _ = after(seeded(policy), answer(1, **fields), NOW + 10, policy)
    second, oddities = after(first, answer(2, **fields), NOW + 3600, policy)

    assert refresh_token(second) == planted("seed")
    assert second.earlier == ()
    assert oddities == ()
    assert second.tokens is not None
    assert second.tokens.access_token == planted("access-2")
    assert second.tokens.refresh_obtained_at == NOW
    assert second.tokens.refresh_expires_at == NOW + 30 * DAY


@given(seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_the_refresh_token_is_the_newest_one_ever_sent(seed: int, share: float) -> None:
    """A25: over 100 cycles with the field there at random, the newest refresh token is what we hold."""
    chance = random.Random(seed)
    state, newest = seeded(), planted("seed")
    for number in range(100):
        fields: dict[str, object] = {}
        if chance.random() < share:
            fields["refresh_token"] = newest = planted(f"refresh-{number}")
        elif chance.random() < 0.5:
            fields["refresh_token"] = chance.choice([None, "", newest])
        state, _ = after(state, answer(number, **fields), NOW + number * 3600)

        assert refresh_token(state) == newest
        assert state.generation == number + 2
        assert newest not in [kept.refresh_token for kept in state.earlier]
        assert len(state.earlier) <= ROTATING.keep_generations


def test_absent_fields_survive() -> None:
    """A24: an answer is merged with what there was: id token, scope and type of an earlier one stay."""
    whole = answer(1, refresh_token=planted("one"), id_token="i.d.t", scope="a b", token_type="DPoP")
    state, _ = after(seeded(), whole, NOW)
    state, _ = after(state, answer(2, token_type="DPoP"), NOW + 3600)

    assert state.tokens is not None
    assert (state.tokens.id_token, state.tokens.scope, state.tokens.token_type) == ("i.d.t", "a b", "DPoP")


def test_unknown_fields_are_forgotten() -> None:
    """A24: a field that rotator does not know is kept nowhere once the answer has been judged: it may be a secret."""
    state, _ = after(seeded(), answer(1, refresh_token=planted("one"), instance_token=planted("unknown")), NOW)

    assert planted("unknown") not in json.dumps(to_record(state))


@pytest.mark.parametrize(
    ("access", "fields", "seconds"),
    [
        pytest.param(JWT, {"expires_in": 3600}, 1200, id="a-jwt-ends-when-it-says"),
        pytest.param(JWT, {"expires_in": 60}, 60, id="a-jwt-and-what-is-left"),
        pytest.param(planted("opaque"), {}, 1200, id="an-assumed-end-stays"),
        pytest.param(planted("opaque"), {"expires_in": 1200}, 1200, id="what-is-left"),
        pytest.param(planted("opaque"), {"expires_in": 3600}, 3600, id="the-server-prolongs-it"),
    ],
)
def test_an_access_token_that_is_handed_out_again_ends_when_it_did(
    access: str, fields: dict[str, object], seconds: float
) -> None:
    """L10: the same token once more is no fresher: its end moves later only if the server says so."""
    state, _ = after(seeded(), {"access_token": access}, NOW)
    state, _ = after(state, {"access_token": access, **fields}, NOW + 2400)

    assert state.repeated
    assert state.tokens is not None
    assert state.tokens.lifetime_seconds == pytest.approx(seconds)


def test_an_access_token_that_outlives_its_assumed_end_is_believed_anew() -> None:
    """L10: without a stated lifetime, a server that hands a token out after its assumed end shows that it lives."""
    state, _ = after(seeded(), {"access_token": planted("opaque")}, NOW)
    state, _ = after(state, {"access_token": planted("opaque")}, NOW + 3610)

    assert state.tokens is not None
    assert state.tokens.expires_at == NOW + 3610 + 3600


def test_lifetimes_count_from_the_request() -> None:
    """An answer that took 40 s was written at an unknown moment of them: neither token may be believed in too long."""
    policy = RotationPolicy(refresh_token_lifetime=30 * DAY)
    granted = Granted(planted("access"), planted("new"), {"expires_in": 3600})
    saved = received(begin_refresh(seeded(policy), NOW), granted, policy, NOW + 40)
    state, _ = judged(saved, policy, Grant.REFRESH_TOKEN, "", on_schedule=True)

    assert state.tokens is not None
    assert (state.tokens.obtained_at, state.tokens.expires_at) == (NOW, NOW + 3600)
    assert state.tokens.refresh_expires_at == NOW + 30 * DAY


@pytest.mark.parametrize(("seconds", "counted_from"), [(4, NOW), (11, NOW + 11)], ids=["replay", "much later"])
def test_the_pair_that_a_replay_brings_may_be_as_old_as_the_lost_answer(seconds: float, counted_from: float) -> None:
    """With a grace period a replay may bring the pair that was issued before; later requests get their own."""
    lost = Unavailable(Reason.READ_TIMEOUT, delivered=True)
    state = after_unavailable(begin_refresh(seeded(), NOW), lost, ROTATING, Grant.REFRESH_TOKEN, NOW + 3, 0.0)
    state, _ = after(state, answer(1, refresh_token=planted("one")), NOW + seconds)

    assert state.tokens is not None
    assert state.tokens.expires_at == counted_from + 3600


def test_the_pair_is_safe_before_anything_is_judged() -> None:
    """A8 B28: the state to save first holds both tokens and the other fields as they came."""
    granted = Granted(planted("access"), planted("new"), {"expires_in": object(), "scope": object()})
    state = received(begin_refresh(seeded(), NOW), granted, ROTATING, NOW)

    assert refresh_token(state) == planted("new")
    assert state.unjudged == granted.raw
    assert state.refresh_started_at is None


@pytest.mark.parametrize(
    "fields",
    [pytest.param({}, id="A27-absent"), pytest.param({"refresh_token": planted("one")}, id="A28-repeated")],
)
def test_a_missing_rotation_is_flagged_at_once(fields: dict[str, object]) -> None:
    """A27 A28: with `rotation_required`, an answer without a new refresh token says so."""
    state, _ = after(seeded(), answer(1, refresh_token=planted("one")), NOW)
    state, oddities = after(state, answer(2, **fields), NOW + 3600)

    assert oddities == (Oddity.ROTATION_MISSING,)
    assert refresh_token(state) == planted("one")
    assert [kept.refresh_token for kept in state.earlier] == [planted("seed")]


def test_an_earlier_refresh_token_handed_back_is_no_rotation() -> None:
    """A28: a server in its grace window hands back the token before the one that was sent; both are kept."""
    state, _ = after(seeded(), answer(1, refresh_token=planted("one")), NOW)
    state, _ = after(state, answer(2, refresh_token=planted("two")), NOW + 3600)
    state, oddities = after(state, answer(3, refresh_token=planted("one")), NOW + 7200)

    assert oddities == (Oddity.ROTATION_MISSING,)
    assert refresh_token(state) == planted("one")
    assert planted("two") in [kept.refresh_token for kept in state.earlier]


@pytest.mark.parametrize("fields", [{}, {"refresh_token": planted("seed")}])
def test_a_missing_rotation_of_a_seed_is_flagged_at_once(fields: dict[str, object]) -> None:
    """A27: the very first answer counts too: a consumed seed looks healthy until the next refresh."""
    _, oddities = after(seeded(), answer(1, **fields), NOW + 1)

    assert oddities == (Oddity.ROTATION_MISSING,)


def test_a_refresh_token_alone_never_empties_the_access_token() -> None:
    """A31: an answer without an access token keeps the old one and its end, and takes the new refresh token."""
    state, _ = after(seeded(), answer(1, refresh_token=planted("one")), NOW)
    state, oddities = after(state, {"refresh_token": planted("two")}, NOW + 1800)

    assert state.tokens is not None
    assert state.tokens.access_token == planted("access-1")
    assert state.tokens.expires_at == NOW + 3600
    assert refresh_token(state) == planted("two")
    assert Oddity.ACCESS_TOKEN_MISSING in oddities
