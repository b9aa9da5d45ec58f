"""A release: several real rotators that share one store, each with outputs and a network of its own."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from rotator.adapters.control_client import ControlClient, ControlProblem
from rotator.adapters.kubernetes import state_secret
from rotator.adapters.kubernetes.leases import names_of
from rotator.core.state import CredentialState
from tests.process.rig import PATIENCE, ROOT, wait_until
from tests.secrets_scan import assert_no_secrets
from tests.testbed.kubernetes.cluster import Namespace, Rule
from tests.testbed.kubernetes.proxy import Proxy

PREFIX: Final = "rotator-state-"
LEASE: Final = "rotator"
_NAMED: Final = ["get", "list", "watch", "patch", "create"]


def role(names: Sequence[str], shards: int = 1, *, by_name: bool = True) -> tuple[Rule, ...]:
    """Return the least rights that replicas need, as the manifests grant them."""
    secrets: Rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": _NAMED}
    if by_name:
        secrets["resourceNames"] = [state_secret.secret_name(PREFIX, name) for name in names]
    return (
        secrets,
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "patch", "create"],
            "resourceNames": list(names_of(LEASE, shards)),
        },
    )


class Replica:
    """One rotator: its process, which may be killed and started again, and its outputs, which stay."""

    def __init__(self, release: "Release", number: int, url: str, proxy: Proxy | None = None) -> None:
        self.number = number
        self.directory = release.directory / str(number)  # short: a path of a socket has its limit
        self._proxy = proxy
        self.process: subprocess.Popen[bytes] | None = None
        self.frozen = False
        self._release = release
        self._socket = self.directory / "run" / "rotator.sock"
        self._starts = itertools.count(1)
        for name in ("run", "out"):
            (self.directory / name).mkdir(parents=True, mode=0o700)
        release.account.kubeconfig(self.directory / "kubeconfig")
        config = json.loads((self.directory / "kubeconfig").read_text())
        config["clusters"][0]["cluster"]["server"] = url
        (self.directory / "kubeconfig").write_text(json.dumps(config))
        (self.directory / "rotator.toml").write_text(release.config(self.directory))

    @property
    def proxy(self) -> Proxy:
        """Return the network between the replica and the API server."""
        assert self._proxy is not None
        return self._proxy

    def command(self, *arguments: str) -> list[str]:
        """Return the argument vector of `rotator …`."""
        config = str(self.directory / "rotator.toml")
        return [sys.executable, "-B", "-m", "rotator.cli", "-c", config, *arguments]

    def start(self) -> None:
        """Start the process; it need not be ready at once."""
        log = self.directory / f"log-{next(self._starts)}"
        environment = {**os.environ, "KUBECONFIG": str(self.directory / "kubeconfig"), "PYTHONPATH": str(ROOT)}
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                self.command("run"), stdin=subprocess.DEVNULL, stderr=stderr, env=environment, cwd=ROOT
            )

    @property
    def pid(self) -> int:
        """Return the process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """Return what was logged in all lives."""
        return "".join(path.read_text() for path in sorted(self.directory.glob("log-*")))

    def kill(self) -> None:
        """SIGKILL the process."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)
        self.frozen = False

    def stop(self) -> int:
        """SIGTERM the process and return its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def freeze(self) -> None:
        """SIGSTOP the process: it knows nothing of the time that passes."""
        os.kill(self.pid, signal.SIGSTOP)
        self.frozen = True

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command with the same configuration, to its end."""
        environment = {**os.environ, "KUBECONFIG": str(self.directory / "kubeconfig"), "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, env=environment, cwd=ROOT,
            timeout=PATIENCE, check=False,
        )  # fmt: skip

    def thaw(self) -> None:
        """SIGCONT the process."""
        if self.frozen:
            os.kill(self.pid, signal.SIGCONT)
        self.frozen = False

    def ask(self, path: str, *, post: bool = False, **body: str) -> Any:
        """Ask the control socket; a ControlProblem if that fails."""
        client = ControlClient(self._socket, 20)
        return client.post(path, body) if post else client.get(path)

    @property
    def is_up(self) -> bool:
        """Whether the control socket answers."""
        return not isinstance(self.ask("/v1/version"), ControlProblem)

    def wait_until_up(self) -> None:
        """Wait until the control socket answers."""
        wait_until(lambda: self.is_up, f"replica {self.number} answers")

    def token(self, name: str) -> str:
        """Return what a consumer of this replica reads; empty if there is no output."""
        try:
            return (self.directory / "out" / name).read_text()
        except FileNotFoundError:
            return ""

    def owns(self, name: str) -> bool:
        """Tell whether this replica says that it refreshes the credential."""
        shown = self.ask(f"/v1/status/{name}")
        return not isinstance(shown, ControlProblem) and shown["credentials"][0]["held_by"] is None


class Release:
    """The replicas of one release, in one namespace."""

    def __init__(
        self, directory: Path, namespace: Namespace, token_url: str, names: Sequence[str], *, kubernetes: str = "",
        defaults: str = "", shards: int = 1,
        metrics: str = "enabled = false", secret: str = "",
    ) -> None:  # fmt: skip
        self.directory = directory
        self.namespace = namespace
        self.names = tuple(names)
        self.shards = shards
        published: list[Rule] = []
        if secret:
            resources = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret]}
            published = [{**resources, "verbs": ["get", "list", "watch", "patch", "create"]}]
        self.account = namespace.account(*role(names, shards, by_name=len(names) <= 8), *published)
        self.replicas: list[Replica] = []
        self._token_url = token_url
        self._kubernetes = kubernetes
        self._defaults = defaults
        self._metrics = metrics
        self._secret = secret

    def config(self, directory: Path) -> str:
        """Return the configuration of a replica."""
        credentials = "\n".join(f'[credentials."{name}"]' for name in self.names)
        secret = f', {{ kubernetes_secret = {{ name = "{self._secret}", data = {{ token = "raw" }} }} }}'
        return f"""
            [daemon]
            store = "kubernetes"
            runtime_directory = "{directory}/run"
            [kubernetes]
            shards = {self.shards}
            {self._kubernetes}
            [metrics]
            {self._metrics}
            [defaults]
            token_url = "{self._token_url}/v2/token"
            client_id = "sandbox-client"
            client_authentication = "none"
            outputs = [{{ path = "{directory}/out/{{name}}" }}{secret if self._secret else ""}]
            {self._defaults}
            {credentials}
            """

    @contextmanager
    def running(self, replicas: int) -> Generator[None]:
        """Run so many replicas until the end of the block; no log may hold a secret or a traceback."""
        host, port = self.namespace.cluster.url.removeprefix("https://").split(":")
        with ExitStack() as stack:
            for number in range(replicas):
                proxy = stack.enter_context(Proxy((host, int(port))))
                self.replicas.append(Replica(self, number, proxy.url, proxy))
            try:
                for replica in self.replicas:
                    replica.start()
                for replica in self.replicas:
                    replica.wait_until_up()
                yield
            finally:
                for replica in self.replicas:
                    if replica.process is not None and replica.process.poll() is None:
                        replica.kill()
        for replica in self.replicas:
            assert "Traceback" not in replica.log, replica.log
            for log in replica.directory.glob("log-*"):
                assert_no_secrets(log)

    def owner(self, name: str, patience: float = 30.0) -> Replica:
        """Return the replica that owns a credential, as soon as one says so."""
        found: list[Replica] = []

        def look() -> bool:
            found[:] = [one for one in self.replicas if not one.frozen and one.owns(name)]
            return bool(found)

        wait_until(look, f"somebody owns {name}", patience)
        return found[0]

    def adopt(self, name: str, pair: str) -> None:
        """Log in: hand a token answer to the credential's owner, whoever that is by then."""

        def hand_over() -> bool:
            done = self.owner(name).ask(f"/v1/adopt/{name}", post=True, pair=pair)
            return not isinstance(done, ControlProblem)

        wait_until(hand_over, f"{name} is logged in")

    def stored(self, name: str) -> CredentialState | None:
        """Return what is stored, as the administrator sees it. Raises OSError if the API server is away."""
        body = self.namespace.get("secrets", state_secret.secret_name(PREFIX, name))
        return None if body is None else state_secret.read(body, name)


def wait(seconds: float) -> None:
    """Let time pass: that is what a fault of a certain length is."""
    time.sleep(seconds)
