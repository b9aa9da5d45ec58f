"""Prints a configuration as it is in effect, without what is secret."""

import json
from collections.abc import Iterator
from typing import Final

from rotator.config.durations import format_duration
from rotator.config.settings import (
    CommandHook,
    Config,
    CredentialConfig,
    HookConfig,
    OutputConfig,
    SecretConfig,
    SignalHook,
)
from rotator.config.source import Source, SourceKind
from rotator.config.values import split_url

HIDDEN: Final = "(hidden)"


def show(config: Config) -> str:
    """Return TOML with all defaults filled in. Values written in place are hidden where they may be secret.

    Of credentials with equal settings the first is spelt out.
    """
    daemon, metrics, log = config.daemon, config.metrics, config.log
    kubernetes = daemon.kubernetes
    lines = [f"# from {', '.join(str(file) for file in config.files)}"]
    lines += _table(
        "daemon",
        store="files" if kubernetes is None else "kubernetes",
        state_directory=str(daemon.state_directory) if kubernetes is None else None,
        runtime_directory=str(daemon.runtime_directory),
        spill_directory=_optional(daemon.spill_directory),
        control_socket=str(daemon.control_socket),
        control_socket_group=daemon.control_socket_group,
        drain_timeout=format_duration(daemon.drain_timeout),
        max_concurrent=daemon.max_concurrent,
        max_concurrent_per_server=daemon.max_concurrent_per_server,
        on_dead_grant=daemon.on_dead_grant,
    )
    if kubernetes is not None:
        lines += _table(
            "kubernetes",
            namespace=kubernetes.namespace,
            secret_prefix=kubernetes.secret_prefix,
            lease=kubernetes.lease,
            shards=kubernetes.shards,
            lease_duration=format_duration(kubernetes.lease_duration),
            timeout=format_duration(kubernetes.timeout),
        )
    host = f"[{metrics.host}]" if ":" in metrics.host else metrics.host
    lines += _table(
        "metrics",
        enabled=metrics.enabled,
        listen=f"{host}:{metrics.port}",
        status_page=metrics.status_page,
        optional=metrics.optional,
        fleet_threshold=metrics.fleet_threshold,
    )
    lines += _table("log", level=log.level, format=log.format)
    first: dict[int, str] = {}
    for name, credential in config.credentials.items():
        title = f"credentials.{_key(name)}"
        same = first.setdefault(id(credential), name)
        lines += ["", f"# [{title}]: like {same}"] if same != name else _credential(title, credential)
    return "\n".join(lines) + "\n"


def _credential(title: str, credential: CredentialConfig) -> Iterator[str]:
    endpoint, policy = credential.endpoint, credential.policy
    yield from _table(
        title,
        token_url=_without_password(endpoint.token_url),
        grant=credential.grant.value,
        client_id=credential.client_id,
        client_secret=_source(credential.client_secret),
        client_authentication=endpoint.client_authentication.value,
        scope=credential.scope or None,
        extra={key: _source(source) for key, source in credential.extra} or None,
        ca_file=_optional(endpoint.ca_file),
        client_certificate=_optional(endpoint.client_certificate),
        client_key=_optional(endpoint.client_key),
        proxy=endpoint.proxy and _without_password(endpoint.proxy),
        use_environment_proxies=endpoint.use_environment_proxies,
        connect_timeout=format_duration(endpoint.connect_timeout),
        read_timeout=format_duration(endpoint.read_timeout),
        total_timeout=format_duration(endpoint.total_timeout),
        seed=_source(credential.seed),
        refresh_token_lifetime=policy.refresh_token_lifetime and format_duration(policy.refresh_token_lifetime),
        refresh_token_slides=policy.refresh_token_slides,
    )
    yield from _table(
        f"{title}.refresh",
        ratio=policy.lifetime_ratio,
        min_remaining=format_duration(policy.min_remaining),
        jitter=policy.jitter,
        floor=format_duration(policy.floor),
        assumed_lifetime=format_duration(policy.assumed_lifetime),
        max_lifetime=format_duration(policy.max_lifetime),
        backoff_initial=format_duration(policy.backoff_initial),
        backoff_max=format_duration(policy.backoff_max),
        refused_retry=format_duration(policy.refused_retry),
        replay_window=format_duration(policy.replay_window),
        confirm_after=format_duration(policy.confirm_after),
        probe_interval=format_duration(policy.probe_interval),
        suspect_after=policy.suspect_after,
        max_calls_per_hour=policy.max_calls_per_hour,
        rotation="required" if policy.rotation_required else "optional",
        keep_generations=policy.keep_generations,
    )
    for output in credential.outputs:
        yield from _output(title, output)
    for hook in credential.hooks:
        yield from _hook(title, hook)


def _output(title: str, output: OutputConfig | SecretConfig) -> Iterator[str]:
    if isinstance(output, SecretConfig):
        secret = {
            "name": output.name,
            "namespace": output.namespace,
            "data": dict(output.data),
            "type": output.type,
            "labels": dict(output.labels) or None,
            "annotations": dict(output.annotations) or None,
            "adopt": output.adopt,
        }
        return _table(
            f"{title}.outputs",
            repeated=True,
            kubernetes_secret={key: value for key, value in secret.items() if value is not None},
            propagation=format_duration(output.propagation),
            required=output.required,
        )
    return _table(
        f"{title}.outputs",
        repeated=True,
        path=output.path,
        format=None if output.template else output.format,
        template=output.template,
        mode=f"{output.mode:04o}",
        owner=output.owner,
        group=output.group,
        newline=output.newline,
        symlink=output.symlink,
        in_place=output.in_place,
        propagation=format_duration(output.propagation),
        required=output.required,
    )


def _hook(title: str, hook: HookConfig) -> Iterator[str]:
    timeout = format_duration(hook.timeout)
    title = f"{title}.hooks"
    if isinstance(hook, CommandHook):
        return _table(title, repeated=True, command=list(hook.command), timeout=timeout)
    if isinstance(hook, SignalHook):
        return _table(title, repeated=True, signal=hook.signal, pid_file=hook.pid_file, timeout=timeout)
    return _table(title, repeated=True, webhook=_source(hook.url), timeout=timeout)


def _optional(value: object) -> str | None:
    return None if value is None else str(value)


def _without_password(url: str) -> str:
    parts = split_url(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{HIDDEN}@{host}").geturl() if "@" in parts.netloc else url


def _source(source: Source | None) -> object:
    if source is None:
        return None
    if source.kind is SourceKind.IN_PLACE:
        return HIDDEN
    if isinstance(source.value, str):
        return {source.kind.value: source.value}
    # A command's arguments may hold something secret.
    return {source.kind.value: [source.value[0], *(HIDDEN for _ in source.value[1:])]}


def _table(title: str, *, repeated: bool = False, **values: object) -> Iterator[str]:
    yield ""
    yield f"[[{title}]]" if repeated else f"[{title}]"
    for key, value in values.items():
        if value is not None:
            yield f"{key} = {_toml(value)}"


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else json.dumps(key)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    # JSON's texts, numbers, true and false are TOML's; only DEL must be escaped as well.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
