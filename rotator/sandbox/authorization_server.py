"""The authorization server: who may have which token, and what every token is worth now.

Pure but for chance: the clock is given, there is no I/O. Nothing is ever forgotten, so a token that was
used long ago is still recognised as used. One lock makes every public method atomic.
"""

import base64
import hmac
import json
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from rotator.sandbox.books import Books
from rotator.sandbox.switches import Switches

ClientPair = tuple[str, str]


@dataclass(slots=True)
class _Family:
    """All tokens that come from one login."""

    user: str
    began_at: float
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class _Access:
    family: _Family
    expires_at: float


@dataclass(frozen=True, slots=True)
class _Pair:
    access_token: str
    refresh_token: str
    id_token: str
    lifetime: float  # of the access token, in seconds


@dataclass(slots=True)
class _Refresh:
    family: _Family
    expires_at: float
    used_at: float | None = None
    answer: _Pair | None = None  # what the first use was answered with


@dataclass(frozen=True, slots=True)
class Granted:
    """The fields of a successful answer."""

    fields: dict[str, Any]
    age: float = 0.0
    """Seconds since the login that the tokens come from."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An error of RFC 6749 section 5.2."""

    error: str
    description: str
    status: int = 400


def make_jwt(claims: Mapping[str, Any], key: bytes) -> str:
    """Make an HS256 token of `claims` (RFC 7515)."""
    head, body = (_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{head}.{body}.{_base64(hmac.digest(key, f'{head}.{body}'.encode(), 'sha256'))}"


def _random_token(switches: Switches, kind: str) -> str:
    return f"{switches.token_prefix}{kind}-{secrets.token_urlsafe(32)}"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())


class AuthorizationServer:
    """CE-API's token endpoints without HTTP.

    `users` maps a user name to a password; a name may be a pattern (`user-*@example.com`), for fleets.
    """

    def __init__(self, *, client_id: str, users: Mapping[str, str], clock: Callable[[], float]) -> None:
        self._client_id = client_id
        self._users = dict(users)
        self._clock = clock
        self._key: Final = secrets.token_bytes(32)
        self._lock: Final = threading.RLock()
        self._families: list[_Family] = []
        self._access: dict[str, _Access] = {}
        self._refresh: dict[str, _Refresh] = {}
        self._under_way: Counter[str] = Counter()
        self._books = Books()

    @property
    def books(self) -> Books:
        """The books as they stand: a copy."""
        with self._lock:
            page = copy(self._books)
            page.token_requests, page.refusals, page.resource_calls, page.replays_by_user = (
                Counter(each)
                for each in (page.token_requests, page.refusals, page.resource_calls, page.replays_by_user)
            )
            return page

    def count_request(self, outcome: str) -> None:
        """Enter the outcome of one token request."""
        with self._lock:
            self._books.token_requests[outcome] += 1

    @contextmanager
    def under_way(self, refresh_token: str) -> Iterator[None]:
        """Count how many requests with `refresh_token` are under way at once."""
        if not refresh_token:
            yield
            return
        with self._lock:
            self._under_way[refresh_token] += 1
            self._books.most_simultaneous = max(self._books.most_simultaneous, self._under_way[refresh_token])
        try:
            yield
        finally:
            with self._lock:
                self._under_way[refresh_token] -= 1
                if not self._under_way[refresh_token]:
                    del self._under_way[refresh_token]

    def user_token(
        self, form: Mapping[str, str], basic: ClientPair | None, switches: Switches, *, rotate: bool
    ) -> Granted | Refused:
        """`POST /v2/token`. With `rotate` false the refresh token is kept, whatever the switch says."""
        with self._lock:
            if refused := self._check_client(form, basic, switches):
                return refused
            match form["grant_type"]:
                case "password":
                    return self._by_password(form, switches)
                case "refresh_token":
                    return self._by_refresh_token(form, switches, rotate=rotate and switches.rotation)
                case _:
                    return Refused("unsupported_grant_type", "Use password or refresh_token.")

    def client_token(self, form: Mapping[str, str], basic: ClientPair | None, switches: Switches) -> Granted | Refused:
        """`POST /v1/token`: client credentials, no refresh token."""
        with self._lock:
            if refused := self._check_client(form, basic, switches):
                return refused
            if form["grant_type"] != "client_credentials":
                return Refused("unsupported_grant_type", "Use client_credentials.")
            self._books.client_credentials_grants += 1
            token, _ = self._new_access(self._new_family(self._client_id), switches, jwt=True)
            lifetime = int(switches.access_lifetime)
            return Granted({"access_token": token, "expires_in": lifetime, "token_type": "Bearer", "scope": []})

    def issue(self, switches: Switches, user: str | None = None) -> dict[str, Any]:
        """Make a fresh token answer for `user`, by default the first known one, without a password."""
        with self._lock:
            return self._answer(self._new_pair(self._new_family(user or next(iter(self._users))), switches))

    def revoke(self, user: str | None = None) -> int:
        """Revoke every grant, or those of `user`; how many."""
        with self._lock:
            dying = [each for each in self._families if not each.revoked and user in {None, each.user}]
            for family in dying:
                family.revoked = True
            self._books.grants_revoked += len(dying)
            return len(dying)

    @property
    def requests_under_way(self) -> int:
        """How many requests with a refresh token are under way."""
        with self._lock:
            return self._under_way.total()

    def is_spent(self, refresh_token: str) -> bool:
        """Tell whether a refresh token has been used, or is of no use: unknown, expired, revoked."""
        with self._lock:
            refresh = self._refresh.get(refresh_token)
            return (
                refresh is None
                or refresh.used_at is not None
                or refresh.family.revoked
                or self._clock() >= refresh.expires_at
            )

    def call_resource(self, access_token: str | None, switches: Switches) -> str:
        """Judge a call with `access_token`, and enter it in the books: `good`, `bare`, or why the token is dead."""
        with self._lock:
            verdict = "bare" if access_token is None else self._judge_access(access_token, switches)
            self._books.resource_calls[verdict] += 1
            return verdict

    def _judge_access(self, access_token: str, switches: Switches) -> str:
        access = self._access.get(access_token)
        if access is None:
            return "unknown"
        if access.family.revoked:
            return "revoked"
        if access.family.user in switches.disabled_users:
            return "user disabled"
        return "expired" if self._clock() >= access.expires_at else "good"

    def _check_client(self, form: Mapping[str, str], basic: ClientPair | None, switches: Switches) -> Refused | None:
        if "grant_type" not in form:
            return Refused("invalid_request", "grant_type is missing.")
        if basic and "client_secret" in form:  # RFC 6749 section 2.3: one method in each request
            return Refused("invalid_request", "Use one way of client authentication.")
        client_id, client_secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        if _same(client_id, self._client_id) and _same(client_secret, switches.client_secret):
            return None
        return Refused("invalid_client", "Client authentication failed.", 401)

    def _by_password(self, form: Mapping[str, str], switches: Switches) -> Granted | Refused:
        if "username" not in form or "password" not in form:
            return Refused("invalid_request", "username or password is missing.")
        user = form["username"]
        known = self._users.get(user)
        if known is None:
            known = next((word for name, word in self._users.items() if fnmatchcase(user, name)), None)
        if known is None or not _same(form["password"], known):
            return self._refuse("wrong password", "The user name or password is wrong.")
        if user in switches.disabled_users:
            return self._refuse("user disabled", "The user is disabled.")
        self._books.password_grants += 1
        return Granted(self._answer(self._new_pair(self._new_family(user), switches)))

    def _by_refresh_token(self, form: Mapping[str, str], switches: Switches, *, rotate: bool) -> Granted | Refused:
        if "refresh_token" not in form:
            return Refused("invalid_request", "refresh_token is missing.")
        refresh = self._refresh.get(form["refresh_token"])
        if refresh is None:
            return self._refuse("unknown", "The refresh token is unknown.")
        now = self._clock()
        if refused := self._judge_refresh(refresh, now, switches):
            return refused
        age = now - refresh.family.began_at
        if refresh.used_at is not None and refresh.answer is not None:
            if switches.grace_answer == "new":
                return Granted(self._answer(self._new_pair(refresh.family, switches)), age)
            return Granted(self._answer(refresh.answer, age=now - refresh.used_at), age)
        pair = self._new_pair(refresh.family, switches, keep=None if rotate else form["refresh_token"])
        if rotate:
            refresh.used_at, refresh.answer = now, pair
        self._books.refresh_grants += 1
        return Granted(self._answer(pair), age)

    def _judge_refresh(self, refresh: _Refresh, now: float, switches: Switches) -> Refused | None:
        in_grace = refresh.used_at is not None and now - refresh.used_at < switches.grace_seconds
        if refresh.used_at is not None:
            self._count_replay(refresh.family, switches, in_grace=in_grace)
        if refresh.used_at is not None and not in_grace:
            return self._refuse("used", "The refresh token was used before.")
        if refresh.family.revoked:
            return self._refuse("revoked", "The grant was revoked.")
        if refresh.family.user in switches.disabled_users:
            return self._refuse("user disabled", "The user is disabled.")
        if now >= refresh.expires_at:
            return self._refuse("expired", "The refresh token has expired.")
        return None

    def _count_replay(self, family: _Family, switches: Switches, *, in_grace: bool) -> None:
        self._books.replays_by_user[family.user] += 1
        if in_grace:
            self._books.replays_in_grace += 1
            return
        self._books.replays_outside_grace += 1
        if switches.reuse_revokes_family and not family.revoked:  # RFC 9700 section 4.14.2
            family.revoked = True
            self._books.families_revoked += 1

    def _refuse(self, reason: str, description: str) -> Refused:
        self._books.refusals[reason] += 1
        return Refused("invalid_grant", description)

    def _new_family(self, user: str) -> _Family:
        family = _Family(user, self._clock())
        self._families.append(family)
        return family

    def _new_access(self, family: _Family, switches: Switches, *, jwt: bool) -> tuple[str, float]:
        expires_at = self._clock() + switches.access_lifetime
        token = _random_token(switches, "AT")
        if jwt:
            token = make_jwt({"sub": family.user, "exp": int(expires_at), "jti": token}, self._key)
        self._access[token] = _Access(family, expires_at)
        self._books.tokens_issued += 1
        return token, expires_at

    def _new_pair(self, family: _Family, switches: Switches, keep: str | None = None) -> _Pair:
        access_token, expires_at = self._new_access(family, switches, jwt=switches.jwt_access_tokens)
        refresh_token = keep or _random_token(switches, "RT")
        if not keep:
            self._refresh[refresh_token] = _Refresh(family, self._clock() + switches.refresh_lifetime)
        name = _random_token(switches, "IT")
        id_token = make_jwt(
            {"sub": family.user, "aud": self._client_id, "exp": int(expires_at), "jti": name}, self._key
        )
        return _Pair(access_token, refresh_token, id_token, switches.access_lifetime)

    def _answer(self, pair: _Pair, age: float = 0.0) -> dict[str, Any]:
        """Put a pair into its wire form, as one that was made `age` seconds ago."""
        return {
            "access_token": pair.access_token,
            "refresh_token": pair.refresh_token,
            "id_token": pair.id_token,
            "expires_in": max(0, int(pair.lifetime - age)),
            "token_type": "Bearer",
            "scope": [],  # CE-API: an empty array, not a string
        }
