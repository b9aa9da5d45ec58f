"""From configuration to working parts: which adapter serves which port. Nothing here decides anything.

Parts that are equal are shared: 100,000 credentials of one server have one endpoint and one policy.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rotator import VERSION
from rotator.adapters import atomic
from rotator.adapters.clock import BootClock
from rotator.adapters.endpoint import EndpointSettings, HttpTokenEndpoint, Network
from rotator.adapters.file_sink import FileSink
from rotator.config import Config, CredentialConfig, SecretConfig, Source
from rotator.core.grant import password_request
from rotator.core.login import parse_pair
from rotator.core.model import Fingerprinter, Grant, Granted, Oddity, Reason
from rotator.core.schedule import SinkRef
from rotator.core.state import from_answer, from_refresh_token
from rotator.credential import Credential, Plan
from rotator.ports import Notice, Observer, OpenStore, Peers, Problem
from rotator.rotate import Rotator
from rotator.sinks import InputsUnusable, Sinks, reader

__all__ = ["Assembly", "InputsUnusable"]

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


class Assembly:
    """The parts of one process: one store, one clock, one rotator, and the endpoints in use."""

    def __init__(
        self,
        store: OpenStore,
        observer: Observer,
        environ: Mapping[str, str] | None = None,
        *,
        clock: BootClock | None = None,
        peers: Peers | None = None,
        make_rotator: Callable[..., Rotator] = Rotator,
    ) -> None:
        """Put the parts together around an open store. With `peers` others use it too: `make_rotator` minds them."""
        self.environ = os.environ if environ is None else environ
        self.store = store
        self.observer = observer
        self.clock = clock or BootClock()
        self.peers = peers
        self.stopping = threading.Event()
        self.fingerprint = Fingerprinter(store.fingerprint_key())
        self.rotator = make_rotator(store, self.clock, observer, self.fingerprint, self.stopping)
        self._network = Network()
        self._sinks = Sinks(self.environ, self.clock, self.stopping, self._notice)
        self._endpoints: dict[object, HttpTokenEndpoint] = {}
        self._refs: dict[tuple[SinkRef, ...], tuple[SinkRef, ...]] = {}

    # -- plans -----------------------------------------------------------------------------------

    def plans(self, config: Config) -> dict[str, Plan]:
        """Make every credential's plan. Raises `InputsUnusable`, before anything has changed."""
        return {name: self.plan(name, credential) for name, credential in config.credentials.items()}

    def plan(self, name: str, config: CredentialConfig) -> Plan:
        """Make one credential's plan."""
        endpoint = config.endpoint
        outputs, hooks = self._sinks.outputs(name, config), self._sinks.hooks(name, config)
        # A Secret is one place for all replicas: its owner alone writes it.
        secret = [isinstance(output, SecretConfig) for output in config.outputs]
        refs = (
            *(SinkRef(sink.name, shared=shared) for sink, shared in zip(outputs, secret, strict=True)),
            *(SinkRef(sink.name, is_hook=True) for sink in hooks),
        )
        return Plan(
            policy=config.policy,
            grant=config.grant,
            scope=config.scope,
            extra=self._extra_reader(name, config.extra),
            endpoint=self._endpoint(name, config),
            server=_server(endpoint.token_url),
            sinks=(*outputs, *hooks),
            sink_refs=self._refs.setdefault(refs, refs),
            seed=reader(self.environ, config.seed.named(name)) if config.seed else None,
            stamp=self._stamp(name, config),
            longest_request=endpoint.total_timeout,
            required=tuple(output.title for output in config.outputs if output.required),
        )

    def sweep_temporaries(self, plans: Iterable[Plan]) -> None:
        """Remove what a killed process left beside the outputs: it may hold a token (case G6)."""
        for directory in {sink.directory for plan in plans for sink in plan.sinks if isinstance(sink, FileSink)}:
            with contextlib.suppress(OSError):  # publishing will say what is wrong with it
                atomic.sweep_temporaries(directory)

    def _extra_reader(
        self, name: str, extra: tuple[tuple[str, Source], ...]
    ) -> Callable[[], tuple[tuple[str, str], ...] | Problem]:
        if not extra:
            return _no_extra
        readers = tuple((key, reader(self.environ, source.named(name))) for key, source in extra)

        def read() -> tuple[tuple[str, str], ...] | Problem:
            fields = []
            for key, read_one in readers:
                value = read_one()
                if isinstance(value, Problem):
                    return value
                fields.append((key, value))
            return tuple(fields)

        return read

    def _endpoint(self, name: str, config: CredentialConfig) -> HttpTokenEndpoint:
        secret = config.client_secret.named(name) if config.client_secret else None
        key = (config.endpoint, config.client_id, secret)
        if key not in self._endpoints:
            at = config.endpoint
            settings = EndpointSettings(
                token_url=at.token_url,
                client_id=config.client_id,
                client_secret=reader(self.environ, secret) if secret else None,
                authentication=at.client_authentication,
                ca_file=at.ca_file,
                client_certificate=at.client_certificate,
                client_key=at.client_key,
                proxy=at.proxy,
                use_environment_proxies=at.use_environment_proxies,
                connect_timeout=at.connect_timeout,
                read_timeout=at.read_timeout,
                total_timeout=at.total_timeout,
                user_agent=f"rotator/{VERSION}",
            )
            try:
                made = HttpTokenEndpoint(settings, time.time, self.stopping, self._notice, self._network)
            except ValueError as error:
                raise InputsUnusable(f"credentials.{name}: {error}") from None
            self._endpoints[key] = made
        return self._endpoints[key]

    def _notice(self, event: str, text: str) -> None:
        self.observer.notify(Notice(event, text, level="warning"))

    def _stamp(self, name: str, config: CredentialConfig) -> Callable[[], object] | None:
        sources = (config.client_secret, config.seed, *(source for _, source in config.extra))
        watched = [source.named(name) for source in sources if source is not None and source.is_file]
        at = config.endpoint
        paths = [path for path in (at.ca_file, at.client_certificate, at.client_key) if path is not None]
        if not watched and not paths:
            return None
        environ = self.environ
        return lambda: (*(source.stamp(environ) for source in watched), *(_path_stamp(path) for path in paths))

    # -- what is done on request -------------------------------------------------------------------

    def login(self, credential: Credential, username: str, password: str) -> Problem | None:
        """Get the first pair by the password grant (RFC 6749 section 4.3) and take it over.

        The two secrets are used once and kept nowhere. Blocks for as long as the token call takes.
        """
        plan = credential.plan
        extra = plan.extra()
        if isinstance(extra, Problem):
            return extra
        if (closed := self.rotator.intake.closed(credential)) is not None:
            return closed
        asked_at = self.clock.now()
        answer = plan.endpoint.request(password_request(username, password, plan.scope, extra), (password, username))
        if isinstance(answer, Granted) and not answer.refresh_token and plan.grant is Grant.REFRESH_TOKEN:
            # What is stored may be good; taken over, this would end it with its access token.
            text = (
                "the server gave an access token without a refresh token, so nothing was taken over; ask for one (for"
                " many servers: scope offline_access), or have the client allowed to refresh"
            )
            return Problem(Reason.OTHER_REFUSAL, text)
        if isinstance(answer, Granted):
            return self._adopt(credential, answer, asked_at)
        cure = {
            Reason.INVALID_GRANT: "check user name and password",
            Reason.INVALID_CLIENT: "check client_id and client_secret",
            Reason.UNAUTHORIZED_CLIENT: "check client_secret, and that the client may use the password grant",
        }.get(answer.reason, "try again; the log tells more")
        return Problem(answer.reason, f"login refused: {answer.text or answer.reason}; {cure}")

    def adopt_pair(self, credential: Credential, pair: str) -> Problem | None:
        """Take over a token answer or a bare refresh token that somebody hands in as text."""
        granted = parse_pair(pair)
        if isinstance(granted, str):
            return Problem(Reason.BAD_INPUT, f"what was handed in is unusable: {granted}")
        now = self.clock.now()  # nobody says how old the answer is
        return self._adopt(credential, replace(granted, served_at=now), now)

    def _adopt(self, credential: Credential, granted: Granted, asked_at: float) -> Problem | None:
        plan = credential.plan
        oddities: tuple[Oddity, ...] = ()
        if granted.access_token:
            tokens, oddities = from_answer(granted, plan.policy, plan.scope, asked_at)
            if granted.form_encoded:
                oddities = (*oddities, Oddity.FORM_ENCODED)
        else:
            tokens = from_refresh_token(granted.refresh_token or "", plan.policy, asked_at)
        return self.rotator.intake.adopt(credential, tokens, oddities=oddities)

    def tell_store_warnings(self) -> None:
        """Tell what the store has found odd since this was last called, each once; may be called from any thread."""
        with contextlib.suppress(IndexError):  # a look before would not do: patrols may run side by side
            while True:
                self._notice("store_warning", self.store.warnings.pop(0))

    # -- end ---------------------------------------------------------------------------------------

    def abort_all(self) -> None:
        """End every token request at once: the drain is over."""
        self._network.abort_all()

    def close(self) -> None:
        """Close the connections first, the store and its lock last (invariant 13)."""
        self._network.close()
        self._sinks.close()
        if self.peers is not None:
            self.peers.close()
        self.tell_store_warnings()
        self.store.close()


def _no_extra() -> tuple[tuple[str, str], ...]:
    return ()


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)}"


def _path_stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_size)
