"""Token sets and states for tests, every secret in them planted."""

import base64
import json

from rotator.core.model import EarlierToken, Reason, TokenSet
from rotator.core.state import CredentialState, Delivery, Status, Trouble
from tests.secrets_scan import planted

AT = 1_700_000_000.0
"""Tuesday, 14 November 2023, 22:13:20 UTC."""


def token_set(generation: int = 1, **changes: object) -> TokenSet:
    """Return a token set of an hour, made at `AT`."""
    fields: dict[str, object] = {
        "generation": generation,
        "access_token": planted(f"access-{generation}"),
        "refresh_token": planted(f"refresh-{generation}"),
        "id_token": None,
        "token_type": "Bearer",
        "scope": "",
        "obtained_at": AT,
        "expires_at": AT + 3600,
        "refresh_obtained_at": AT,
        "refresh_expires_at": None,
    }
    return TokenSet(**(fields | changes))  # type: ignore[arg-type]


def jwt(**claims: object) -> str:
    """Return an unsigned JWT with these claims."""
    parts = ({"alg": "none"}, claims, "signature")
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


def state_of(generation: int = 1, **changes: object) -> CredentialState:
    """Return a state that holds the token set of a generation and nothing else."""
    return CredentialState(tokens=token_set(generation, **changes))


def full_state(generation: int = 7) -> CredentialState:
    """Return a state in which no field has its default."""
    return CredentialState(
        tokens=token_set(generation, id_token=planted("id"), refresh_expires_at=AT + 1e6),
        earlier=(EarlierToken(generation - 1, planted("refresh-earlier"), AT - 1.5),),
        unjudged={"scope": [], "expires_in": 3600, "x": {}, "y": None},
        status=Status.SUSPECT,
        refresh_started_at=AT + 1,
        trouble=Trouble(3, Reason.DNS, "no such host", AT, AT + 2, 1, AT + 3, replayed=True),
        last_attempt_at=AT + 4,
        last_success_at=AT + 5,
        recent=((AT, 3600.0), (AT + 1, 60.0)),
        repeated=True,
        logged_in_at=AT + 5,
        refresh_life_began_at=AT + 5,
        refresh_life_ends_at=AT + 1e6,
        hour_started_at=AT + 6,
        hour_calls=9,
        deliveries={
            "good": Delivery(generation, AT),
            "bad": Delivery(1, AT, 2, AT + 9, Reason.NO_SPACE, "disk full"),
        },
        seed_fingerprint="0123abcd",
        saved_at=AT + 7,
        clock_suspect=True,
    )
