"""The Secret of one credential's state: its name, and what is in it.

It is never the Secret that an application reads. Deliveries are left out: how far outputs are differs between
replicas.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from rotator.adapters.kubernetes.wire import annotations_of
from rotator.core.record import RecordError, from_record, to_record
from rotator.core.state import CredentialState

TYPE: Final = "token-rotator/state"
LABEL: Final = "token-rotator/store"
CREDENTIAL: Final = "token-rotator/credential"
GENERATION: Final = "token-rotator/generation"
WRITE: Final = "token-rotator/write"
"""A number that each write has of its own: it tells a write of ours, whose reply was lost, from another's."""
_KEY: Final = "state"
_DNS_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_NOT_DNS: Final = re.compile(r"[^a-z0-9-]+")


def secret_name(prefix: str, credential: str) -> str:
    """Return the Secret's name: the credential's, unless Kubernetes has no such names; then it is told by a hash."""
    if _DNS_NAME.fullmatch(credential) and ".." not in credential and "-." not in credential and ".-" not in credential:
        return prefix + credential
    plain = _NOT_DNS.sub("-", credential.lower()).strip("-")
    return f"{prefix}{plain or 'x'}-{hashlib.sha256(credential.encode()).hexdigest()[:8]}"


def vessel(prefix: str, credential: str) -> dict[str, Any]:
    """Return the empty Secret, for server-side apply: it makes the Secret and never touches what is in it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": secret_name(prefix, credential),
            "labels": {LABEL: label_of(prefix), "app.kubernetes.io/managed-by": "rotator"},
            "annotations": {CREDENTIAL: credential},
        },
        "type": TYPE,
    }


def label_of(prefix: str) -> str:
    """Return the label that all Secrets of one store have."""
    return prefix.strip("-.") or "rotator"


def patch(state: CredentialState, version: str, write: str) -> dict[str, Any]:
    """Return the merge patch that writes a state over the version it was made from, and over no other."""
    text = json.dumps(to_record(replace(state, deliveries={})), separators=(",", ":"))
    return {
        "metadata": {
            "resourceVersion": version,
            "annotations": {GENERATION: str(state.generation), WRITE: write},
        },
        "data": {_KEY: base64.b64encode(text.encode()).decode()},
    }


def read(body: Mapping[str, Any], credential: str | None = None) -> CredentialState | None:
    """Return the state in a Secret; None if it is still empty.

    Raises RecordError, as `from_record` does, if it is not this credential's or is damaged. One that once held tokens,
    as its generation says, and holds none is damaged: as empty it would be filled from a seed, which is spent.
    """
    if body.get("type") != TYPE:
        raise RecordError(f"its type is {body.get('type')}, so rotator did not make it")
    if credential is not None and credential_of(body) != credential:
        raise RecordError(f"it is that of another credential ({credential_of(body)})")
    generation = annotations_of(body).get(GENERATION, "0")
    held = "" if generation == "0" else f"its tokens are gone, though it held generation {generation}"
    data = (body.get("data") or {}).get(_KEY)
    if data is None:
        if held:
            raise RecordError(held)
        return None
    try:
        document = json.loads(base64.b64decode(data, validate=True))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise RecordError("it is no JSON, or only a part of it") from error
    state = from_record(document)
    if state.tokens is None and held:
        raise RecordError(held)
    return state


def credential_of(body: Mapping[str, Any]) -> str:
    """Return the name of the credential that a Secret is of."""
    return annotations_of(body).get(CREDENTIAL, "")
