"""The durable form of a state: what is written can be read, and nothing else breaks the reader."""

import json
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.core.grant import judge
from rotator.core.model import EarlierToken, Reason, RotationPolicy, TokenSet
from rotator.core.record import NewerFormatError, RecordError, from_record, to_record
from rotator.core.state import CredentialState, Delivery, Status, Trouble
from tests.samples import full_state, state_of, token_set

INSTANT = st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 2e9)
COUNT = st.integers(0, 2**53)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)
TOKENS = st.builds(
    TokenSet,
    generation=COUNT,
    access_token=st.text(),
    refresh_token=st.none() | st.text(),
    id_token=st.none() | st.text(),
    token_type=st.text(),
    scope=st.text(),
    obtained_at=INSTANT,
    expires_at=INSTANT,
    refresh_obtained_at=INSTANT,
    refresh_expires_at=st.none() | INSTANT.map(lambda instant: min(instant, 4e9)),
)
TROUBLE = st.builds(
    Trouble,
    failures=COUNT,
    reason=st.sampled_from(Reason),
    text=st.text(),
    since_at=INSTANT,
    retry_at=INSTANT | st.just(float("inf")),
    refusals=COUNT,
    ambiguous_at=st.none() | INSTANT,
    asked_as=st.text(),
    replayed=st.booleans(),
)
DELIVERY = st.builds(
    Delivery,
    generation=COUNT,
    at=INSTANT,
    failures=COUNT,
    retry_at=INSTANT,
    reason=st.none() | st.sampled_from(Reason),
    text=st.text(),
)
SCALAR = st.none() | st.booleans() | st.integers() | st.text() | INSTANT
STATE = st.builds(
    CredentialState,
    tokens=st.none() | TOKENS,
    earlier=st.lists(
        st.builds(EarlierToken, generation=COUNT, refresh_token=st.text(), obtained_at=INSTANT),
        max_size=3,
    ).map(tuple),
    unjudged=st.none() | st.dictionaries(st.text(), SCALAR | st.lists(SCALAR, max_size=3)),
    status=st.sampled_from(Status),
    refresh_started_at=st.none() | INSTANT,
    trouble=st.none() | TROUBLE,
    last_attempt_at=INSTANT,
    last_success_at=INSTANT,
    recent=st.lists(st.tuples(INSTANT, INSTANT), max_size=4).map(tuple),
    logged_in_at=INSTANT,
    refresh_life_began_at=INSTANT,
    refresh_life_ends_at=INSTANT,
    repeated=st.booleans(),
    hour_started_at=INSTANT,
    hour_calls=COUNT,
    deliveries=st.dictionaries(st.text(), DELIVERY, max_size=3),
    seed_fingerprint=st.text(),
    saved_at=INSTANT,
    clock_suspect=st.booleans(),
)


@given(STATE)
def test_every_state_survives_the_way_through_json(state: CredentialState) -> None:
    """B1: what is read is what was written, for every state, also one with odd texts and numbers."""
    text = json.dumps(to_record(state), allow_nan=False)
    assert state == from_record(json.loads(text))


def test_no_field_is_forgotten() -> None:
    """A state in which each field differs from its default comes back whole; so does an empty one."""
    state = full_state()
    empty = CredentialState()
    for field in fields(CredentialState):
        assert getattr(state, field.name) != getattr(empty, field.name), field.name
    assert state == from_record(to_record(state))
    assert empty == from_record(to_record(empty))


def test_an_end_beyond_all_calendars_is_cut_off() -> None:
    """A10: a refresh token that lives for ever, as an earlier rotator stored it, has an end that can be shown."""
    stored = to_record(CredentialState(tokens=token_set(refresh_expires_at=9e18)))
    tokens = from_record(stored).tokens
    assert tokens is not None
    assert tokens.refresh_expires_at is not None
    assert datetime.fromtimestamp(tokens.refresh_expires_at, UTC).year == 9999


@given(JSON)
def test_any_json_is_a_record_or_a_record_error(document: object) -> None:
    """G9: a document that is no record is refused with a `RecordError`, never with a crash."""
    with suppress(RecordError):
        from_record(document)


@given(st.data())
def test_any_damage_to_a_record_is_a_record_error(data: st.DataObject) -> None:
    """G9: a record with any one value replaced by any other is read, or refused cleanly."""
    document: object = json.loads(json.dumps(to_record(full_state())))
    place = document
    while isinstance(place, (dict, list)) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.booleans()) or not isinstance(place[key], (dict, list)):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    with suppress(RecordError):
        from_record(document)


def test_a_newer_format_is_refused_and_a_newer_key_is_ignored() -> None:
    """G8: a record of a newer format is told apart from damage; additional keys do no harm."""
    record = to_record(full_state())
    with pytest.raises(NewerFormatError, match="format is 2"):
        from_record(record | {"format": 2})
    assert full_state() == from_record(record | {"new": [1, 2], "tokens": record["tokens"]})


def test_an_unknown_reason_does_not_cost_the_tokens() -> None:
    """A reason that only a newer version knows is read as another refusal."""
    record = json.loads(json.dumps(to_record(full_state())))
    record["trouble"]["reason"] = "of_next_year"
    state = from_record(record)
    assert state.trouble is not None
    assert state.trouble.reason is Reason.OTHER_REFUSAL
    assert full_state().tokens == state.tokens


@pytest.mark.parametrize("missing", ["generation", "access_token", "obtained_at", "expires_at"])
def test_tokens_without_their_main_fields_are_refused(missing: str) -> None:
    """C15: a record whose expiry or generation is gone is damage, and not taken for zero."""
    record = json.loads(json.dumps(to_record(state_of(3))))
    del record["tokens"][missing]
    with pytest.raises(RecordError, match=missing):
        from_record(record)


@given(st.dictionaries(st.sampled_from(["expires_in", "scope", "token_type", "id_token"]), JSON))
def test_what_is_kept_of_an_answer_is_judged_as_the_answer(raw: dict[str, object]) -> None:
    """A8: an answer's odd fields are cut to a size that can be saved, and judged the same after."""
    state = replace(state_of(), unjudged=raw)
    kept = from_record(json.loads(json.dumps(to_record(state), allow_nan=False))).unjudged
    assert kept is not None
    policy = RotationPolicy()
    assert judge(token_set(), raw, policy, "") == judge(token_set(), kept, policy, "")


def test_a_bottomless_answer_can_be_saved() -> None:
    """A8: a field nested deeper than the stack, or an infinite number, does not stop the save."""
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    state = replace(state_of(), unjudged={"deep": deep, "expires_in": float("inf")})
    text = json.dumps(to_record(state), allow_nan=False)
    assert state.tokens == from_record(json.loads(text)).tokens
    while isinstance(deep, list):  # take it apart by hand: freeing it recursively is slow
        deep = deep.pop()
