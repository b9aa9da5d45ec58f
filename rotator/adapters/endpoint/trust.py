"""TLS contexts: whom we trust and who we are, read anew when a file changes.

A context is expensive (hundreds of certificates), so there is one for each set of files, never one
for each request (cases F7 to F11).
"""

import errno
import os
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rotator.core.model import Reason
from rotator.ports import Problem

Notify = Callable[[str, str], None]
"""Takes the name of an event and one line for people."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a TLS context is made of. Without `ca_file` the system's trust store counts."""

    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    """None: the key is in the certificate's file."""


_HASHED: Final = re.compile(r"[0-9a-f]{8}\.\d+")
"""The names under which OpenSSL finds certificates in a directory."""
_Stamp = tuple[tuple[int, int, int] | None, ...]


class Contexts:
    """The contexts of a process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[TlsFiles, tuple[_Stamp, ssl.SSLContext]] = {}
        self._had_bundle: set[TlsFiles] = set()
        self._refused: dict[TlsFiles, _Stamp] = {}
        # SSL_CERT_FILE and SSL_CERT_DIR move the system's store, as for every OpenSSL program. It is watched where
        # it would be, too: there it may appear.
        paths = ssl.get_default_verify_paths()
        self._bundle = os.environ.get(paths.openssl_cafile_env, paths.openssl_cafile)
        self._directories = os.environ.get(paths.openssl_capath_env, paths.openssl_capath).split(os.pathsep)

    def get(self, files: TlsFiles, notify: Notify) -> ssl.SSLContext | Problem:
        """Return the context for these files as they are now.

        If they have become unusable the earlier context stays (case F15) and `notify` hears of it
        once; a Problem only if there never was one.
        """
        stamp = self._stamp(files)
        known = self._known.get(files)
        if known is not None and stamp in (known[0], self._refused.get(files)):
            return known[1]
        with self._lock:
            known = self._known.get(files)
            if known is not None and stamp in (known[0], self._refused.get(files)):
                return known[1]
            made = _context(files)
            if isinstance(made, ssl.SSLContext) and files.ca_file is None:
                made = self._with_authorities(files, made)
            if isinstance(made, ssl.SSLContext):
                self._known[files] = (stamp, made)
                self._refused.pop(files, None)
            elif known is not None and made.reason is Reason.BAD_INPUT:
                self._refused[files] = stamp
        if isinstance(made, Problem):
            if known is None:
                return made
            notify("tls_files_refused", f"{made.text}; the earlier ones stay in use")
            return known[1]
        if known is not None:
            notify("tls_files_reloaded", f"TLS files have changed and are in use: {_names(files)}")
        return made

    def _stamp(self, files: TlsFiles) -> _Stamp:
        trust = (self._bundle, *self._directories) if files.ca_file is None else (files.ca_file,)
        return tuple(_file_stamp(path) for path in (*trust, files.client_certificate, files.client_key) if path)

    def _with_authorities(self, files: TlsFiles, made: ssl.SSLContext) -> ssl.SSLContext | Problem:
        """Refuse a context of the system's store that trusts nobody: OpenSSL takes an empty store, or none, for one.

        A bundle that held some and holds none now is broken, whatever else there is. It is counted at once, because
        certificates found in a directory are added with use.
        """
        if made.cert_store_stats()["x509"]:
            self._had_bundle.add(files)
            return made
        if files not in self._had_bundle and any(map(_holds_certificates, self._directories)):
            return made
        text = f"no certificate authority in {self._bundle}: install the system's, or set ca_file"
        return Problem(Reason.BAD_INPUT, f"the system's trust store cannot be used ({text})")


def _holds_certificates(directory: str) -> bool:
    try:
        return any(map(_HASHED.fullmatch, os.listdir(directory)))  # noqa: PTH208 - names are enough
    except OSError:
        return False


def _file_stamp(path: str | Path) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    # Contents change the first, permissions the second, a Kubernetes mount's swap the third.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _names(files: TlsFiles) -> str:
    named = [str(path) for path in (files.ca_file, files.client_certificate, files.client_key) if path]
    return ", ".join(named) or "the system's trust store"


def _context(files: TlsFiles) -> ssl.SSLContext | Problem:
    subject = f"ca_file {files.ca_file}" if files.ca_file else "the system's trust store"
    try:
        context = ssl.create_default_context(cafile=files.ca_file)
        if files.client_certificate:
            subject = f"client_certificate {files.client_certificate}"
            subject += f" with client_key {files.client_key}" if files.client_key else ""
            # Without the empty password OpenSSL would ask for an encrypted key's on the terminal.
            context.load_cert_chain(files.client_certificate, files.client_key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        what = error.reason if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
        plain = str(what or error).replace("_", " ").lower()
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return Problem(Reason.LOCAL_RESOURCES, f"{subject} cannot be opened ({plain}): raise LimitNOFILE")
        return Problem(
            Reason.BAD_INPUT,
            f"{subject} cannot be used ({plain}): give readable, unencrypted PEM files",
        )
    return context
