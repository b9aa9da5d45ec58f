"""The books: what the authorization server saw. The verdict on a client is read here."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Books:
    """Counts since the sandbox started."""

    tokens_issued: int = 0
    """Access tokens issued, by whatever grant."""
    password_grants: int = 0
    refresh_grants: int = 0
    """Refreshes that were answered with a fresh pair (replays in the grace window are counted apart)."""
    client_credentials_grants: int = 0
    replays_in_grace: int = 0
    """Refresh tokens presented again within the grace window."""
    replays_outside_grace: int = 0
    """Refresh tokens presented again later, or without a grace window: the client lost an answer or is not alone."""
    replays_by_user: Counter[str] = field(default_factory=Counter)
    """Refresh tokens presented again, in the grace window or not, by user."""
    families_revoked: int = 0
    """Families revoked because of reuse."""
    grants_revoked: int = 0
    """Families revoked through `POST /sandbox/revoke`."""
    most_simultaneous: int = 0
    """The largest number of token requests under way at once for one refresh token."""
    token_requests: Counter[str] = field(default_factory=Counter)
    """Token requests by outcome: `granted`, an error code, or the name of the fault."""
    refusals: Counter[str] = field(default_factory=Counter)
    """`invalid_grant` by its true reason."""
    resource_calls: Counter[str] = field(default_factory=Counter)
    """Calls of the protected resource: `good`, `bare` (no token), or why the access token was dead."""

    @property
    def good_calls(self) -> int:
        """Calls of the protected resource with a live access token."""
        return self.resource_calls["good"]

    @property
    def dead_calls(self) -> int:
        """Calls of the protected resource with an expired, revoked or unknown access token."""
        return self.resource_calls.total() - self.resource_calls["good"] - self.resource_calls["bare"]

    def as_json(self) -> dict[str, Any]:
        """All counts, ready for JSON."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return plain | {"good_calls": self.good_calls, "dead_calls": self.dead_calls}
