"""What a test does to a cluster: ask as the administrator, make namespaces, accounts, rights and tokens."""

import base64
import http.client
import itertools
import json
import os
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from tests.process.rig import PATIENCE

_ISSUER: Final = "https://kubernetes.default.svc"
_numbers: Final = itertools.count(1)
Rule = dict[str, list[str]]
"""A rule of a Role: `apiGroups`, `resources`, `verbs`, `resourceNames`."""


class Cluster:
    """One API server as its administrator sees it."""

    def __init__(self, directory: Path, url: str = "") -> None:
        """Take the directory that holds the keys (`pki`), and where the server listens."""
        self.directory = directory
        self.url = url

    @property
    def ca_file(self) -> Path:
        """Return the certificate authority to trust."""
        return self.directory / "pki" / "ca.crt"

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        token: str | None = None,
        **query: str,
    ) -> tuple[int, Any]:
        """Make one request, with the administrator's certificate or a bearer token; return status and JSON (or text).

        Raises OSError if the server is away.
        """
        context = ssl.create_default_context(cafile=self.ca_file)
        headers = {"Content-Type": content_type}
        if token is None:
            context.load_cert_chain(self.ca_file.with_name("admin.crt"), self.ca_file.with_name("admin.key"))
        else:
            headers["Authorization"] = f"Bearer {token}"
        address = urlsplit(self.url)
        connection = http.client.HTTPSConnection(
            address.hostname or "", address.port, timeout=PATIENCE, context=context
        )
        try:
            target = f"{path}?{urlencode(query)}" if query else path
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def good(self, method: str, path: str, body: object = None, **options: str) -> Any:
        """Make one request that must work; return its JSON."""
        status, answer = self.ask(method, path, body, **options)
        assert 200 <= status < 300, (method, path, status, answer)
        return answer

    def namespace(self) -> "Namespace":
        """Make a namespace that nobody else uses. It is never deleted: without controllers that has no end."""
        try:
            return self._new_namespace()
        except OSError:  # a connection that broke under load, seen once; no test is about this one
            return self._new_namespace()

    def _new_namespace(self) -> "Namespace":
        name = f"test-{os.getpid()}-{next(_numbers)}"
        self.good("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return Namespace(self, name)


@dataclass(frozen=True)
class Namespace:
    """One namespace."""

    cluster: Cluster
    name: str

    def path(self, resource: str, name: str = "") -> str:
        """Return the path of a resource, e.g. `path("secrets", "web")` or `path("leases")`."""
        groups = {
            "leases": "apis/coordination.k8s.io/v1",
            "roles": "apis/rbac.authorization.k8s.io/v1",
            "rolebindings": "apis/rbac.authorization.k8s.io/v1",
        }
        whole = f"/{groups.get(resource, 'api/v1')}/namespaces/{self.name}/{resource}"
        return f"{whole}/{name}" if name else whole

    def get(self, resource: str, name: str) -> Any:
        """Return one object as the administrator sees it, or None if it is not there."""
        status, answer = self.cluster.ask("GET", self.path(resource, name))
        assert status in (200, 404), answer
        return answer if status == 200 else None

    def secret(self, name: str) -> dict[str, str] | None:
        """Return the data of a Secret, decoded; None if it is not there."""
        found = self.get("secrets", name)
        if found is None:
            return None
        return {key: base64.b64decode(value).decode() for key, value in found.get("data", {}).items()}

    def make_secret(self, name: str, data: dict[str, str], **more: Any) -> Any:
        """Make a Secret as the administrator; `more`: type, immutable, metadata."""
        metadata = {"name": name, **more.pop("metadata", {})}
        return self.cluster.good(
            "POST", self.path("secrets"), {"metadata": metadata, "stringData": data, **more}, fieldManager="somebody"
        )

    def edit(self, resource: str, name: str, patch: object, manager: str = "somebody") -> Any:
        """Change an object as some other program would (merge patch)."""
        return self.cluster.good(
            "PATCH",
            self.path(resource, name),
            patch,
            content_type="application/merge-patch+json",
            fieldManager=manager,
        )

    def delete(self, resource: str, name: str) -> None:
        """Delete an object."""
        self.cluster.good("DELETE", self.path(resource, name))

    def account(self, *rules: Rule, name: str = "rotator") -> "Account":
        """Make a service account with a Role of these rules; return once they are in force."""
        made = self.cluster.good("POST", self.path("serviceaccounts"), {"metadata": {"name": name}})
        account = Account(self, name, made["metadata"]["uid"])
        role = {"metadata": {"name": name}, "rules": list(rules)}
        self.cluster.good("POST", self.path("roles"), role)
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.name}],
        }
        self.cluster.good("POST", self.path("rolebindings"), binding)
        account.wait_for(rules)
        return account


@dataclass(frozen=True)
class Account:
    """A service account."""

    namespace: Namespace
    name: str
    uid: str

    def grant(self, *rules: Rule) -> None:
        """Replace the rules of its Role; return once the new ones are in force."""
        role = {"metadata": {"name": self.name}, "rules": list(rules)}
        self.namespace.cluster.good("PUT", self.namespace.path("roles", self.name), role)
        self.wait_for(rules)

    def wait_for(self, rules: tuple[Rule, ...], *, allowed: bool = True) -> None:
        """Wait until the API server, which caches Roles, grants these rules (or no longer does)."""
        deadline = time.monotonic() + PATIENCE
        for rule in rules:
            for group, resource, verb, name in itertools.product(
                rule["apiGroups"], rule["resources"], rule["verbs"], rule.get("resourceNames", [""])
            ):
                while self._may(group, resource, verb, name) != allowed:
                    assert time.monotonic() < deadline, rule
                    time.sleep(0.01)

    def _may(self, group: str, resource: str, verb: str, name: str) -> bool:
        attributes = {"namespace": self.namespace.name, "group": group, "resource": resource, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{self.namespace.name}:{self.name}",
                "resourceAttributes": {**attributes, "name": name},
            },
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return bool(self.namespace.cluster.good("POST", path, review)["status"]["allowed"])

    def token(self, seconds: float = 3600.0) -> str:
        """Sign a token that ends in so many seconds (the API itself gives none under 600). Negative: it is over.

        The API server still takes a token for about a minute past its end.
        """
        now = int(time.time())
        claims = {
            "iss": _ISSUER,
            "aud": [_ISSUER],
            "sub": f"system:serviceaccount:{self.namespace.name}:{self.name}",
            "iat": now - 3600,
            "nbf": now - 3600,
            "exp": int(now + seconds),
            "kubernetes.io": {
                "namespace": self.namespace.name,
                "serviceaccount": {"name": self.name, "uid": self.uid},
            },
        }
        text = b".".join(_base64url(json.dumps(part).encode()) for part in ({"alg": "RS256"}, claims))
        key = self.namespace.cluster.directory / "pki" / "sa.key"
        signed = subprocess.run(
            ("openssl", "dgst", "-sha256", "-sign", key), input=text, capture_output=True, check=True
        )
        return f"{text.decode()}.{_base64url(signed.stdout).decode()}"

    def mount(self, directory: Path, token: str | None = None) -> Path:
        """Put token, CA and namespace where a pod would find them, or replace them, as a kubelet does: by a link."""
        directory.mkdir(exist_ok=True)
        version = directory / f"..{next(_numbers)}"
        version.mkdir()
        (version / "token").write_text(self.token() if token is None else token)
        (version / "ca.crt").write_bytes(self.namespace.cluster.ca_file.read_bytes())
        (version / "namespace").write_text(self.namespace.name)
        new = directory / "..data_tmp"
        new.symlink_to(version.name)
        new.replace(directory / "..data")
        for name in ("token", "ca.crt", "namespace"):
            if not (directory / name).is_symlink():
                (directory / name).symlink_to(f"..data/{name}")
        return directory

    def kubeconfig(self, path: Path, token: str | None = None) -> Path:
        """Write a kubeconfig for this account (JSON is YAML)."""
        cluster = self.namespace.cluster
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "testbed", "cluster": {"server": cluster.url, "certificate-authority": str(cluster.ca_file)}}
            ],
            "users": [{"name": "me", "user": {"token": self.token() if token is None else token}}],
            "contexts": [
                {"name": "here", "context": {"cluster": "testbed", "user": "me", "namespace": self.namespace.name}}
            ],
            "current-context": "here",
        }
        path.write_text(json.dumps(config))
        return path


def _base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
