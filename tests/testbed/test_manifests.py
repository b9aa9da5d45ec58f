"""The manifests: as Kubernetes wants them, and rotator at work with exactly the rights that they grant."""

import json
import re
import socket
from collections.abc import Generator, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from rotator.adapters.kubernetes.peers import rights_of
from rotator.config import Config, load
from rotator.daemon import _LAST_SAVES_SECONDS
from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from tests.needs import needs
from tests.process.rig import SandboxProcess, wait_until
from tests.secrets_scan import PREFIX as PLANTED
from tests.secrets_scan import planted
from tests.testbed.kubernetes.cluster import Namespace
from tests.testbed.kubernetes.container import IMAGE
from tests.testbed.kubernetes.kubelet import Kubelet, Pod
from tests.testbed.kubernetes.manifests import DIRECTORY, Applied, Manifest, customised, rendered

VERSION = "1.37.0"
KUSTOMIZATIONS = sorted(
    str(path.parent.relative_to(DIRECTORY))
    for path in DIRECTORY.rglob("kustomization.yaml")
    if "kind: Kustomization" in path.read_text()
)
WORKLOADS = ("Deployment", "Job")


class World:
    """A namespace with a sandbox that its pods know by name, and somebody who runs pods."""

    def __init__(self, applied: Applied, kubelet: Kubelet, server: SandboxServer, directory: Path) -> None:
        self.applied = applied
        self.namespace = applied.namespace
        self.kubelet = kubelet
        self.sandbox = server.sandbox
        self.accepts = SandboxProcess(server.url).accepts
        self._directory = directory

    def apply(self, what: str, more: str = "") -> dict[tuple[str, str], Manifest]:
        """Apply manifests as they are but for the server, which is the sandbox, and `more` defaults."""
        text = (DIRECTORY / what / "rotator.toml").read_text().replace("[defaults]", f"[defaults]\n{more}")
        text = text.replace("https://ce-api.example", "http://sandbox:8080").replace("my-client", "sandbox-client")
        directory = self._directory / what.replace("/", "-")
        directory.mkdir()
        return self.applied.apply(customised(directory, what, text))

    def holder(self) -> str:
        """Return the pod that refreshes, as the how-to finds it; empty if none does yet."""
        lease = self.namespace.get("leases", "rotator") or {}
        return str((lease.get("spec") or {}).get("holderIdentity") or "").rpartition("-")[0]

    def log_in(self) -> Pod:
        """Log in where the credential is refreshed; return that pod."""
        name = wait_until(self.holder, "somebody holds the Lease")
        pod = next(pod for pod in self.kubelet.pods if pod.name == name)
        answer = json.dumps(self.sandbox.issue("user@example.com"))
        done = pod["rotator"].run("rotator", "login", "home", "--from-stdin", given=answer)
        assert done.returncode == 0, done.stderr
        return pod


@pytest.fixture
def world(namespace: Namespace, tmp_path: Path) -> Generator[World]:
    """A namespace to work in, the client secret in place."""
    needs("kubectl", "mount namespace", "network namespace")
    secret = planted("client-secret")
    sandbox = Sandbox(
        switches=Switches(client_secret=secret, token_prefix=PLANTED), users={"user@example.com": planted("password")}
    )
    namespace.make_secret("rotator-client", {"client-secret": secret})
    with SandboxServer(sandbox) as server:
        services = {"sandbox:8080": lambda: socket.create_connection((server.host, server.port), timeout=1.0)}
        with Kubelet(namespace, tmp_path / "pods", services).running() as kubelet:
            yield World(Applied(namespace, tmp_path), kubelet, server, tmp_path)


def pod_specs(objects: list[Manifest]) -> Iterator[dict[str, Any]]:
    """Return what the workloads among some objects run."""
    yield from (one["spec"]["template"]["spec"] for one in objects if one["kind"] in WORKLOADS)


@pytest.mark.parametrize("what", KUSTOMIZATIONS)
def test_each_is_rendered_and_keeps_to_the_schema(what: str) -> None:
    """No field is misspelt or of the wrong type, by the strict schemas of this Kubernetes."""
    needs("kubectl")
    made = rendered(DIRECTORY / what)
    for each in made:
        kubernetes_validate.validate(each, VERSION, strict=True)
    images = {
        one["image"] for spec in pod_specs(made) for one in (*spec.get("initContainers", ()), *spec["containers"])
    }
    assert images <= {IMAGE, "app"}  # this version, and what stands for the user's program


def test_a_misspelt_field_is_found() -> None:
    """The schemas are as strict as the test above takes them for."""
    needs("kubectl")
    broken = next(one for one in rendered(DIRECTORY / "base") if one["kind"] == "Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["startupprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="startupprobe"):
        kubernetes_validate.validate(broken, VERSION, strict=True)


@pytest.mark.parametrize("what", KUSTOMIZATIONS)
def test_a_restricted_namespace_takes_every_pod(what: str, namespace: Namespace, tmp_path: Path) -> None:
    """The API server takes each object, field by field, and each workload's pod by the standard `restricted`."""
    needs("kubectl")
    for workload in Applied(namespace, tmp_path).apply(DIRECTORY / what).values():
        if workload["kind"] in WORKLOADS:
            body = {"metadata": {"generateName": "pod-"}, "spec": workload["spec"]["template"]["spec"]}
            namespace.cluster.good("POST", namespace.path("pods"), body)
            for container in (*body["spec"].get("initContainers", ()), *body["spec"]["containers"]):
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
                allowed = container["securityContext"].pop("allowPrivilegeEscalation")
                status, answer = namespace.cluster.ask("POST", namespace.path("pods"), body)
                assert (status, "restricted" in answer["message"]) == (403, True)  # so it would have been noticed
                container["securityContext"]["allowPrivilegeEscalation"] = allowed


def test_nothing_is_mounted_by_subpath() -> None:
    """H19 to H22: a file mounted by subPath would never change, so none is in manifests, chart, compose or how-to."""
    top = DIRECTORY.parents[1]
    files = [*(top / "deploy").rglob("*"), *(top / "docs/how-to").rglob("*")]
    texts = {str(path): path.read_text() for path in files if path.suffix in {".md", ".tpl", ".yaml", ".yml"}}
    found = [path for path, text in texts.items() if re.search(r"\bsubPath\w*:", text)]
    assert found == []


def granted(what: str) -> set[tuple[str, str, str, str]]:
    """Return verb, group, resource and name of each right that the Role of some manifests grants."""
    role = next(one for one in rendered(DIRECTORY / what) if one["kind"] == "Role")
    return {
        right
        for rule in role["rules"]
        for right in product(rule["verbs"], rule["apiGroups"], rule["resources"], rule["resourceNames"])
    }


def test_a_role_grants_what_is_used_and_nothing_else() -> None:
    """H11, H13: the rights are those that `rotator check` asks for, each on an object with a name."""
    needs("kubectl")
    used = {(one.verb, *one[1:3], one.name) for one in rights_of("", "rotator-state-", ["home"], ["rotator"])}
    published = {(verb, "", "secrets", "home-token") for verb in ("get", "watch", "patch", "create")}
    assert granted("base") == used | published
    for what in ("sidecar", "sidecar-shared", "once"):
        assert granted(f"overlays/{what}") == used
    assert granted("overlays/mirror") == {(verb, "", "secrets", "home-token") for verb in ("list", "watch")}


def test_a_stop_is_given_the_time_it_may_take(tmp_path: Path) -> None:
    """What rotates gets `drain_timeout`, as its configuration has it, and the half minute of the daemon's last saves.

    A sidecar gets what a program leaves that takes the 30 s that Kubernetes gives one by default.
    """
    needs("kubectl")
    seen = 0
    for what in KUSTOMIZATIONS:
        made = rendered(DIRECTORY / what)
        texts = [one["data"].get("rotator.toml") for one in made if one["kind"] == "ConfigMap"]
        for spec in pod_specs(made):
            for beside, containers in ((30, spec.get("initContainers", ())), (0, spec["containers"])):
                if any(one.get("args", [""])[0] == "run" for one in containers):
                    (tmp_path / "rotator.toml").write_text(*texts)
                    config = load(tmp_path / "rotator.toml", None, {})
                    assert isinstance(config, Config)
                    needed = beside + config.daemon.drain_timeout + _LAST_SAVES_SECONDS
                    assert spec["terminationGracePeriodSeconds"] >= needed, what
                    seen += 1
    assert seen >= 4


def test_a_job_says_how_often_it_is_tried() -> None:
    """A Job gives up after its own number of failures: for `once` each try without a token is one."""
    needs("kubectl")
    jobs = {
        what: one
        for what in ("sidecar", "once")
        for one in rendered(DIRECTORY / "overlays" / what)
        if one["kind"] == "Job"
    }
    assert {what: job["spec"]["backoffLimit"] for what, job in jobs.items()} == {"sidecar": 6, "once": 30}


def published(namespace: Namespace, name: str = "home-token") -> str:
    """Return the token that consumers find in the Secret."""
    return (namespace.secret(name) or {}).get("token", "")


def is_ready(pod: Pod) -> bool:
    """Tell whether all that a replica has to see to is in place."""
    return pod["rotator"].run("rotator", "health", "--ready").returncode == 0


def test_two_replicas_publish_a_secret_and_relieve_each_other(world: World) -> None:
    """H25: the base, under its own Role: no Secret without a token, but life; then it publishes, and hands over."""
    made = world.apply("base")
    deployment = made["Deployment", "rotator"]
    assert deployment["spec"]["replicas"] == 2
    pods = [world.kubelet.pod(deployment) for _ in range(2)]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod["rotator"].wait_for("startupProbe")
        assert not is_ready(pod)
    assert published(world.namespace) == ""

    owner = world.log_in()
    other = next(pod for pod in pods if pod is not owner)
    token = wait_until(lambda: published(world.namespace), "the token is published")
    assert world.accepts(token)
    for pod in pods:
        wait_until(partial(is_ready, pod), "it is ready")
        checked = pod["rotator"].run("rotator", "check")
        assert (checked.returncode, "add to the Role" in checked.stdout) == (0, False), checked.stdout

    assert owner.stop() == [0]
    wait_until(lambda: world.holder() == other.name, "the other takes over", patience=15.0)
    rotated = other["rotator"].run("rotator", "rotate", "home")
    assert rotated.returncode == 0, rotated.stderr
    wait_until(lambda: published(world.namespace) != token, "its token is published")
    assert other["rotator"].probe("livenessProbe")
    for pod in pods:
        assert "forbidden" not in pod["rotator"].log
    assert world.sandbox.books.replays_by_user.total() == 0


def token_of(pod: Pod) -> str:
    """Return what the program in a pod reads."""
    read = pod["app"].run("cat", "/run/tokens/home")
    assert read.returncode == 0, read.stderr
    return read.stdout


def test_a_job_with_a_sidecar_finds_its_token_and_completes(world: World) -> None:
    """H24, H25: the program starts once its token is there; the sidecar outlives it, and ends in good order."""
    job = world.apply("overlays/sidecar")["Job", "app"]
    pod = world.kubelet.pod(job)
    sidecar, program = pod["rotator"], pod["app"]
    assert sidecar.spec["restartPolicy"] == "Always"
    sidecar.start()
    sidecar.wait_for("livenessProbe")
    assert not sidecar.probe("startupProbe")
    assert world.log_in() is pod
    pod.start()
    assert world.accepts(token_of(pod))
    out_of_reach = ("/etc/rotator", "/run/rotator", "/var/run/secrets")
    assert program.run("ls", *out_of_reach).stdout == ""
    assert program.run("touch", "/run/tokens/home").returncode != 0
    program.kill()  # it is done
    assert sidecar.stop() == 0
    assert world.holder() == ""

    following = world.kubelet.pod(job)
    following.start()  # nobody has to log in again
    assert world.accepts(token_of(following))


def test_replicas_of_a_program_share_one_refresh_token(world: World) -> None:
    """C22: each has the leader's token; when the leader's pod goes, another rotates."""
    deployment = world.apply("overlays/sidecar-shared")["Deployment", "app"]
    pods = [world.kubelet.pod(deployment) for _ in range(2)]
    for pod in pods:
        pod["rotator"].start()
    leader = world.log_in()
    other = next(pod for pod in pods if pod is not leader)
    for pod in pods:
        pod.start()
    first = token_of(leader)
    assert token_of(other) == first

    assert leader["rotator"].run("rotator", "rotate", "home").returncode == 0
    wait_until(lambda: token_of(other) == token_of(leader) != first, "the follower has the new token")
    leader["app"].kill()
    assert leader["rotator"].stop() == 0
    wait_until(lambda: world.holder() == other.name, "the other takes over", patience=15.0)
    second = token_of(other)
    assert other["rotator"].run("rotator", "rotate", "home").returncode == 0
    wait_until(lambda: token_of(other) != second, "it rotates")
    assert world.sandbox.books.replays_by_user.total() == 0


def test_a_mirror_has_the_published_token_within_reach_and_no_other(world: World) -> None:
    """H25: the program starts with the published Secret, sees each change; its pod may read no other Secret."""
    world.namespace.make_secret("rotator-state-home", {"state": planted("refresh-token")})
    deployment = world.applied.apply(DIRECTORY / "overlays/mirror")["Deployment", "app"]
    pod = world.kubelet.pod(deployment)
    pod["mirror"].start()
    assert not pod["mirror"].probe("startupProbe")
    world.namespace.make_secret("home-token", {"token": planted("first")})
    pod.start()
    assert token_of(pod) == planted("first")
    world.namespace.edit("secrets", "home-token", {"stringData": {"token": planted("second")}})
    wait_until(lambda: token_of(pod) == planted("second"), "the new token is mirrored")
    for verb, path in (("GET", "secrets/rotator-state-home"), ("GET", "secrets"), ("DELETE", "secrets/home-token")):
        status, _ = world.namespace.cluster.ask(verb, world.namespace.path(path), token=pod.account.token())
        assert status == 403, path
    pod["app"].kill()
    assert pod["mirror"].stop() == 0


def test_a_short_job_gets_its_token_first(world: World) -> None:
    """H25: `run --once` ends with 0 when the token is there, and the program starts; the next Job spends nothing."""
    world.namespace.edit(
        "secrets", "rotator-client", {"stringData": {"seed-home": json.dumps(world.sandbox.issue("user@example.com"))}}
    )
    job = world.apply("overlays/once", more='seed = { file = "/etc/rotator/seed-{name}" }')["Job", "app"]
    for _ in range(2):
        pod = world.kubelet.pod(job)
        pod.start()
        assert world.accepts(token_of(pod))
        assert world.holder() == ""
    assert world.sandbox.books.refresh_grants == 1


def test_what_watches_the_pods_fits_them() -> None:
    """The PodMonitor finds the port of the base's pods by their label; the API server does not know its kind."""
    needs("kubectl")
    made = {one["kind"]: one for one in rendered(DIRECTORY / "monitoring")}
    template = next(one for one in rendered(DIRECTORY / "base") if one["kind"] == "Deployment")["spec"]["template"]
    wanted = made["PodMonitor"]["spec"]
    assert wanted["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert wanted["jobLabel"] in template["metadata"]["labels"]
    ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    assert {one["port"] for one in wanted["podMetricsEndpoints"]} <= ports
    assert made["PrometheusRule"]["spec"]["groups"]
