"""The chart and the kustomizations make the same of the same settings, in pods of their own and in those of others."""

import itertools
import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from tests.needs import needs
from tests.testbed.kubernetes.chart import CHART, Helm
from tests.testbed.kubernetes.manifests import DIRECTORY, rendered

README: Final = (CHART / "README.md").read_text()
_VALUES, _DEPENDENCY, _POD = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
"""The README's examples: values of a release, those of a chart that has this one as a dependency, and its pods."""
_ADDED: Final = ("app.kubernetes.io/instance", "checksum/config", "imagePullPolicy")  # by the chart, on purpose


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    """Return helm, without a cluster."""
    needs("helm", "kubectl")
    return Helm(tmp_path, "tokens")


def bare(value: Any) -> Any:
    """Return a manifest without what may differ: labels and annotations of its own, the hash in a ConfigMap's name."""
    if isinstance(value, dict):
        kept = {key: bare(each) for key, each in value.items() if key not in _ADDED}
        if "metadata" in kept:
            kept["metadata"] = {"name": kept["metadata"].get("name")}
        return kept
    if isinstance(value, list):
        return [bare(each) for each in value]
    return re.sub(r"^(rotator-config)-[0-9a-z]{10}$", r"\1", value) if isinstance(value, str) else value


def by_kind(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return manifests by kind and name."""
    found = (bare(one) for one in objects if "helm.sh/hook" not in one["metadata"].get("annotations", {}))
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def granted(role: dict[str, Any]) -> set[tuple[str, ...]]:
    """Return every single right that a Role grants."""
    return set(
        itertools.chain.from_iterable(
            itertools.product(rule["apiGroups"], rule["resources"], rule.get("resourceNames", ["*"]), rule["verbs"])
            for rule in role["rules"]
        )
    )


def test_a_release_is_what_the_base_is(helm: Helm) -> None:
    """Deployment, Role, PodDisruptionBudget, NetworkPolicy, account and configuration, of the README's values."""
    values = yaml.safe_load(_VALUES.replace("ce-api.example.com", "ce-api.example"))
    assert values.pop("image") == {"repository": "registry.example/rotator"}  # the base's is for you to name, too
    chart, base = by_kind(helm.rendered(values)), by_kind(rendered(DIRECTORY / "base"))
    assert chart.keys() == base.keys()
    for both in (chart, base):
        both["Role", "rotator"]["rules"] = granted(both["Role", "rotator"])
        for subject in both["RoleBinding", "rotator"]["subjects"]:
            subject.pop("namespace", None)
        (text,) = both["ConfigMap", "rotator-config"]["data"].values()
        both["ConfigMap", "rotator-config"]["data"] = tomllib.loads(text)
        # The chart's holds for the pod of `helm test`, too, which has another name.
        both["NetworkPolicy", "rotator"]["spec"].pop("podSelector")
    own = chart["ConfigMap", "rotator-config"]["data"].pop("kubernetes")
    assert own == {"lease": "rotator", "secret_prefix": "rotator-state-"}  # the defaults, said out loud
    for key, manifest in base.items():
        assert chart[key] == manifest


def test_monitoring_and_readers_are_those_of_the_overlays(helm: Helm) -> None:
    """PodMonitor, PrometheusRule, and what a service account may that follows a published Secret."""
    values = yaml.safe_load(_VALUES)
    values["monitoring"] = {"podMonitor": True, "prometheusRule": True}
    values["readers"] = [{"secret": "home-token", "serviceAccounts": [{"name": "home-token-reader"}]}]
    chart = by_kind(helm.rendered(values))
    for name in ("podmonitor", "prometheusrule"):
        (wanted,) = by_kind([yaml.safe_load((DIRECTORY / f"monitoring/{name}.yaml").read_text())]).values()
        assert chart[wanted["kind"], "rotator"] == wanted
    overlay = by_kind(rendered(DIRECTORY / "overlays/mirror"))
    assert chart["Role", "home-token-reader"] == overlay["Role", "home-token-reader"]
    bound = chart["RoleBinding", "home-token-reader"]
    assert bound["subjects"][0].pop("namespace") == "tokens"
    assert bound == overlay["RoleBinding", "home-token-reader"]


def test_alerts_link_to_where_the_runbooks_are_read(helm: Helm) -> None:
    """The address is a value; each alert's own page stays at its end."""
    values = yaml.safe_load(_VALUES)
    values["monitoring"] = {"prometheusRule": True, "runbooks": "https://wiki.test/rotator/"}
    groups = by_kind(helm.rendered(values))["PrometheusRule", "rotator"]["spec"]["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    links = {alert["alert"]: alert["annotations"]["runbook_url"] for alert in alerts}
    assert links == {alert: f"https://wiki.test/rotator/{alert}.md" for alert in links}
    assert "RotatorAbsent" in links


@pytest.mark.parametrize(("template", "overlay"), [("sidecar", "sidecar-shared/deployment"), ("once", "once/job")])
def test_a_sidecar_of_another_chart_is_that_of_the_overlay(
    helm: Helm, tmp_path: Path, template: str, overlay: str
) -> None:
    """A chart with this one as a dependency gets, by what the README shows, the pod that the overlay has."""
    app = tmp_path / "app"
    (app / "templates").mkdir(parents=True)
    shutil.copytree(CHART, app / "charts" / "rotator")
    (app / "Chart.yaml").write_text("{apiVersion: v2, name: app, version: 1.0.0}")
    workload = next(yaml.safe_load_all((DIRECTORY / "overlays" / f"{overlay}.yaml").read_text()))
    wanted = workload["spec"]["template"]["spec"]
    pod = _POD.replace('"rotator.sidecar"', f'"rotator.{template}"')
    lines = [
        *(f"{key}: {json.dumps(workload[key])}" for key in ("apiVersion", "kind", "metadata")),
        "spec:",
        *(f"  {key}: {json.dumps(each)}" for key, each in workload["spec"].items() if key != "template"),
        "  template:",
        f"    metadata: {json.dumps(workload['spec']['template'].get('metadata', {}))}",
        *(f"    {line}" for line in pod.replace("nindent 4", "nindent 8").splitlines()),
        *([f"      restartPolicy: {wanted['restartPolicy']}"] if "restartPolicy" in wanted else []),
    ]
    (app / "templates" / "app.yaml").write_text("\n".join(lines))
    values = yaml.safe_load(_DEPENDENCY)
    assert values["rotator"].pop("image") == {"repository": "registry.example/rotator"}
    objects = helm.rendered(values, app)
    for each in objects:
        kubernetes_validate.validate(each, "1.37.0", strict=True)
    made = by_kind(objects)
    assert ("Deployment", "rotator") not in made
    assert made[workload["kind"], "app"]["spec"]["template"]["spec"] == bare(wanted)
