"""Which rights we lack: asked of the API server itself, for exactly what is used (case H13)."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from rotator.adapters.kubernetes.rules import Right, rule
from rotator.adapters.kubernetes.wire import Api, Reply

_PATH: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def missing(api: Api, rights: Iterable[Right], timeout: float) -> tuple[Right, ...] | Reply:
    """Return the rights that we lack, or the reply that did not say so. Everybody may ask that about himself."""
    lacking = []
    for right in rights:
        attributes = {
            "verb": right.verb, "group": right.group, "resource": right.resource, "namespace": right.namespace,
            "name": right.name,
        }  # fmt: skip
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        reply = api.call("POST", _PATH, body, timeout=timeout)
        if not reply.good:
            return reply
        if not (reply.body.get("status") or {}).get("allowed"):
            lacking.append(right)
    return tuple(lacking)


def cures(lacking: Iterable[Right]) -> Iterator[str]:
    """Yield what to add to which Role, a line for each kind of object."""

    def kind(right: Right) -> tuple[str, str, str, bool]:
        return right.namespace, right.group, right.resource, bool(right.name)

    for _, rights in groupby(sorted(lacking, key=kind), key=kind):
        alike = tuple(rights)
        yield f"add to the Role in namespace {alike[0].namespace}: {rule(alike)}"
