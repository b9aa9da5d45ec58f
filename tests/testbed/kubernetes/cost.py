"""What replicas cost an API server, and in memory: counted by the API server itself.

python -m tests.testbed.kubernetes.cost
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from rotator.adapters.kubernetes.client import KubernetesClient
from rotator.adapters.kubernetes.store import SecretStore
from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from tests.process.rig import wait_until
from tests.samples import state_of
from tests.secrets_scan import PREFIX as PLANTED
from tests.testbed.kubernetes.cluster import Cluster
from tests.testbed.kubernetes.release import PREFIX, Release, Replica, role
from tests.testbed.kubernetes.servers import run_servers

ROTATIONS: Final = 10
HANDED_OVER: Final = 20
_COUNTED: Final = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_FLEET_SECONDS: Final = 300.0
_SETTLED_SECONDS: Final = 10.0  # what is asked on its own account in this time is what is measured


def requests(cluster: Cluster) -> Counter[str]:
    """Return how many requests for Secrets and Leases the API server has served, by verb."""
    _, text = cluster.ask("GET", "/metrics")
    counted: Counter[str] = Counter()
    for labels, number in _COUNTED.findall(text):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        # The API server keeps a Lease of its own, by PUT; rotator patches.
        if told["resource"] in ("secrets", "leases") and told["verb"] != "PUT":
            counted[f"{told['verb']} {told['resource']}"] += int(float(number))
    return counted


def during(cluster: Cluster, work: Callable[[], Any]) -> Counter[str]:
    """Return what was asked during some work."""
    before = requests(cluster)
    work()
    return requests(cluster) - before


def told(counted: Counter[str], per: float) -> str:
    """Return counts in words, divided."""
    return ", ".join(f"{number / per:.1f} {what}" for what, number in sorted(counted.items())) or "none"


def memory(replica: Replica) -> float:
    """Return the MiB that a replica occupies."""
    status = Path(f"/proc/{replica.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def small(directory: Path, cluster: Cluster, sandbox: Sandbox, url: str, idle_seconds: float) -> None:
    """Measure two replicas with one credential and default settings: published to files, then to a Secret, too."""
    unasked = during(cluster, lambda: time.sleep(idle_seconds))  # the API server has a Lease of its own
    for secret in ("", "home-token"):
        release = Release(directory / f"small{secret}", cluster.namespace(), url, ["home"], secret=secret)
        with release.running(2):
            release.adopt("home", json.dumps(sandbox.issue("home")))
            what = ", a Secret as output" if secret else ""
            say(f"requests per rotation{what}", told(_rotations(cluster, release), ROTATIONS))
            idle = during(cluster, lambda: time.sleep(idle_seconds)) - unasked
            say(f"idle requests a minute, two replicas{what}", told(idle, idle_seconds / 60))
            say(f"memory, 1 Secret{what}", ", ".join(f"{memory(one):.0f} MiB" for one in release.replicas))


def _rotations(cluster: Cluster, release: Release) -> Counter[str]:
    """Return what some rotations ask for; the watches, which end and are resumed each minute, apart."""
    wait_until(lambda: all(one.token("home") for one in release.replicas), "the outputs are there")
    owner = release.owner("home")

    def rotate() -> None:
        for _ in range(ROTATIONS):
            assert owner.run("rotate", "home").returncode == 0
        newest = owner.token("home")
        wait_until(lambda: all(one.token("home") == newest for one in release.replicas), "all have the newest token")

    counted = during(cluster, rotate)
    return Counter({what: n for what, n in counted.items() if what.endswith(" secrets") and "WATCH" not in what})


def change_of_hands(directory: Path, cluster: Cluster, sandbox: Sandbox, url: str) -> None:
    """Measure what it costs that another replica takes over fresh credentials, published to files or to Secrets."""
    names = [f"c{one}" for one in range(HANDED_OVER)]
    for secret in ("", "{name}-token"):
        release = Release(directory / f"change{len(secret)}", cluster.namespace(), url, names, secret=secret)
        with release.running(2):
            for name in names:
                release.adopt(name, json.dumps(sandbox.issue(name)))
            counted = _handed_over(cluster, release)
        what = ", a Secret each as output" if secret else ""
        say(f"{HANDED_OVER} credentials change hands{what}", told(counted, 1))


def _handed_over(cluster: Cluster, release: Release) -> Counter[str]:
    """Return what is asked about Secrets while the owner stops and another takes over; the watches apart."""
    wait_until(lambda: all(one.token(name) for one in release.replicas for name in release.names), "outputs")
    time.sleep(_SETTLED_SECONDS)
    owner = release.owner(release.names[0])

    def hand_over() -> None:
        owner.stop()
        time.sleep(_SETTLED_SECONDS)

    counted = during(cluster, hand_over)
    return Counter({what: n for what, n in counted.items() if what.endswith(" secrets") and "WATCH" not in what})


def large(directory: Path, cluster: Cluster, url: str, number: int, idle_seconds: float) -> None:
    """Measure two replicas that share a fleet, whose tokens are fresh."""
    names = [f"c{one}" for one in range(number)]
    namespace = cluster.namespace()
    filler = namespace.account(*role((), by_name=False), name="filler").kubeconfig(directory / "filler")
    now = time.time()
    state = state_of(obtained_at=now, expires_at=now + 3600, refresh_obtained_at=now)
    with closing(KubernetesClient({"KUBECONFIG": str(filler)})) as client, ThreadPoolExecutor(4) as pool:
        store = SecretStore(client, namespace.name, PREFIX, 30.0)
        for problem in pool.map(lambda name: store.save(name, state), names):
            assert problem is None, problem
    release = Release(directory / "large", namespace, url, names, shards=2)
    with release.running(2):
        wait_until(
            lambda: all(one.token(name) for one in release.replicas for name in names), "outputs", _FLEET_SECONDS
        )
        idle = during(cluster, lambda: time.sleep(idle_seconds))
        say(f"idle requests a minute, {number} Secrets", told(idle, idle_seconds / 60))
        say(f"memory, {number} Secrets", ", ".join(f"{memory(one):.0f} MiB" for one in release.replicas))


def say(what: str, text: str) -> None:
    """Print a line of the table."""
    print(f"{what:58} {text}", flush=True)  # noqa: T201 - a command


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleet", type=int, default=5000)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds to count idle requests in")
    options = parser.parse_args()
    sandbox = Sandbox(switches=Switches(client_secret="", token_prefix=PLANTED), users={"*": "none"})
    with tempfile.TemporaryDirectory() as temporary, SandboxServer(sandbox) as server:
        directory = Path(temporary)
        with run_servers(directory / "cluster") as servers:
            small(directory, servers.cluster, sandbox, server.url, options.idle)
            change_of_hands(directory, servers.cluster, sandbox, server.url)
            if options.fleet:
                large(directory, servers.cluster, server.url, options.fleet, options.idle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
