"""Which right a request needs, and the Role rule that grants it, as a line to paste into a manifest."""

import json
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

_PATH: Final = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v\w+/namespaces/(?P<namespace>[^/]+)/(?P<resource>\w+)(?:/(?P<name>.+))?"
)
_REFUSED: Final = re.compile(r"cannot (?P<verb>\w+) resource")


class Right(NamedTuple):
    """One verb on one kind of object in one namespace; `name` empty: on all of them."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str


def right_of(path: str, message: str) -> Right | None:
    """Return the right that a refused request lacked; None if it was not for want of a right that it was refused.

    `message` is the API server's. A quota and an admission webhook say 403, too.
    """
    at, refused = _PATH.fullmatch(path), _REFUSED.search(message)
    if at is None or refused is None:
        return None
    return Right(refused["verb"], at["group"] or "", at["resource"], at["namespace"], at["name"] or "")


def path_of(right: Right) -> str:
    """Return the path of the objects that a right is about."""
    root = f"/apis/{right.group}" if right.group else "/api"
    return f"{root}/v1/namespaces/{right.namespace}/{right.resource}" + (f"/{right.name}" if right.name else "")


def rule(rights: Iterable[Right]) -> str:
    """Return the rule that grants these rights, which differ in nothing but verb and name, as one line of YAML.

    To create one named object is a right that can be granted by name, because rotator applies it (a PATCH) rather than
    posting it: for a POST the API server does not know the name when it decides (case H11).
    """
    rights = tuple(rights)
    names = sorted({right.name for right in rights if right.name})
    parts = {
        "apiGroups": [rights[0].group],
        "resources": [rights[0].resource],
        **({"resourceNames": names} if names else {}),
        "verbs": list(dict.fromkeys(right.verb for right in rights)),
    }
    return "- {" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in parts.items()) + "}"
