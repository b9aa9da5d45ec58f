"""The chart: rendered, installed, upgraded, rolled back and removed by helm; rotator at work with its rights."""

import math
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from deploy.helm.written import files
from rotator import VERSION
from rotator.adapters.kubernetes.lookout import watches_of
from rotator.cli import cluster
from rotator.config import Config, load
from rotator.daemon import _LAST_SAVES_SECONDS
from tests.needs import needs
from tests.process.rig import ROOT
from tests.testbed.kubernetes.chart import CHART, Helm

KUBERNETES: Final = "1.37.0"
OPERATOR: Final = ("PodMonitor", "PrometheusRule")  # the Prometheus Operator's: no schema is at hand
PLAIN: Final[dict[str, Any]] = {
    "config": {
        "defaults": {"token_url": "https://ce-api.example/v2/token", "client_id": "my-client"},
        "credentials": {
            "home": {"outputs": [{"kubernetes_secret": {"name": "{name}-token", "data": {"token": "raw"}}}]}
        },
    }
}
OUTPUTS: Final = PLAIN["config"]["credentials"]["home"]["outputs"]


def changed(**changes: Any) -> dict[str, Any]:
    """Return the plain values with some of them changed: `config__defaults__client_id="x"`."""
    values = deepcopy(PLAIN)
    for path, value in changes.items():
        *tables, key = path.split("__")
        table = values
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = value
    return values


FLEET: Final = changed(
    config__credentials={f"home-{number}": {} for number in range(12)},
    config__defaults__outputs=OUTPUTS,
    config__defaults__refresh={"floor": 45, "ratio": 0.5, "keep_generations": 5},
    config__kubernetes={"shards": 4},
    replicas=4,
)
FULL: Final = changed(
    config__credentials__shop={
        "outputs": [
            {"kubernetes_secret": {"name": "tok", "namespace": "shop", "type": "example/token", "data": {"a": "raw"}}}
        ]
    },
    config__defaults__client_secret=None,
    config__defaults__client_authentication="none",
    secrets=[],
    precreateOutputs=True,
    readers=[{"secret": "home-token", "serviceAccounts": [{"name": "web"}, {"name": "web", "namespace": "shop"}]}],
    image={"repository": "registry.example/rotator", "digest": f"sha256:{'0' * 64}"},
    imagePullSecrets=[{"name": "registry"}],
    serviceAccount={"annotations": {"example/role": "x"}},
    monitoring={"podMonitor": True, "prometheusRule": True, "labels": {"release": "prometheus"}},
    podAnnotations={"example/a": "b"},
    podLabels={"team": "tokens"},
    nodeSelector={"kubernetes.io/os": "linux"},
    tolerations=[{"key": "spot", "operator": "Exists"}],
    affinity={"nodeAffinity": {}},
    priorityClassName="high",
)
ALONE: Final = changed(replicas=1, networkPolicy={"enabled": False})
RIGHTS: Final = changed(replicas=0)
SHAPES: Final = {"plain": PLAIN, "fleet": FLEET, "full": FULL, "alone": ALONE, "rights": RIGHTS}


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    """Return helm, without a cluster."""
    needs("helm")
    return Helm(tmp_path, "tokens")


def only(objects: list[dict[str, Any]], kind: str, name: str = "rotator") -> Any:
    """Return the one object of this kind and name."""
    (found,) = (one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def config_of(objects: list[dict[str, Any]], directory: Path) -> tuple[dict[str, Any], Config]:
    """Return the rendered configuration, as TOML and as rotator reads it."""
    text = only(objects, "ConfigMap", "rotator-config")["data"]["rotator.toml"]
    path = directory / "rotator.toml"
    path.write_text(text)
    loaded = load(path, None, {})
    assert isinstance(loaded, Config), loaded
    return tomllib.loads(text), loaded


@pytest.mark.parametrize("path", files(), ids=str)
def test_what_is_made_is_fresh(path: Path) -> None:
    """The values schema is what the code would write today, with every key that the configuration has."""
    assert (ROOT / path).read_text("utf-8") == files()[path], "run python -m deploy.helm"


def test_the_chart_is_of_the_version_that_it_installs() -> None:
    """Chart, image tag and package have one version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_good_kubernetes(helm: Helm, shape: str, tmp_path: Path) -> None:
    """The linter finds nothing, each object keeps to the strict schemas, and rotator takes the configuration."""
    linted = helm("lint", "--strict", str(CHART), values=SHAPES[shape])
    assert "[WARNING]" not in linted, linted
    objects = helm.rendered(SHAPES[shape])
    for each in objects:
        if each["kind"] not in OPERATOR:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
        assert each["metadata"]["namespace"] in ("tokens", "shop")
    config_of(objects, tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "at '/config': missing property 'credentials'"),
        (changed(config__credentials={}), "at '/config/credentials': minProperties: got 0, want 1"),
        (changed(config__defaults__token_ur="x"), "additional properties 'token_ur' not allowed"),
        (changed(config__credentials__Home={}), "at '/config/credentials': additional properties 'Home' not allowed"),
        (changed(config__daemon__store="files"), "at '/config/daemon/store': value must be 'kubernetes'"),
        (changed(config__metrics__listen="0.0.0.0:80"), "at '/config/metrics/listen': '0.0.0.0:80' does not match"),
        (changed(replica=1), "additional properties 'replica' not allowed"),
        (changed(replicas="two"), "at '/replicas': got string, want integer"),
        (
            changed(config__defaults={}),
            "config.credentials.home.token_url: set it, or config.defaults.token_url for all",
        ),
    ],
)
def test_bad_values_are_refused_by_name(helm: Helm, values: dict[str, Any], message: str) -> None:
    """A value that is missing, misspelt or of the wrong kind is told before anything reaches the cluster."""
    refused = helm.try_to("template", "rotator", str(CHART), values=values)
    assert refused.returncode != 0
    assert message in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"config__daemon__drain_timeout": "1h2m3.5s"},
        {"config__daemon__drain_timeout": 200},
        {"config__defaults__total_timeout": "100500ms"},
        {"config__defaults__total_timeout": 70, "config__credentials__home__total_timeout": "2m"},
        {"config__defaults__total_timeout": "3m", "config__credentials__home__total_timeout": "2m"},
    ],
)
def test_a_stop_is_given_the_time_it_may_take(helm: Helm, tmp_path: Path, changes: dict[str, Any]) -> None:
    """What is left out is made from the configuration, as rotator reads it; more is taken, less is refused."""
    objects = helm.rendered(changed(**changes))
    needed = math.ceil(config_of(objects, tmp_path)[1].daemon.drain_timeout + _LAST_SAVES_SECONDS)
    assert only(objects, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == needed
    more = helm.rendered(changed(**changes, terminationGracePeriodSeconds=needed + 1))
    assert only(more, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == needed + 1
    less = changed(**changes, terminationGracePeriodSeconds=needed - 1)
    refused = helm.try_to("template", "rotator", str(CHART), values=less)
    assert f"terminationGracePeriodSeconds: {needed - 1} cuts a stop short" in refused.stderr
    assert f"set {needed} or more" in refused.stderr


def test_a_configuration_goes_through_as_it_was_written(helm: Helm, tmp_path: Path) -> None:
    """Whole numbers stay whole, quotes, backslashes and line ends stay in their texts, tables in their tables."""
    odd = {
        "path": "/run/rotator/{name}",
        "template": 'a = 32.0\n"\'\\ ü {{access}} N2G-LAN-USER token="{access_token}"',
    }
    values = deepcopy(FLEET)
    values["config"]["credentials"]["home-0"] = {"outputs": [odd], "refresh": {"floor": 60, "jitter": 0.0}}
    table, config = config_of(helm.rendered(values), tmp_path)
    assert table["credentials"]["home-0"] == {"outputs": [odd], "refresh": {"floor": 60, "jitter": 0}}
    assert table["defaults"]["refresh"] == {"floor": 45, "ratio": 0.5, "keep_generations": 5}
    assert config.credentials["home-1"].policy.lifetime_ratio == 0.5
    assert table["daemon"] == {"store": "kubernetes"}
    assert table["kubernetes"] == {"shards": 4, "lease": "rotator", "secret_prefix": "rotator-state-"}


def test_two_releases_in_a_namespace_do_not_meet(helm: Helm, tmp_path: Path) -> None:
    """Objects, Lease, state Secrets and what selects the pods begin with the release's name."""
    one, other = helm.rendered(PLAIN), helm.rendered(PLAIN, release="other")
    names = [{(each["kind"], each["metadata"]["name"]) for each in objects} for objects in (one, other)]
    assert names[0] & names[1] == set()
    table = tomllib.loads(only(other, "ConfigMap", "other-rotator-config")["data"]["rotator.toml"])
    assert table["kubernetes"] == {"lease": "other-rotator", "secret_prefix": "other-rotator-state-"}
    selectors = [only(one, "Deployment"), only(other, "Deployment", "other-rotator")]
    assert selectors[0]["spec"]["selector"] != selectors[1]["spec"]["selector"]


def test_the_network_policy_is_for_rotators_own_pods(helm: Helm) -> None:
    """Pods of a release that has the chart as a dependency go where they went; without pods of ours there is none."""
    objects = helm.rendered(PLAIN)
    selector = only(objects, "NetworkPolicy")["spec"]["podSelector"]
    (named,) = selector["matchExpressions"]
    pods = (only(objects, "Deployment")["spec"]["template"], only(objects, "Pod", "rotator-test"))
    labels = [pod["metadata"]["labels"] for pod in pods]
    assert all(selector["matchLabels"].items() <= each.items() for each in labels)
    assert (named["key"], named["operator"]) == ("app.kubernetes.io/name", "In")
    assert sorted(named["values"]) == sorted(each[named["key"]] for each in labels)
    assert "NetworkPolicy" not in {each["kind"] for each in helm.rendered(RIGHTS)}


@pytest.mark.parametrize("shape", ["plain", "fleet", "full"])
def test_the_roles_grant_what_is_used_and_nothing_else(helm: Helm, shape: str, tmp_path: Path) -> None:
    """H11, H13: for few and many credentials, shards, other namespaces; none to create what is made beforehand."""
    objects = helm.rendered(SHAPES[shape])
    _, config = config_of(objects, tmp_path)
    published = cluster._published(config, "tokens")
    used = {tuple(right) for right in (*cluster._needed(config, "tokens", published), *watches_of(published))}
    if SHAPES[shape].get("precreateOutputs"):
        used -= {("create", "", "secrets", *place) for place in published}
    granted = {
        (verb, group, resource, role["metadata"]["namespace"], name)
        for role in objects
        if role["kind"] == "Role" and role["metadata"]["name"].startswith("rotator")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }
    assert granted == used
