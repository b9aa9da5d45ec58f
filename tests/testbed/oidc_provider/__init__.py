"""oidc-provider, certified by the OpenID Foundation: it rotates strictly, and a used token kills the whole grant."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.process.rig import CLIENT_SECRET, PASSWORD, USERNAME
from tests.testbed.authorization_server import CLIENT_ID, AuthorizationServer
from tests.testbed.node import Packages

PACKAGES: Final = Packages(Path(__file__).parent, "server.mjs")


@contextmanager
def run_provider(directory: Path, **configuration: object) -> Generator[AuthorizationServer]:
    """Run a provider until the end of the block; while `directory` has a file `disabled`, its user is disabled.

    `configuration`: what differs from its own.
    """
    provider = AuthorizationServer(
        ["node", PACKAGES.place / "server.mjs"],
        directory / "provider.log",
        {
            "TESTBED": json.dumps(
                {
                    "client_id": CLIENT_ID,
                    "client_secret": CLIENT_SECRET,
                    "username": USERNAME,
                    "password": PASSWORD,
                    "configuration": configuration,
                    "disabled": str(directory / "disabled"),
                }
            )
        },
    )
    try:
        provider.start()
        yield provider
    finally:
        provider.stop()
