"""The file of one credential: its record, and a checksum that tells a torn or edited one (G12)."""

import hashlib
import json
from typing import Final

from rotator.core.record import NewerFormatError, RecordError, from_record, to_record
from rotator.core.state import CredentialState

_FORMAT: Final = 1
_canonical: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def encode(state: CredentialState) -> bytes:
    """Return the file's whole content."""
    body = _canonical(to_record(state))
    checksum = hashlib.sha256(body.encode()).hexdigest()
    return f'{{"format":{_FORMAT},"checksum":"{checksum}",\n"state":{body}}}\n'.encode()


def decode(raw: bytes) -> CredentialState:
    """Read what `encode` wrote; a file that was only formatted anew is still good.

    Raises RecordError, as `from_record` does.
    """
    if not raw.strip():
        raise RecordError("it is empty")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RecordError("it is no JSON, or only a part of it") from error
    if not isinstance(document, dict):
        raise RecordError("it is not a JSON object")
    version = document.get("format")
    if isinstance(version, int) and version > _FORMAT:
        raise NewerFormatError(f"its format is {version} and this rotator reads up to {_FORMAT}")
    if version != _FORMAT or "state" not in document:
        raise RecordError("it was not written by rotator")
    try:
        body = _canonical(document["state"])
    except (ValueError, RecursionError) as error:
        raise RecordError("it was not written by rotator") from error
    if hashlib.sha256(body.encode()).hexdigest() != document.get("checksum"):
        raise RecordError("its checksum is wrong")
    return from_record(document["state"])
