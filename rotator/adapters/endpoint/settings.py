"""What is configured about a token endpoint."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rotator.core.model import ClientAuthentication
from rotator.ports import Problem


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Where the token endpoint is and how this client talks to it. Timeouts are seconds."""

    token_url: str
    client_id: str = ""
    client_secret: Callable[[], str | Problem] | None = None
    """Read anew before each request (case K8); a Problem means that no request is sent."""
    authentication: ClientAuthentication = ClientAuthentication.POST
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    """URL; may hold a user name and a password, so it is never shown."""
    use_environment_proxies: bool = False
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    """Long, because giving up on a slow answer may cost the pair that it holds (case B9)."""
    total_timeout: float = 90.0
    user_agent: str = "rotator"
