"""What several testbeds share."""

import os
from collections.abc import Iterator

import pytest

from tests.needs import needs
from tests.testbed.image.rig import Containers


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """A store that holds the image; built once in a run, however many workers, and there until the last has done."""
    needs("containers", "package index")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    containers = Containers(shared / "containers")
    with containers.shared():
        yield containers
