"""What is asked of an API server, and how its answers are told apart."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from rotator.core.model import Reason

JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
MANAGER: Final = "rotator"
"""The field manager of everything that rotator writes. It must never change: another name would conflict with what
earlier releases wrote (case H7)."""
OK: Final = 200
CREATED: Final = 201
BAD_REQUEST: Final = 400
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
CONFLICT: Final = 409
GONE: Final = 410
SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, or the lack of one: `status` is 0 then."""

    status: int
    body: Mapping[str, Any]
    text: str = ""
    """What went wrong, with the cure, on one line; empty if nothing did."""
    reason: Reason | None = None
    """The same as one word; None if nothing went wrong."""
    retry_after: float | None = None
    """Seconds to wait before the same is tried again, if the server said so or nothing else makes sense."""
    delivered: bool = True
    """Whether the request may have reached the server."""

    @property
    def good(self) -> bool:
        """Whether the request was carried out."""
        return self.status in (OK, CREATED)

    @property
    def unclear(self) -> bool:
        """Whether a write may have been carried out, now or later."""
        return self.delivered and (self.status == 0 or self.status >= SERVER_ERROR)


class Api(Protocol):
    """One API server, asked by several threads at once. Nothing is repeated that may be done; nothing is raised."""

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
        timeout: float,
    ) -> Reply:
        """Make one request; `timeout`: seconds for each read and write."""

    def watch(self, path: str, query: Mapping[str, str], *, timeout: float) -> Iterator[Mapping[str, Any]]:
        """Yield a watch's events until it ends. A watch that fails yields an event of type ERROR, with a Status."""

    def namespace(self) -> str:
        """Return the namespace that applies where none is named; empty if nothing says so."""


def metadata_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object's metadata; empty if it has none, or something odd in their place."""
    metadata = body.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def version_of(body: Mapping[str, Any]) -> str:
    """Return an object's resourceVersion."""
    return str(metadata_of(body).get("resourceVersion", ""))


def is_earlier(version: str, than: str) -> bool:
    """Tell whether one resourceVersion was surely before another: those of one object can be compared as numbers."""
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)


def annotations_of(body: Mapping[str, Any]) -> Mapping[str, str]:
    """Return an object's annotations."""
    annotations = metadata_of(body).get("annotations")
    return annotations if isinstance(annotations, Mapping) else {}


def secret_path(namespace: str, name: str = "") -> str:
    """Return the path of a Secret, or of all Secrets of a namespace."""
    return f"/api/v1/namespaces/{namespace}/secrets" + (f"/{name}" if name else "")
