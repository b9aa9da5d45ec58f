"""A sandbox on a loopback port, its clock, and a client that knows its forms."""

import logging
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from rotator.sandbox.books import Books
from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer

CLIENT = {"client_id": "sandbox-client", "client_secret": "sandbox-secret"}
LOGIN = {"grant_type": "password", "username": "user@example.com", "password": "sandbox-password"}


def assert_no_error_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Demand that the web server found nothing wrong with the application."""
    records = caplog.get_records("call") + caplog.get_records("teardown")
    assert [record.getMessage() for record in records if record.levelno >= logging.ERROR] == []


class HandClock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """Tell the time it was set to."""
        return self.now


@dataclass
class Customer:
    """Talks to the sandbox as an integration would."""

    sandbox: Sandbox
    clock: HandClock
    http: httpx.Client

    @property
    def books(self) -> Books:
        """Read the sandbox's books."""
        return self.sandbox.books

    def post(self, **form: str) -> httpx.Response:
        """Post a form, with client authentication, to the token endpoint."""
        return self.http.post("/v2/token", data=CLIENT | form)

    def login(self, username: str = "user@example.com") -> dict[str, Any]:
        """Get a first pair."""
        return self.granted(self.post(**LOGIN | {"username": username}))

    def refresh(self, refresh_token: str) -> httpx.Response:
        """Spend a refresh token."""
        return self.post(grant_type="refresh_token", refresh_token=refresh_token)

    def me(self, access_token: str) -> httpx.Response:
        """Call the protected resource."""
        return self.http.get("/v2/me", headers={"Authorization": f"Bearer {access_token}"})

    @staticmethod
    def granted(answer: httpx.Response) -> dict[str, Any]:
        """Demand that tokens were granted, and return the fields."""
        assert answer.status_code == 200, answer.text
        fields: dict[str, Any] = answer.json()
        return fields

    @staticmethod
    def refused(answer: httpx.Response) -> tuple[int, str]:
        """Return status and error code of a refusal."""
        return answer.status_code, answer.json()["error"]


@pytest.fixture
def customer(caplog: pytest.LogCaptureFixture) -> Generator[Customer]:
    """Serve a sandbox whose clock stands, and a client for it; the web server may not log an error."""
    clock = HandClock()
    users = {"user@example.com": "sandbox-password", "fleet-*@example.com": "sandbox-password"}
    with (
        SandboxServer(Sandbox(clock=clock, users=users)) as server,
        httpx.Client(base_url=server.url, trust_env=False) as http,
    ):
        yield Customer(server.sandbox, clock, http)
    assert_no_error_logged(caplog)
