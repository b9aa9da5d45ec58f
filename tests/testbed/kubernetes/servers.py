"""A real Kubernetes API server and its etcd, each a process, on loopback and in a directory of their own.

with run_servers(tmp_path) as servers:
    cluster = servers.cluster
    servers.freeze_etcd()
"""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.process.rig import PATIENCE, own_host
from tests.testbed.kubernetes import build
from tests.testbed.kubernetes.cluster import Cluster

_ATTEMPTS: Final = 3  # another process may take a port between the moment it is found free and its use
_DAYS: Final = "2"


class Servers:
    """The two processes. Clients need only `cluster`; tests of outages also stop, start and freeze."""

    def __init__(self, directory: Path, flags: tuple[str, ...] = ()) -> None:
        """Take more flags for the API server. Make keys and certificates; nothing runs before `start`."""
        self.directory = directory
        self._host = own_host()
        self._flags = flags
        self.cluster = Cluster(directory)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._apiserver: subprocess.Popen[bytes] | None = None
        self._ports = (0, 0, 0)
        _make_keys(directory, self._host)

    def start(self) -> None:
        """Start both and wait until the API server is ready; RuntimeError if it never is."""
        for _ in range(_ATTEMPTS):
            self._ports = _free_ports(self._host)
            shutil.rmtree(self.directory / "etcd", ignore_errors=True)
            self._start_etcd()
            if self._try_apiserver():
                return
            self.stop()
        raise RuntimeError(f"no API server: {_tail(self.directory / 'apiserver.log')}")

    def stop(self) -> None:
        """Kill both: told to end, the API server would take seconds over it."""
        self.stop_apiserver()
        _kill(self._etcd)
        self._etcd = None

    def start_apiserver(self) -> None:
        """Start the API server again, on its old port, and wait until it is ready."""
        if not self._try_apiserver():
            raise RuntimeError(f"no API server: {_tail(self.directory / 'apiserver.log')}")

    def stop_apiserver(self) -> None:
        """Kill the API server; its port then refuses connections."""
        _kill(self._apiserver)
        self._apiserver = None

    def freeze_etcd(self) -> None:
        """Stop etcd where it stands: the API server accepts requests and cannot carry them out."""
        assert self._etcd is not None
        self._etcd.send_signal(signal.SIGSTOP)

    def thaw_etcd(self) -> None:
        """Let etcd go on."""
        assert self._etcd is not None
        self._etcd.send_signal(signal.SIGCONT)

    def freeze_apiserver(self) -> None:
        """Stop the API server where it stands: connections are accepted by the kernel and nothing answers."""
        assert self._apiserver is not None
        self._apiserver.send_signal(signal.SIGSTOP)

    def thaw_apiserver(self) -> None:
        """Let the API server go on."""
        assert self._apiserver is not None
        self._apiserver.send_signal(signal.SIGCONT)

    def _start_etcd(self) -> None:
        client, peer = (f"http://{self._host}:{port}" for port in self._ports[:2])
        self._etcd = self._run(
            "etcd",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # no test cuts the power, and the disk is shared
        )

    def _try_apiserver(self) -> bool:
        pki = self.directory / "pki"
        self._apiserver = self._run(
            "kube-apiserver",
            f"--etcd-servers=http://{self._host}:{self._ports[0]}",
            f"--bind-address={self._host}",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._ports[2]}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            f"--service-account-key-file={pki / 'sa.key'}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
            "--enable-priority-and-fairness=false",
            "--profiling=false",
            # It would wait for service accounts that only a controller makes.
            "--disable-admission-plugins=ServiceAccount",
            *self._flags,
        )
        self.cluster.url = f"https://{self._host}:{self._ports[2]}"
        deadline = time.monotonic() + 2 * PATIENCE
        while self._apiserver.poll() is None and time.monotonic() < deadline:
            try:
                if self.cluster.ask("GET", "/readyz")[0] == 200:
                    return True
            except (OSError, ssl.SSLError):
                pass
            time.sleep(0.05)
        self.stop_apiserver()
        return False

    def _run(self, program: str, *flags: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{program.removeprefix('kube-')}.log").open("ab") as log:
            return subprocess.Popen(
                (build.SERVERS.directory() / program, *flags),
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip


@contextmanager
def run_servers(directory: Path, *flags: str) -> Generator[Servers]:
    """Run an API server of one's own, with these flags: for tests that stop it. About 3 s and 350 MB of memory."""
    servers = Servers(directory, flags)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()
        shutil.rmtree(directory / "etcd", ignore_errors=True)  # more than 100 MB


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait()


def _free_ports(host: str) -> tuple[int, int, int]:
    listeners = [socket.create_server((host, 0)) for _ in range(3)]
    etcd, peer, apiserver = (listener.getsockname()[1] for listener in listeners)
    for listener in listeners:
        listener.close()
    return etcd, peer, apiserver


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def _make_keys(directory: Path, host: str) -> None:
    """Make a certificate authority, the server's and an administrator's certificate, the service accounts' key."""
    pki = directory / "pki"
    pki.mkdir(parents=True)
    new_key = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    _openssl(pki, *new_key, "-x509", "-days", _DAYS, "-subj", "/CN=testbed", "-keyout", "ca.key", "-out", "ca.crt")
    names = f"DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:{host}"
    for name, subject, extension in (
        ("apiserver", "/CN=kube-apiserver", f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n"),
        ("admin", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth\n"),
    ):
        _openssl(pki, *new_key, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (pki / f"{name}.ext").write_text(extension)
        _openssl(
            pki, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", _DAYS, "-extfile", f"{name}.ext", "-out", f"{name}.crt",
        )  # fmt: skip
    _openssl(pki, "genrsa", "-out", "sa.key", "2048")


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(
        ("openssl", *arguments),
        cwd=directory, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True, check=True,
    )  # fmt: skip
