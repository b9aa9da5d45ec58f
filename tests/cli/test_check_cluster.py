"""`rotator check` and a start in a cluster: what the configuration needs there, asked of a real API server."""

import json
from pathlib import Path
from typing import Any

import yaml

from rotator.sandbox.server import SandboxServer
from tests.cli.conftest import Place
from tests.process.rig import wait_until
from tests.testbed.kubernetes.cluster import Account, Namespace, Rule
from tests.testbed.kubernetes.pod import on_secrets

SECRET = 'outputs = [{ kubernetes_secret = { name = "web", data = { token = "raw" } } }]'
ALL = ("get", "patch", "create", "watch")
RULE = '- {apiGroups: [""], resources: ["secrets"], resourceNames: ["web"], verbs: '
GOOD = "ok    Kubernetes: the API server answers, and every right that is needed is there"


def configure(rotator: Place, outputs: str = SECRET, more: str = "") -> None:
    """Configure these outputs in place of the file, and more tables."""
    rotator.configure()
    file = f'outputs = [{{ path = "{rotator.directory}/out/{{name}}" }}]'
    rotator.config.write_text(rotator.config.read_text().replace(file, outputs) + more)


def become(rotator: Place, account: Account, name: str = "kubeconfig") -> Path:
    """Run as the account from now on."""
    path = account.kubeconfig(rotator.directory / name)
    rotator.environment["KUBECONFIG"] = str(path)
    return path


def found(rotator: Place) -> tuple[int, list[str]]:
    """Run check; return its exit code and what it says of the cluster."""
    run = rotator("check")
    assert run.err == ""
    return run.code, [line for line in run.out.splitlines() if " Kubernetes: " in line]


def test_all_rights_are_there(rotator: Place, namespace: Namespace) -> None:
    """H13: with the least Role, by name, nothing is missing."""
    configure(rotator)
    become(rotator, namespace.account(on_secrets(*ALL)))
    assert found(rotator) == (0, [GOOD])


def test_missing_rights_are_one_rule_to_paste(rotator: Place, namespace: Namespace) -> None:
    """H12, H13: exactly the verbs that are used and missing stand in the rule; without a watch it is a warning."""
    configure(rotator)
    account = namespace.account(on_secrets("get"))
    become(rotator, account)
    watch = (
        "warn  Kubernetes: changes of a published Secret are noticed late, for want of a watch: "
        f'add to the Role in namespace {namespace.name}: {RULE}["watch"]}}'
    )
    assert found(rotator) == (
        78,
        [f'fail  Kubernetes: add to the Role in namespace {namespace.name}: {RULE}["patch", "create"]}}', watch],
    )
    account.grant(on_secrets("get", "patch"))
    namespace.make_secret("web", {})
    assert found(rotator) == (0, [watch, GOOD]), "H11: what is made beforehand needs no right to create"


def test_a_start_warns_of_missing_rights_and_goes_on(rotator: Place, namespace: Namespace) -> None:
    """H13: a new release with the old one's Role says at once, and in one line, what is missing."""
    configure(rotator)
    become(rotator, namespace.account(on_secrets("get")))
    log = rotator.directory / "log"

    def warned() -> list[str]:
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [line["message"] for line in lines if line["event"] == "right_missing"]

    with rotator.daemon():
        wait_until(lambda: warned() != [], "the warning is in the log")
    assert warned() == [f'add to the Role in namespace {namespace.name}: {RULE}["patch", "create"]}}']


def test_a_reload_warns_of_rights_that_new_outputs_lack(rotator: Place, namespace: Namespace) -> None:
    """H13: an output that is added while rotator runs is reviewed as at a start; before that nothing was missing."""
    configure(rotator)
    become(rotator, namespace.account(on_secrets(*ALL)))
    log = rotator.directory / "log"
    with rotator.daemon():
        configure(rotator, SECRET.replace('"web"', '"shop"'))
        assert rotator("reload").code == 0
        wait_until(lambda: "right_missing" in log.read_text(), "the warning is in the log")
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "right_missing"]
    rule = RULE.replace("web", "shop")
    assert [line["message"] for line in lines] == [
        f'add to the Role in namespace {namespace.name}: {rule}["get", "patch", "create"]}}'
    ]


def test_a_fleet_s_rights_are_asked_for_as_a_whole(rotator: Place, namespace: Namespace) -> None:
    """Many Secrets share one watch, and one rule."""
    everything: Rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": [*ALL]}
    fleet = SECRET.replace("web", "web-{name}")
    configure(rotator, fleet, "".join(f"[credentials.u{number}]\n{fleet}\n" for number in range(12)))
    become(rotator, namespace.account(everything))
    assert found(rotator) == (0, [GOOD])


def test_outputs_do_not_widen_the_rule_of_the_store(rotator: Place, namespace: Namespace) -> None:
    """H12, H13: states, published Secrets and Leases get a rule each; pasted into the Role, they are all it takes."""
    configure(rotator)
    text = rotator.config.read_text()
    files = f'state_directory = "{rotator.state}"'
    rotator.config.write_text(text.replace(files, 'store = "kubernetes"'))
    account = namespace.account(on_secrets("get", name="none"))
    become(rotator, account)
    code, lines = found(rotator)
    add = f"Kubernetes: add to the Role in namespace {namespace.name}: "
    state, leases = RULE.replace("web", "rotator-state-home"), RULE.replace('""', '"coordination.k8s.io"')
    assert (code, lines[:3]) == (
        78,
        [
            f'fail  {add}{state}["get", "list", "watch", "patch", "create"]}}',
            f'fail  {add}{RULE}["get", "patch", "create"]}}',
            f'fail  {add}{leases.replace("secrets", "leases").replace("web", "rotator")}["get", "patch", "create"]}}',
        ],
    )
    rules = [yaml.safe_load(line.partition(f" namespace {namespace.name}: ")[2])[0] for line in lines]
    account.grant(*rules)
    assert found(rotator) == (0, [GOOD]), "what is printed is all that it takes"


def test_an_api_server_that_is_away_fails(rotator: Place, namespace: Namespace) -> None:
    """A cluster that cannot be asked is one line, and a failure."""
    configure(rotator)
    config = become(rotator, namespace.account(on_secrets(*ALL)))
    config.write_text(config.read_text().replace(namespace.cluster.url, "https://127.0.0.1:1"))
    code, (line,) = found(rotator)
    assert code == 78
    assert line.startswith("fail  Kubernetes: Kubernetes API: https://127.0.0.1:1: no connection")


def test_one_secret_in_two_spellings_is_found(rotator: Place, namespace: Namespace) -> None:
    """Which namespace is meant where none is named is known in the cluster only: a Secret of two is found there."""
    spelled = SECRET.replace('"web",', f'"web", namespace = "{namespace.name}",')
    configure(rotator, SECRET, f"[credentials.office]\n{spelled}\n")
    become(rotator, namespace.account(on_secrets(*ALL)))
    code, lines = found(rotator)
    assert code == 78
    text = f"Secret {namespace.name}/web is published by home and by office: choose another name"
    assert lines == [f"fail  Kubernetes: {text}", GOOD]


def test_tokens_too_short_for_a_mounted_secret_are_told(
    rotator: Place, namespace: Namespace, server: SandboxServer
) -> None:
    """H16, H17: a Secret takes three minutes to reach a pod; a third of a shorter token's life is less than that."""
    server.sandbox.change(access_lifetime=300)
    configure(rotator)
    become(rotator, namespace.account(on_secrets(*ALL)))
    assert rotator.login().code == 0
    assert namespace.secret("web") is not None
    run = rotator("check")
    assert run.code == 0
    text = "tokens live 5 min and are renewed 100 s before their end, but readers may notice a new one 3 min late"
    assert f"warn  credentials.home: {text}" in run.out


def test_readers_that_never_see_a_new_token_are_told(rotator: Place, namespace: Namespace) -> None:
    """H19: who may list Pods and checks is told of those that take the Secret by subPath or into their environment."""
    mounts: dict[str, dict[str, Any]] = {
        "fine": {"volumeMounts": [{"name": "token", "mountPath": "/t"}]},
        "file": {"volumeMounts": [{"name": "token", "mountPath": "/t", "subPath": "token"}]},
        "both": {"volumeMounts": [{"name": "both", "mountPath": "/t", "subPathExpr": "token"}]},
        "all": {"envFrom": [{"secretRef": {"name": "web"}}]},
        "one": {"env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "web", "key": "token"}}}]},
        "else": {"envFrom": [{"secretRef": {"name": "other"}}]},
    }
    projected = {"sources": [{"secret": {"name": "other"}}, {"secret": {"name": "web"}}]}
    spec = {
        "containers": [{"name": name, "image": "app", **mount} for name, mount in mounts.items()],
        "volumes": [{"name": "token", "secret": {"secretName": "web"}}, {"name": "both", "projected": projected}],
    }
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop", "uid": "f9a9ad0e"}
    for name in ("shop-1", "shop-2"):
        pod = {"metadata": {"name": name, "ownerReferences": [owner]}, "spec": spec}
        namespace.cluster.good("POST", namespace.path("pods"), pod)
    configure(rotator)
    account = namespace.account(on_secrets(*ALL))
    become(rotator, account)
    assert found(rotator) == (0, [GOOD]), "the daemon's own account sees no Pods"
    account.grant(on_secrets(*ALL), {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]})
    by_path = "mounts Secret web with subPath, which never shows a new token: mount the whole volume"
    fixed = "has Secret web in its environment, which never changes: mount it as a volume"
    told = [f"file {by_path}", f"both {by_path}", f"all {fixed}", f"one {fixed}"]
    warnings = [f"warn  Kubernetes: Pod {namespace.name}/shop-1: container {text}" for text in told]
    assert found(rotator) == (0, [GOOD, *warnings])
