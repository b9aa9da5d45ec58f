"""Which rights we lack: asked of the API server itself, for exactly what is used (case H13)."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from rotator.adapters.kubernetes.rules import Right, path_of, rule
from rotator.adapters.kubernetes.wire import Api, Reply
from rotator.ports import Notice, Observer

_PATH: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def missing(api: Api, rights: Iterable[Right], timeout: float) -> tuple[Right, ...] | Reply:
    """Return the rights that we lack, or the reply that did not say so. Everybody may ask that about himself.

    A right on all objects of a namespace covers each by name, so that is asked first: a fleet costs a few requests. To
    create what somebody has made beforehand is no right that is used (case H11).
    """
    alike: dict[Right, list[Right]] = defaultdict(list)
    for right in dict.fromkeys(rights):
        alike[right._replace(name="")].append(right)
    lacking: list[Right] = []
    for whole, named in alike.items():
        covered = _allowed(api, whole, timeout) if len(named) > 1 else False
        for right in () if covered is True else named:
            allowed = covered or _allowed(api, right, timeout)
            if isinstance(allowed, Reply):
                return allowed
            if not allowed and not (right.verb == "create" and api.call("GET", path_of(right), timeout=timeout).good):
                lacking.append(right)
    return tuple(lacking)


def _allowed(api: Api, right: Right, timeout: float) -> bool | Reply:
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
    return bool((reply.body.get("status") or {}).get("allowed")) if reply.good else reply


def warn(api: Api, rights: Iterable[Right], timeout: float, observer: Observer) -> None:
    """Log the rights that we lack, a line for each rule. Of an API server that does not answer others tell."""
    lacking = missing(api, rights, timeout)
    for cure in () if isinstance(lacking, Reply) else cures(lacking):
        observer.notify(Notice("right_missing", cure, level="warning"))


def cures(lacking: Iterable[Right]) -> Iterator[str]:
    """Yield what to add to which Role: a line for each rule, which grants what is lacking and nothing more."""
    verbs: dict[Right, list[Right]] = defaultdict(list)
    for right in lacking:
        verbs[right._replace(verb="")].append(right)
    rules: dict[tuple[object, ...], list[Right]] = defaultdict(list)
    for at, used in verbs.items():
        rules[at.namespace, at.group, at.resource, not at.name, *(right.verb for right in used)] += used
    for alike in rules.values():
        yield f"add to the Role in namespace {alike[0].namespace}: {rule(alike)}"
