"""Where the API server is, whom to trust and as whom to speak: from the pod or a kubeconfig, by lightkube.

The only module that imports lightkube.
"""

import os
import socket
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User
from lightkube.core.exceptions import ConfigError as NoToken

__all__ = ["MOUNT", "Connection", "NoToken", "Unconfigured", "connect"]

MOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its service account."""
_HOME: Final = "~/.kube/config"
# Without a limit: each watch has a connection to itself, and what else is asked at once the workers limit.
_CONNECTIONS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=5.0)
# A watch is silent for long: that its server is gone is found out within a minute.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


@dataclass(frozen=True, slots=True)
class Connection:
    """A way to one API server, with TLS and authentication. Used by any number of threads."""

    http: httpx.Client
    server: str
    namespace: str


class Unconfigured(Exception):  # noqa: N818 - it says what is the matter
    """Nothing usable says where the API server is: one line with the cure."""


class _TokenFile(httpx.Auth):
    """Reads the token anew for each request: a kubelet replaces it long before it is refused (cases H1 to H3)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._path.read_text(encoding='ascii').strip()}"
        yield request


def connect(environ: Mapping[str, str], mount: Path = MOUNT) -> Connection:
    """Read what there is, all of it anew: `$KUBECONFIG` if set, else the pod's service account, else `~/.kube/config`.

    Nothing is sent. Raises Unconfigured.
    """
    named = environ.get("KUBECONFIG", "").partition(os.pathsep)[0]
    in_pod = not named and mount.exists()
    try:
        return _connection(_pod(environ, mount) if in_pod else KubeConfig.from_file(named or _HOME).get())
    except Exception as error:  # noqa: BLE001 - a file of somebody's, read by a library that checks little
        where = f"$KUBECONFIG ({named})" if named else str(mount) if in_pod else f"{_HOME} (and this is no pod)"
        said = " ".join(str(error).split()) or type(error).__name__
        text = f"Kubernetes: {where} does not say where the API server is and who we are: {said}"
    raise Unconfigured(text)


def _pod(environ: Mapping[str, str], mount: Path) -> SingleConfig:
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    config = KubeConfig.from_one(
        cluster=Cluster(server=server, certificate_auth=str(mount / "ca.crt")),
        user=User(token_file=str(mount / "token")),
        namespace=(mount / "namespace").read_text(encoding="ascii").strip(),
    ).get()
    assert config is not None  # noqa: S101 - there is one context
    return config


def _connection(config: SingleConfig | None) -> Connection:
    if config is None or config.user is None:
        raise NoToken("the current context is missing or names no user")
    context = verify_cluster(config.cluster, config.user, config.abs_file, trust_env=False)
    token_file = config.user.token_file
    auth = _TokenFile(Path(config.abs_file(token_file))) if token_file else user_auth(config.user)
    # No settings from the environment: a proxy or a .netrc that is meant for others must not see the token.
    transport = httpx.HTTPTransport(verify=context, limits=_CONNECTIONS, socket_options=_KEEPALIVE, trust_env=False)
    http = httpx.Client(auth=auth, transport=transport, trust_env=False, follow_redirects=False)
    return Connection(http, config.cluster.server.rstrip("/"), config.namespace)
