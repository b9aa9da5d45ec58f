"""The files that are made from code, and what they are to hold."""

from pathlib import Path
from typing import Final

from deploy.grafana.credential import credential
from deploy.grafana.overview import overview

_HERE: Final = Path(__file__).parent / "dashboards"
FILES: Final = {_HERE / "overview.json": overview(), _HERE / "credential.json": credential()}
