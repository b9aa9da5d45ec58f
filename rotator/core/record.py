"""The durable form of a credential's state: a plain JSON object, the same in every store.

`format` grows only when an older rotator could no longer read the record safely. Keys that are
added without that are ignored by older versions, and a key that is missing has its default. What is
empty is not written.
"""

import math
from collections.abc import Mapping
from typing import Final, cast

from rotator.core.model import EarlierToken, Reason, TokenSet
from rotator.core.state import CredentialState, Delivery, Status, Trouble

FORMAT: Final = 1
_LATEST: Final = 253_370_764_800.0
"""The first day of 9999: a later end of a refresh token cannot be shown (case A10)."""
_UNJUDGED_DEPTH: Final = 2
"""`judge` reads no deeper than an array of strings."""


class RecordError(ValueError):
    """The document is no record of a credential's state."""


class NewerFormatError(RecordError):
    """The record was written by a newer rotator: nothing is wrong with it, so it must stay."""


def to_record(state: CredentialState) -> dict[str, object]:
    """Return the state as strict JSON: no infinite numbers, no nesting without bounds."""
    everything: dict[str, object] = {
        "tokens": state.tokens and _tokens_out(state.tokens),
        "earlier": [_earlier_out(one) for one in state.earlier],
        "trouble": state.trouble and _trouble_out(state.trouble),
        "last_attempt_at": state.last_attempt_at,
        "last_success_at": state.last_success_at,
        "recent": [list(pair) for pair in state.recent],
        "repeated": state.repeated,
        "logged_in_at": state.logged_in_at,
        "refresh_life_began_at": state.refresh_life_began_at,
        "refresh_life_ends_at": state.refresh_life_ends_at,
        "hour_started_at": state.hour_started_at,
        "hour_calls": state.hour_calls,
        "deliveries": {name: _delivery_out(one) for name, one in state.deliveries.items()},
        "seed_fingerprint": state.seed_fingerprint,
        "saved_at": state.saved_at,
        "clock_suspect": state.clock_suspect,
    }
    record: dict[str, object] = {"format": FORMAT, "status": state.status.value}
    record.update((key, value) for key, value in everything.items() if value)
    # An empty answer and a mark at instant 0 are something else than none.
    if state.unjudged is not None:
        record["unjudged"] = _shallow(state.unjudged, _UNJUDGED_DEPTH)
    if state.refresh_started_at is not None:
        record["refresh_started_at"] = state.refresh_started_at
    return record


def from_record(document: object) -> CredentialState:
    """Read what `to_record` wrote.

    Total over JSON: whatever else it is given raises `RecordError`, which names the key. A reason
    this version does not know is read as `other_refusal`: no refresh token is lost to a detail.
    """
    if not isinstance(document, dict):
        raise RecordError("it is not a JSON object")
    version = _count(document, "format")
    if version > FORMAT:
        raise NewerFormatError(f"its format is {version} and this rotator reads up to {FORMAT}")
    if version < 1:
        raise RecordError("it has no format number")
    try:
        status = Status(_text(document, "status", Status.OK.value))
    except ValueError as error:
        raise RecordError("status is not one of " + ", ".join(Status)) from error
    tokens = _object(document, "tokens")
    trouble = _object(document, "trouble")
    return CredentialState(
        tokens=None if tokens is None else _tokens_in(tokens),
        earlier=tuple(_earlier_in(one) for one in _array(document, "earlier")),
        unjudged=_object(document, "unjudged"),
        status=status,
        refresh_started_at=_number_or_none(document, "refresh_started_at"),
        trouble=None if trouble is None else _trouble_in(trouble),
        last_attempt_at=_number(document, "last_attempt_at"),
        last_success_at=_number(document, "last_success_at"),
        recent=tuple(_pair_in(pair) for pair in _array(document, "recent")),
        repeated=_flag(document, "repeated"),
        logged_in_at=_number(document, "logged_in_at"),
        refresh_life_began_at=_number(document, "refresh_life_began_at"),
        refresh_life_ends_at=_number(document, "refresh_life_ends_at"),
        hour_started_at=_number(document, "hour_started_at"),
        hour_calls=_count(document, "hour_calls"),
        deliveries={name: _delivery_in(name, one) for name, one in (_object(document, "deliveries") or {}).items()},
        seed_fingerprint=_text(document, "seed_fingerprint", ""),
        saved_at=_number(document, "saved_at"),
        clock_suspect=_flag(document, "clock_suspect"),
    )


def _shallow(value: object, depth: int) -> object:
    """Return a copy that every JSON reader takes and that `judge` judges the same.

    A server may nest an unknown field so deep that writing it would overflow the stack, and may
    send 1e999, which is infinite. Neither may keep its pair from being saved (case A8).
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {}  # neither number nor text nor array: as odd as it was
    if isinstance(value, Mapping):
        items = value.items() if depth else ()
        return {key: _shallow(inner, depth - 1) for key, inner in items}
    if isinstance(value, (list, tuple)):
        return [_shallow(inner, depth - 1) for inner in value] if depth else []
    return value


def _tokens_out(tokens: TokenSet) -> dict[str, object]:
    record: dict[str, object] = {
        "generation": tokens.generation,
        "access_token": tokens.access_token,
        "refresh_token": tokens.refresh_token,
        "token_type": tokens.token_type,
        "scope": tokens.scope,
        "obtained_at": tokens.obtained_at,
        "expires_at": tokens.expires_at,
        "refresh_obtained_at": tokens.refresh_obtained_at,
    }
    if tokens.id_token is not None:
        record["id_token"] = tokens.id_token
    if tokens.refresh_expires_at is not None and math.isfinite(tokens.refresh_expires_at):
        record["refresh_expires_at"] = tokens.refresh_expires_at
    return record


def _tokens_in(record: dict[str, object]) -> TokenSet:
    for key in ("generation", "access_token", "obtained_at", "expires_at"):
        if key not in record:
            raise RecordError(f"tokens.{key} is missing")
    obtained_at = _number(record, "obtained_at")
    return TokenSet(
        generation=_count(record, "generation"),
        access_token=_text(record, "access_token", ""),
        refresh_token=_text_or_none(record, "refresh_token"),
        id_token=_text_or_none(record, "id_token"),
        token_type=_text(record, "token_type", "Bearer"),
        scope=_text(record, "scope", ""),
        obtained_at=obtained_at,
        expires_at=_number(record, "expires_at"),
        refresh_obtained_at=_number(record, "refresh_obtained_at", obtained_at),
        refresh_expires_at=_end_in(_number_or_none(record, "refresh_expires_at")),
    )


def _end_in(instant: float | None) -> float | None:
    return None if instant is None else min(instant, _LATEST)


def _earlier_out(earlier: EarlierToken) -> dict[str, object]:
    return {
        "generation": earlier.generation,
        "refresh_token": earlier.refresh_token,
        "obtained_at": earlier.obtained_at,
    }


def _earlier_in(record: object) -> EarlierToken:
    if not isinstance(record, dict) or "refresh_token" not in record:
        raise RecordError("earlier holds something that is no earlier refresh token")
    return EarlierToken(
        generation=_count(record, "generation"),
        refresh_token=_text(record, "refresh_token", ""),
        obtained_at=_number(record, "obtained_at"),
    )


def _trouble_out(trouble: Trouble) -> dict[str, object]:
    record: dict[str, object] = {
        "failures": trouble.failures,
        "reason": trouble.reason.value,
        "text": trouble.text,
        "since_at": trouble.since_at,
        # null: never of its own accord
        "retry_at": trouble.retry_at if math.isfinite(trouble.retry_at) else None,
        "refusals": trouble.refusals,
        "replayed": trouble.replayed,
    }
    if trouble.ambiguous_at is not None:
        record["ambiguous_at"] = trouble.ambiguous_at
    if trouble.asked_as:
        record["asked_as"] = trouble.asked_as
    return record


def _trouble_in(record: dict[str, object]) -> Trouble:
    retry_at = _number_or_none(record, "retry_at")
    return Trouble(
        failures=_count(record, "failures"),
        reason=_reason(record) or Reason.OTHER_REFUSAL,
        text=_text(record, "text", ""),
        since_at=_number(record, "since_at"),
        retry_at=math.inf if retry_at is None else retry_at,
        refusals=_count(record, "refusals"),
        ambiguous_at=_number_or_none(record, "ambiguous_at"),
        replayed=_flag(record, "replayed"),
        asked_as=_text(record, "asked_as", ""),
    )


def _delivery_out(delivery: Delivery) -> dict[str, object]:
    record: dict[str, object] = {
        "generation": delivery.generation,
        "at": delivery.at,
        "expires_at": delivery.expires_at,
    }
    if delivery.failures or delivery.reason or delivery.text or delivery.retry_at:
        record["failures"] = delivery.failures
        record["retry_at"] = delivery.retry_at
        record["reason"] = delivery.reason.value if delivery.reason else None
        record["text"] = delivery.text
    return record


def _delivery_in(name: str, record: object) -> Delivery:
    if not isinstance(record, dict):
        raise RecordError(f"deliveries.{name} is not an object")
    return Delivery(
        generation=_count(record, "generation"),
        at=_number(record, "at"),
        failures=_count(record, "failures"),
        retry_at=_number(record, "retry_at"),
        reason=_reason(record),
        text=_text(record, "text", ""),
        expires_at=_number(record, "expires_at"),
    )


def _reason(record: dict[str, object]) -> Reason | None:
    text = _text_or_none(record, "reason")
    if text is None:
        return None
    try:
        return Reason(text)
    except ValueError:
        return Reason.OTHER_REFUSAL


def _pair_in(pair: object) -> tuple[float, float]:
    if not isinstance(pair, list) or len(pair) != 2:  # noqa: PLR2004 - a pair
        raise RecordError("recent holds something that is no pair of numbers")
    numbers = dict(zip(("recent.at", "recent.lifetime"), pair, strict=True))
    return _number(numbers, "recent.at"), _number(numbers, "recent.lifetime")


def _object(record: dict[str, object], key: str) -> dict[str, object] | None:
    value = record.get(key)
    if value is not None and not isinstance(value, dict):
        raise RecordError(f"{key} is not an object")
    return cast("dict[str, object] | None", value)


def _array(record: dict[str, object], key: str) -> list[object]:
    value = record.get(key, [])
    if not isinstance(value, list):
        raise RecordError(f"{key} is not an array")
    return value


def _text_or_none(record: dict[str, object], key: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise RecordError(f"{key} is not a text")
    return value


def _text(record: dict[str, object], key: str, default: str) -> str:
    value = record.get(key, default)
    if not isinstance(value, str):
        raise RecordError(f"{key} is not a text")
    return value


def _number_or_none(record: dict[str, object], key: str) -> float | None:
    return None if record.get(key) is None else _number(record, key)


def _number(record: dict[str, object], key: str, default: float = 0.0) -> float:
    value = record.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecordError(f"{key} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RecordError(f"{key} is out of range")
    return number


def _count(record: dict[str, object], key: str) -> int:
    value = record.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RecordError(f"{key} is not a count")
    return value


def _flag(record: dict[str, object], key: str) -> bool:
    value = record.get(key, False)
    if not isinstance(value, bool):
        raise RecordError(f"{key} is neither true nor false")
    return value
