"""What the rest of the program gets to see of a configuration: frozen, compact, complete.

Equal parts are one object: a hundred thousand credentials with the same settings cost a name and a
reference each. So nothing here knows its credential's name; `{name}` is filled in by the methods.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rotator.config.source import NAME_MARK, Source
from rotator.core.model import ClientAuthentication, Grant, RotationPolicy

OutputFormat = Literal["raw", "header", "env", "json", "id_token"]


@dataclass(frozen=True, slots=True)
class ConfigError:
    """One thing that is wrong, or (as a warning) doubtful: where, what and the cure."""

    file: str
    line: int | None
    key: str
    """Dotted; empty when the whole file is meant."""
    text: str

    def __str__(self) -> str:
        """Return one line for people."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.key, self.text) if part)


@dataclass(frozen=True, slots=True)
class KubernetesConfig:
    """The store in Kubernetes. Durations in seconds."""

    namespace: str | None
    secret_prefix: str
    lease: str
    shards: int
    lease_duration: float
    timeout: float
    longest_request: float
    """The longest that a token request may take: a lease must last for that and for the save."""

    @property
    def save_allowance(self) -> float:
        """Return what a save may take: a write, and a look at what became of it."""
        return 2 * self.timeout

    @property
    def spare(self) -> float:
        """Return what a lease lasts longer than the longest request and its save: time to renew it in."""
        return self.lease_duration - self.longest_request - self.save_allowance


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Settings of the process. Durations in seconds."""

    kubernetes: KubernetesConfig | None
    """The store; None: files in the state directory."""
    state_directory: Path
    runtime_directory: Path
    spill_directory: Path | None
    control_socket: Path
    control_socket_group: str | None
    drain_timeout: float
    max_concurrent: int
    max_concurrent_per_server: int
    on_dead_grant: Literal["stay", "exit"]


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Where metrics and health are served."""

    enabled: bool
    host: str
    port: int
    status_page: bool
    optional: bool
    """A port in use is no reason not to start."""
    fleet_threshold: int
    """More credentials than this get distributions instead of a series each."""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """How the log is written."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["auto", "json", "text"]


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """One token endpoint and the way to it: what a connection pool can be shared by. Seconds."""

    token_url: str = field(repr=False)  # may hold a password
    client_authentication: ClientAuthentication
    ca_file: Path | None
    client_certificate: Path | None
    client_key: Path | None
    proxy: str | None = field(repr=False)  # may hold a password
    use_environment_proxies: bool
    connect_timeout: float
    read_timeout: float
    total_timeout: float


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """One file that holds the published token."""

    path: str
    """May hold `{name}`."""
    format: OutputFormat
    template: str | None
    mode: int
    owner: str | None
    group: str | None
    newline: bool
    symlink: Literal["follow", "refuse"]
    in_place: bool
    propagation: float
    """Seconds until every reader sees a change."""
    required: bool
    """Counts for readiness."""

    @property
    def title(self) -> str:
        """Return the output's stable name: the path as written."""
        return self.path

    def path_for(self, name: str) -> Path:
        """Return the path for the credential `name`."""
        return Path(self.path.replace(NAME_MARK, name))


@dataclass(frozen=True, slots=True)
class SecretConfig:
    """One Kubernetes Secret that holds the published token."""

    name: str
    """May hold `{name}`."""
    namespace: str | None
    """None: the pod's own, or the kubeconfig's."""
    data: tuple[tuple[str, str], ...]
    """Keys, and a format or template for each."""
    type: str | None
    labels: tuple[tuple[str, str], ...]
    annotations: tuple[tuple[str, str], ...]
    adopt: bool
    """Take over a Secret that somebody else made."""
    propagation: float
    """Seconds until every reader sees a change."""
    required: bool
    """Counts for readiness."""

    @property
    def title(self) -> str:
        """Return the output's stable name: where the Secret is, as written."""
        return f"secret/{self.namespace}/{self.name}" if self.namespace else f"secret/{self.name}"

    def name_for(self, name: str) -> str:
        """Return the Secret's name for the credential `name`."""
        return self.name.replace(NAME_MARK, name)


@dataclass(frozen=True, slots=True)
class CommandHook:
    """Run a command after publishing: argv, no shell."""

    command: tuple[str, ...]
    timeout: float

    def command_for(self, name: str) -> tuple[str, ...]:
        """Return the argument vector for the credential `name`."""
        return tuple(part.replace(NAME_MARK, name) for part in self.command)


@dataclass(frozen=True, slots=True)
class SignalHook:
    """Send a signal to the process whose id stands in a file."""

    signal: str
    """Without `SIG`, e.g. `HUP`."""
    pid_file: str
    timeout: float

    def pid_file_for(self, name: str) -> Path:
        """Return the pid file for the credential `name`."""
        return Path(self.pid_file.replace(NAME_MARK, name))


@dataclass(frozen=True, slots=True)
class WebhookHook:
    """Tell a web server, without the token. The URL is often itself a secret."""

    url: Source
    timeout: float


HookConfig = CommandHook | SignalHook | WebhookHook


@dataclass(frozen=True, slots=True)
class CredentialConfig:
    """Everything about one credential but its name."""

    endpoint: EndpointConfig
    grant: Grant
    client_id: str
    client_secret: Source | None
    scope: str
    extra: tuple[tuple[str, Source], ...]
    """Further form fields of each token request."""
    seed: Source | None
    """Holds a refresh token or a token answer."""
    policy: RotationPolicy
    outputs: tuple[OutputConfig | SecretConfig, ...]
    hooks: tuple[HookConfig, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, checked configuration."""

    daemon: DaemonConfig
    metrics: MetricsConfig
    log: LogConfig
    credentials: Mapping[str, CredentialConfig]
    files: tuple[Path, ...]
    """The files that were read, in order."""
    warnings: tuple[ConfigError, ...]

    @property
    def uses_a_cluster(self) -> bool:
        """Whether anything is kept in or published to Kubernetes."""
        return self.daemon.kubernetes is not None or any(
            isinstance(output, SecretConfig) for one in self.credentials.values() for output in one.outputs
        )
