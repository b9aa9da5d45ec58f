"""The nouns of rotator: what was issued, what a token endpoint may answer, what may be due.

Instants (`*_at`) are seconds since the epoch, UTC, on the daemon's own never-backward timeline
(`adapters/clock.py`). Durations are seconds. Everything here is immutable: state is replaced in one
assignment, never edited, so a reader in another thread always sees a whole one.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0


class Reason(StrEnum):
    """Why something did not work. One vocabulary for log, metric, status and test."""

    # Nothing reached the token endpoint.
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    PROXY = "proxy"
    LOCAL_RESOURCES = "local_resources"  # out of file descriptors or memory: our fault, not the server's
    BAD_INPUT = "bad_input"  # a client secret, CA file or certificate cannot be read
    # The token endpoint said plainly that nothing was done.
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    FORBIDDEN = "forbidden"
    REDIRECT = "redirect"
    # The request may have been carried out (invariant 6).
    READ_TIMEOUT = "read_timeout"
    CONNECTION_LOST = "connection_lost"
    HTTP_5XX = "http_5xx"
    UNREADABLE_ANSWER = "unreadable_answer"
    INTERRUPTED = "interrupted"  # the daemon died between "sent" and "saved"
    # Refusals, RFC 6749 section 5.2.
    INVALID_GRANT = "invalid_grant"
    TOKEN_REUSE = "token_reuse"
    INVALID_CLIENT = "invalid_client"
    UNAUTHORIZED_CLIENT = "unauthorized_client"
    INVALID_REQUEST = "invalid_request"
    INVALID_SCOPE = "invalid_scope"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    OTHER_REFUSAL = "other_refusal"
    # Our own side.
    LOGIN_REQUIRED = "login_required"
    REAUTHORIZATION_REQUIRED = "reauthorization_required"
    FUSE_BLOWN = "fuse_blown"
    SAVE_FAILED = "save_failed"
    FENCED = "fenced"  # another replica has written since we last read
    NOT_OWNER = "not_owner"  # another replica refreshes this credential, or our lease is nearly over
    STATE_UNREADABLE = "state_unreadable"
    STATE_DAMAGED = "state_damaged"  # it is kept, but no use: a login is the cure
    STATE_NEWER = "state_newer"  # a newer rotator wrote it
    # Outputs.
    NO_SPACE = "no_space"
    READ_ONLY = "read_only"
    PERMISSION = "permission"
    MISSING_DIRECTORY = "missing_directory"
    BUSY_TARGET = "busy_target"  # a bind-mounted single file cannot be renamed over
    IO_ERROR = "io_error"
    HOOK_FAILED = "hook_failed"
    # Kubernetes.
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    IMMUTABLE = "immutable"
    TOO_LARGE = "too_large"
    REJECTED = "rejected"
    NOT_OURS = "not_ours"  # an object that somebody else made
    CONTESTED = "contested"  # somebody overwrites it as often as we write it


class Oddity(StrEnum):
    """What was tolerated in a granted answer: it lowers the answer's grade, never drops a token."""

    EXPIRES_IN_TEXT = "expires_in_text"
    EXPIRES_IN_MISSING = "expires_in_missing"
    EXPIRES_IN_ODD = "expires_in_odd"
    EXPIRES_IN_CLAMPED = "expires_in_clamped"
    JWT_EXPIRES_EARLIER = "jwt_expires_earlier"
    SCOPE_SHAPE = "scope_shape"
    SCOPE_CHANGED = "scope_changed"
    ID_TOKEN_ODD = "id_token_odd"
    ROTATION_MISSING = "rotation_missing"
    FORM_ENCODED = "form_encoded"
    ACCESS_TOKEN_MISSING = "access_token_missing"


def _refuse_to_be_pickled(thing: object) -> str | tuple[object, ...]:
    """Stand in for `__reduce__`: a pickle is a copy of a secret nobody asked for (case J3)."""
    message = f"a {type(thing).__name__} is not pickled: it holds secrets"
    raise TypeError(message)


@dataclass(frozen=True, slots=True, repr=False)
class TokenSet:
    """What one answer of the token endpoint issued, plus its generation, the fencing number.

    `access_token` is empty only in a set that was made from a bare refresh token (a seed);
    `expires_at` is then 0. `refresh_expires_at` is None when nobody knows the end.
    """

    generation: int
    access_token: str
    refresh_token: str | None
    id_token: str | None
    token_type: str
    scope: str
    obtained_at: float
    expires_at: float
    refresh_obtained_at: float
    refresh_expires_at: float | None

    @property
    def lifetime_seconds(self) -> float:
        """Granted lifetime of the access token in seconds, never negative."""
        return max(0.0, self.expires_at - self.obtained_at)

    def __repr__(self) -> str:
        """Tell which token set this is without showing a secret (invariant 11)."""
        return f"<TokenSet generation={self.generation} expires_at={self.expires_at:.0f}>"

    __reduce__ = _refuse_to_be_pickled


@dataclass(frozen=True, slots=True, repr=False)
class EarlierToken:
    """A refresh token of an earlier generation, kept in case the newer one turns out to be lost."""

    generation: int
    refresh_token: str
    obtained_at: float

    def __repr__(self) -> str:
        """Tell which generation this is without showing a secret."""
        return f"<EarlierToken generation={self.generation}>"

    __reduce__ = _refuse_to_be_pickled


class Grant(StrEnum):
    """How a credential renews (RFC 6749 sections 4.4 and 6)."""

    REFRESH_TOKEN = "refresh_token"
    CLIENT_CREDENTIALS = "client_credentials"


class ClientAuthentication(StrEnum):
    """How the client authenticates; fixed by configuration, never probed (case C7)."""

    POST = "client_secret_post"
    BASIC = "client_secret_basic"
    BASIC_RAW = "client_secret_basic_raw"  # no percent-encoding before base64 (case K4)
    NONE = "none"


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """When to refresh and how hard to try. All values are seconds, ratios or counts."""

    lifetime_ratio: float = 2 / 3
    """Refresh when this share of the access token's lifetime is over."""
    min_remaining: float = 0.0
    """Refresh no later than this long before expiry (at most a third of the lifetime)."""
    jitter: float = 0.05
    """Refresh up to this share of the lifetime earlier, spread over the credentials."""
    assumed_lifetime: float = HOUR
    """Lifetime when the server names none (CE-API: 3600 s)."""
    max_lifetime: float = DAY
    """A longer `expires_in` is cut down to this."""
    refresh_token_lifetime: float | None = None
    """Lifetime of a refresh token when the answer names none (CE-API: 30 days)."""
    refresh_token_slides: bool = True
    """A refresh starts the refresh token's lifetime anew; false: it ends at a fixed time after login."""
    floor: float = 30.0
    """Shortest time between two refreshes of one credential."""
    backoff_initial: float = 5.0
    backoff_max: float = 15 * MINUTE
    refused_retry: float = 15 * MINUTE
    """Wait after `invalid_client` and the like (case E1): an input that changes ends it at once."""
    replay_window: float = 10.0
    """An ambiguous request is replayed once within this time of its start, a second later at least; 0: never."""
    confirm_after: float = 5.0
    """Wait between the first `invalid_grant` and the one that is believed."""
    probe_interval: float = HOUR
    """Slow probe once reauthorization is required; 0: never."""
    suspect_after: int = 3
    """Refusals in a row that are no `invalid_grant` before the grant is suspect (cases A32, E12)."""
    max_calls_per_hour: int = 120
    """Fuse on token calls of one credential (case E20); short lifetimes raise it."""
    rotation_required: bool = False
    """An answer without a new refresh token raises an alert (case A27)."""
    keep_generations: int = 3


@dataclass(frozen=True, slots=True)
class Granted:
    """A 2xx answer that holds a usable token: the only answer that moves the generation.

    `access_token` is empty if the answer held a refresh token alone: even that one must be kept.
    """

    access_token: str
    refresh_token: str | None
    raw: Mapping[str, object]
    """The answer's other fields as they came; judged after the save (invariant 2)."""
    form_encoded: bool = False
    served_at: float | None = None
    """When it was sent, by the server's clock (RFC 9110 section 6.6.1); None if it did not say."""

    def __repr__(self) -> str:
        """Show nothing that was issued."""
        return "<Granted>"

    __reduce__ = _refuse_to_be_pickled


@dataclass(frozen=True, slots=True)
class Refused:
    """The server understood and said no."""

    reason: Reason
    status: int
    text: str = ""
    """The server's words, scrubbed of secrets and shortened."""
    retry_after: float | None = None
    """Seconds until asking makes sense, if it was not asked because an earlier refusal stands; else None."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No verdict. `delivered`: the request may have been carried out (invariant 6)."""

    reason: Reason
    delivered: bool
    retry_after: float | None = None
    """Seconds the server asked for, never negative; None when it did not."""
    status: int | None = None
    text: str = ""


Answer = Granted | Refused | Unavailable


@dataclass(frozen=True, slots=True)
class Save:
    """The state in memory is newer than the durable one: save before anything else."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """Send a token request now."""

    why: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Bring one sink up to the current generation now."""

    sink: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until` (instant)."""

    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Halt:
    """Nothing to do until somebody acts: a login, a changed seed, a changed secret."""

    reason: Reason


Action = Save | Refresh | Publish | Wait | Halt


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A form for the token endpoint, without client authentication (that is the adapter's part)."""

    fields: tuple[tuple[str, str], ...] = field(repr=False)
    held_back: Callable[[], Unavailable | None] | None = field(default=None, repr=False, compare=False)
    """Asked at the last moment, when the connection stands and nothing of the form has been written: why it must not
    leave any more; None if it may."""
    refused_wait: float = field(default=0.0, compare=False)
    """Send nothing while the client itself was refused less than so many seconds ago; 0: ask in any case."""

    __reduce__ = _refuse_to_be_pickled


class Fingerprinter:
    """Makes short keyed fingerprints so that people can tell tokens apart without seeing them."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Take the key (any bytes): it is kept with the state and never leaves it."""
        self._key = key

    def __call__(self, secret: str | None) -> str:
        """Return the first 8 hex digits of HMAC-SHA-256, or `-` for no secret at all."""
        if not secret:
            return "-"
        return hmac.new(self._key, secret.encode(), hashlib.sha256).hexdigest()[:8]
