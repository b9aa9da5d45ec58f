"""What the tests of whole processes are given."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.life import Life, new_life


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """An installation that is configured, with nobody logged in and no daemon running."""
    with new_life(tmp_path) as life:
        yield life
