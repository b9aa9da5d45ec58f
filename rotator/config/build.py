"""From validated tables to the frozen settings that the program uses."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from rotator.config.schema import (
    CredentialTable,
    DaemonTable,
    HookTable,
    KubernetesTable,
    LogTable,
    MetricsTable,
    OutputTable,
    RefreshTable,
)
from rotator.config.settings import (
    CommandHook,
    CredentialConfig,
    DaemonConfig,
    EndpointConfig,
    HookConfig,
    KubernetesConfig,
    LogConfig,
    MetricsConfig,
    OutputConfig,
    SecretConfig,
    SignalHook,
    WebhookHook,
)
from rotator.config.values import split_listen
from rotator.core.model import ClientAuthentication, Grant, RotationPolicy

T = TypeVar("T")
LEASE_SPARE_SECONDS = 30.0
"""What a lease lasts longer than it must, unless it is configured."""
SECRET_PROPAGATION_SECONDS = 180.0
"""Until a changed Secret has reached every pod that mounts it: usually 60 to 100 s (cases H16, H17)."""
SAVE_ALLOWANCE_SECONDS = 15.0
"""What a stop allows for the save after the longest request."""


class Pool:
    """Makes equal settings one object."""

    def __init__(self) -> None:
        self._known: dict[object, object] = {}

    def one(self, settings: T) -> T:
        """Return the first object that was equal to this one."""
        return self._known.setdefault(settings, settings)  # type: ignore[return-value]  # equal means same class


def daemon_config(
    table: DaemonTable, kubernetes: KubernetesTable, environ: Mapping[str, str], longest_request: float
) -> DaemonConfig:
    """Fill in what depends on the environment and on the credentials."""
    runtime = table.runtime_directory or _directory(environ, "RUNTIME_DIRECTORY", "/run/rotator")
    return DaemonConfig(
        kubernetes=_kubernetes(kubernetes, longest_request) if table.store == "kubernetes" else None,
        state_directory=table.state_directory or _directory(environ, "STATE_DIRECTORY", "/var/lib/rotator"),
        runtime_directory=runtime,
        spill_directory=table.spill_directory,
        control_socket=table.control_socket or runtime / "rotator.sock",
        control_socket_group=table.control_socket_group,
        drain_timeout=table.drain_timeout or longest_request + SAVE_ALLOWANCE_SECONDS,
        max_concurrent=table.max_concurrent,
        max_concurrent_per_server=table.max_concurrent_per_server,
        on_dead_grant=table.on_dead_grant,
    )


def _kubernetes(table: KubernetesTable, longest_request: float) -> KubernetesConfig:
    return KubernetesConfig(
        namespace=table.namespace,
        secret_prefix=table.secret_prefix,
        lease=table.lease,
        shards=table.shards,
        lease_duration=table.lease_duration or longest_request + 2 * table.timeout + LEASE_SPARE_SECONDS,
        timeout=table.timeout,
        longest_request=longest_request,
    )


def _directory(environ: Mapping[str, str], variable: str, default: str) -> Path:
    # systemd lists several directories with colons; the first one is ours.
    return Path(environ.get(variable, "").partition(":")[0] or default)


def metrics_config(table: MetricsTable) -> MetricsConfig:
    """Split the address."""
    host, port = split_listen(table.listen)
    return MetricsConfig(table.enabled, host, port, table.status_page, table.optional, table.fleet_threshold)


def log_config(table: LogTable) -> LogConfig:
    """Copy the log settings."""
    return LogConfig(table.level, table.format)


def credential_config(table: CredentialTable, pool: Pool) -> CredentialConfig:
    """Build one credential's settings, sharing equal parts; the table must have passed the checks."""
    outputs = tuple(pool.one(_output(output)) for output in table.outputs)
    return CredentialConfig(
        endpoint=pool.one(_endpoint(table)),
        grant=Grant(table.grant),
        client_id=table.client_id or "",
        client_secret=pool.one(table.client_secret),
        scope=table.scope or "",
        extra=pool.one(tuple(sorted(table.extra.items()))),
        seed=pool.one(table.seed),
        policy=pool.one(_policy(table, table.refresh, max((output.propagation for output in outputs), default=0.0))),
        outputs=pool.one(outputs),
        hooks=pool.one(tuple(_hook(hook) for hook in table.hooks)),
    )


def _endpoint(table: CredentialTable) -> EndpointConfig:
    return EndpointConfig(
        token_url=table.token_url or "",
        client_authentication=ClientAuthentication(table.client_authentication),
        ca_file=table.ca_file,
        client_certificate=table.client_certificate,
        client_key=table.client_key,
        proxy=table.proxy,
        use_environment_proxies=table.use_environment_proxies,
        connect_timeout=table.connect_timeout,
        read_timeout=table.read_timeout,
        total_timeout=table.total_timeout,
    )


def _policy(table: CredentialTable, refresh: RefreshTable, propagation: float) -> RotationPolicy:
    return RotationPolicy(
        lifetime_ratio=refresh.ratio,
        # A reader that looks late must still find a token that works (cases H16, H17).
        min_remaining=max(refresh.min_remaining, propagation),
        jitter=refresh.jitter,
        assumed_lifetime=refresh.assumed_lifetime,
        max_lifetime=refresh.max_lifetime,
        refresh_token_lifetime=table.refresh_token_lifetime,
        refresh_token_slides=table.refresh_token_slides,
        floor=refresh.floor,
        backoff_initial=refresh.backoff_initial,
        backoff_max=refresh.backoff_max,
        refused_retry=refresh.refused_retry,
        replay_window=refresh.replay_window,
        confirm_after=refresh.confirm_after,
        probe_interval=refresh.probe_interval,
        suspect_after=refresh.suspect_after,
        max_calls_per_hour=refresh.max_calls_per_hour,
        rotation_required=refresh.rotation == "required",
        keep_generations=refresh.keep_generations,
    )


def propagation_of(table: OutputTable) -> float:
    """Return how long a new token takes to reach the readers of an output, in seconds."""
    return max(table.propagation, SECRET_PROPAGATION_SECONDS if table.kubernetes_secret else 0.0)


def _output(table: OutputTable) -> OutputConfig | SecretConfig:
    secret = table.kubernetes_secret
    if secret is not None:
        return SecretConfig(
            name=secret.name,
            namespace=secret.namespace,
            data=tuple(sorted(secret.data.items())),
            type=secret.type,
            labels=tuple(sorted(secret.labels.items())),
            annotations=tuple(sorted(secret.annotations.items())),
            adopt=secret.adopt,
            propagation=propagation_of(table),
            required=table.required,
        )
    return OutputConfig(
        path=table.path or "",
        format=table.format or "raw",
        template=table.template,
        mode=table.mode,
        owner=table.owner,
        group=table.group,
        newline=table.newline,
        symlink=table.symlink,
        in_place=table.in_place,
        propagation=table.propagation,
        required=table.required,
    )


def _hook(table: HookTable) -> HookConfig:
    if table.command:
        return CommandHook(tuple(table.command), table.timeout)
    if table.webhook:
        return WebhookHook(table.webhook, table.timeout)
    return SignalHook(table.signal or "HUP", table.pid_file or "", table.timeout)
