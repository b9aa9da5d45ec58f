"""The files that are made from code, and what they are to hold."""

from pathlib import Path
from typing import Final

from deploy.grafana.credential import credential
from deploy.grafana.overview import overview
from deploy.prometheus.rule import RUNBOOKS

DASHBOARDS: Final = Path(__file__).parent / "dashboards"


def files(runbooks: str = RUNBOOKS) -> dict[Path, str]:
    """Return the text of each file; `runbooks`: where those are read to which alerts lead."""
    return {DASHBOARDS / "overview.json": overview(runbooks), DASHBOARDS / "credential.json": credential()}
