"""A model of an authorization server: families of refresh tokens, a grace window, and no mercy beyond it."""

from dataclasses import dataclass, field

from rotator.core.model import Answer, Granted, Reason, Refused, TokenSet
from tests.secrets_scan import planted


@dataclass
class Issued:
    """A refresh token as the server knows it."""

    family: int
    spent_at: float | None = None
    spent_for: str = ""
    """The first token that it was exchanged for."""


@dataclass
class ModelServer:
    """An authorization server in few lines. Its clock is the true one."""

    grace: float = 10.0
    rotates: bool = True
    lifetime: int = 3600
    disabled: bool = False
    issued: dict[str, Issued] = field(default_factory=dict)
    revoked: set[int] = field(default_factory=set)
    reuses: int = 0
    count: int = 0

    def login(self) -> TokenSet:
        """Begin a new family of tokens."""
        self.count += 1
        token = planted(f"login-{self.count}")
        self.issued[token] = Issued(self.count)
        access = planted(f"access-{self.count}")
        return TokenSet(0, access, token, None, "Bearer", "", 0.0, 0.0, 0.0, None)

    def refresh(self, token: str, now: float) -> Answer:
        """Answer a refresh: reuse outside the grace window revokes the family."""
        known = self.issued.get(token)
        if self.disabled or known is None or known.family in self.revoked:
            return Refused(Reason.INVALID_GRANT, 400)
        if known.spent_at is not None and now > known.spent_at + self.grace:
            self.revoked.add(known.family)
            self.reuses += 1
            return Refused(Reason.TOKEN_REUSE, 400)
        self.count += 1
        fields = {"expires_in": self.lifetime}
        if not self.rotates:
            return Granted(planted(f"access-{self.count}"), None, fields)
        new = planted(f"refresh-{self.count}")
        if known.spent_at is None:
            known.spent_at, known.spent_for = now, new
        self.issued[new] = Issued(known.family)
        return Granted(planted(f"access-{self.count}"), new, fields)

    def alive(self, token: str | None) -> bool:
        """Tell whether a refresh token would be granted for as long as anybody likes."""
        known = self.issued.get(token or "")
        return known is not None and known.family not in self.revoked and known.spent_at is None
