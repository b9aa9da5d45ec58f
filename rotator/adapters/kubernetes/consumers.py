"""Who reads a published Secret in a way that never shows a new token (case H19), as far as we may see."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rotator.adapters.kubernetes.wire import Api

_PAGE: Final = "500"
_CONTAINERS: Final = ("initContainers", "containers")


def stale_readers(api: Api, namespace: str, secrets: frozenset[str], timeout: float) -> Iterator[str]:
    """Yield a line for each container that mounts one of the Secrets with subPath, or takes it from its environment.

    Of Pods that are alike only one is told. Nothing without the right to list Pods, which the daemon's account has not;
    a person's own account often has.
    """
    told: set[tuple[str, str]] = set()
    query = {"limit": _PAGE}
    while True:
        reply = api.call("GET", f"/api/v1/namespaces/{namespace}/pods", query=query, timeout=timeout)
        for pod in reply.body.get("items") or () if reply.good else ():
            metadata = pod.get("metadata") or {}
            owners = metadata.get("ownerReferences") or [metadata]
            for text in _of(pod.get("spec") or {}, secrets):
                if (owners[0].get("uid"), text) not in told:
                    told.add((owners[0].get("uid"), text))
                    yield f"Pod {namespace}/{metadata.get('name')}: {text}"
        following = (reply.body.get("metadata") or {}).get("continue") if reply.good else None
        if not following:
            return
        query["continue"] = following


def _of(spec: Mapping[str, Any], secrets: frozenset[str]) -> Iterator[str]:
    volumes = {volume["name"]: secrets & set(_sources(volume)) for volume in spec.get("volumes") or ()}
    for container in (one for kind in _CONTAINERS for one in spec.get(kind) or ()):
        who = f"container {container['name']}"
        for mount in container.get("volumeMounts") or ():
            for name in volumes.get(mount["name"], ()) if mount.get("subPath") or mount.get("subPathExpr") else ():
                yield f"{who} mounts Secret {name} with subPath, which never shows a new token: mount the whole volume"
        taken = [entry.get("secretRef") for entry in container.get("envFrom") or ()]
        taken += [(entry.get("valueFrom") or {}).get("secretKeyRef") for entry in container.get("env") or ()]
        for name in dict.fromkeys(reference["name"] for reference in taken if reference):
            if name in secrets:
                yield f"{who} has Secret {name} in its environment, which never changes: mount it as a volume"


def _sources(volume: Mapping[str, Any]) -> Iterator[str]:
    if secret := volume.get("secret"):
        yield secret["secretName"]
    for source in (volume.get("projected") or {}).get("sources") or ():
        if secret := source.get("secret"):
            yield secret["name"]
