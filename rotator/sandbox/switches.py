"""The switches: each thing that CE-API's documents leave open, and each thing that goes wrong out there.

One frozen value. It is set at start, by `PATCH /sandbox/switches` or by `Sandbox.change`, and is replaced as a whole.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rotator.sandbox.odd import check_fault, check_oddity


def _switch(meaning: str, default: Any, *choices: str, shown: bool = True) -> Any:
    return field(default=default, repr=shown, metadata={"meaning": meaning, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """How the authorization server behaves now. Raises ValueError, naming the switch, for a value without sense."""

    rotation: bool = _switch("Each refresh replaces the refresh token", default=True)
    grace_seconds: float = _switch("How long a used refresh token is still answered", 0.0)
    grace_answer: str = _switch("A replay in the grace window gets the same or a new pair", "same", "same", "new")
    reuse_revokes_family: bool = _switch(
        "Reuse outside the grace window revokes every token of the family", default=True
    )
    access_lifetime: float = _switch("Lifetime of an access token in seconds", 3600.0)
    refresh_lifetime: float = _switch("Lifetime of a refresh token in seconds", 30 * 86_400.0)
    jwt_access_tokens: bool = _switch("/v2/token issues JWT access tokens (/v1/token always does)", default=False)
    token_prefix: str = _switch("What every token starts with, to find tokens in logs; in a JWT, its jti", "PLANTED-")
    latency_seconds: float = _switch("Wait before a token request is looked at", 0.0)
    fault: str = _switch("Fault that strikes token requests (GET /sandbox/ lists them)", "")
    fault_ratio: float = _switch("Share of the token requests that the fault strikes, 0 to 1", 1.0)
    retry_after: str = _switch("Value of Retry-After in 429_retry_after and 503_retry_after", "1")
    odd: str = _switch("Odd way to answer (GET /sandbox/ lists them)", "")
    client_secret: str = _switch("The client's secret; empty: a public client", "sandbox-secret", shown=False)
    disabled_users: tuple[str, ...] = _switch("Users whose grants are refused", ())

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            match each.default:
                case bool():
                    good, wanted = isinstance(value, bool), "true or false"
                case float():
                    good, wanted = _is_number(value), "a number, 0 or more"
                case str():
                    good, wanted = isinstance(value, str), "a string"
                case _:
                    good = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
                    wanted = "a list of strings"
                    if good:
                        object.__setattr__(self, each.name, tuple(value))
            choices = each.metadata["choices"]
            if choices and value not in choices:
                good, wanted = False, " or ".join(choices)
            if not good:
                raise ValueError(f"switch {each.name!r} must be {wanted}, not {value!r}")
        if self.fault_ratio > 1:
            raise ValueError(f"switch 'fault_ratio' must be 0 to 1, not {self.fault_ratio!r}")
        check_fault(self.fault)
        check_oddity(self.odd)

    def changed(self, changes: Mapping[str, Any]) -> "Switches":
        """Copy with `changes`; raises ValueError for an unknown name or a wrong value."""
        unknown = sorted(set(changes) - set(SWITCH_NAMES))
        if unknown:
            raise ValueError(f"unknown switch {unknown[0]!r}; the switches are {', '.join(SWITCH_NAMES)}")
        return replace(self, **changes)


SWITCH_NAMES = tuple(each.name for each in fields(Switches))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
