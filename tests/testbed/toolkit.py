"""django-oauth-toolkit, with a database that outlives its process."""

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.process.rig import ROOT
from tests.testbed.authorization_server import AuthorizationServer


@contextmanager
def run_toolkit(directory: Path, **provider: object) -> Generator[AuthorizationServer]:
    """Run a toolkit until the end of the block; `provider`: what differs from its own settings."""
    toolkit = AuthorizationServer(
        [sys.executable, "-B", "-m", "tests.testbed.serve"],
        directory / "toolkit.log",
        {
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.testbed.settings",
            "TESTBED_DATABASE": str(directory / "toolkit.sqlite3"),
            "TESTBED_PROVIDER": json.dumps(provider),
        },
    )
    try:
        toolkit.start()
        yield toolkit
    finally:
        toolkit.stop()
