"""What the tests on a machine of their own are given."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import needs
from tests.testbed.systemd.installed import Installed, install


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    """rotator, installed on a machine that is up; no daemon runs, nobody has logged in, nothing expires soon."""
    needs("systemd-nspawn")
    with install(tmp_path) as installed:
        yield installed
