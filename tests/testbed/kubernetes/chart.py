"""The chart, rendered and installed by the helm that people use."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.process.rig import PATIENCE, ROOT
from tests.testbed.kubernetes.build import CLIENTS

CHART: Final = ROOT / "deploy/helm/rotator"
Values = Mapping[str, Any]


class Helm:
    """helm, with a home of its own, as one user of one namespace."""

    def __init__(self, directory: Path, namespace: str, kubeconfig: Path = Path("/dev/null")) -> None:
        self.kubeconfig = kubeconfig
        self._directory = directory
        mine = {"HELM_NAMESPACE": namespace, "KUBECONFIG": str(kubeconfig), "HOME": str(directory)}
        others = {key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "XDG_"))}
        self._environment = {**others, **mine}

    def try_to(self, *arguments: str, values: Values | None = None) -> subprocess.CompletedProcess[str]:
        """Run helm to its end, whatever that is; with these values if some are given."""
        given = () if values is None else ("--values", str(self._written(values)))
        return subprocess.run(
            (CLIENTS.directory() / "helm", *arguments, *given),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE * 2, check=False,
            env=self._environment,
        )  # fmt: skip

    def __call__(self, *arguments: str, values: Values | None = None) -> str:
        """Run helm, which must succeed; return what it prints."""
        done = self.try_to(*arguments, values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rendered(self, values: Values, chart: Path = CHART, release: str = "rotator") -> list[dict[str, Any]]:
        """Return the objects that a release of the chart would have."""
        text = self("template", release, str(chart), values=values)
        return [one for one in yaml.safe_load_all(text) if one is not None]

    def _written(self, values: Values) -> Path:
        path = self._directory / "values.yaml"
        path.write_text(json.dumps(values))
        return path
