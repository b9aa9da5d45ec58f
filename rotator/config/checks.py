"""Rules that one key alone cannot break. Each finding names the key that the cure is about."""

import ipaddress
import os.path
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rotator.config.build import propagation_of
from rotator.config.durations import format_duration
from rotator.config.files import Place
from rotator.config.schema import CredentialTable, DaemonTable, HookTable, OutputTable
from rotator.config.settings import Config, KubernetesConfig, OutputConfig, SecretConfig
from rotator.config.source import NAME_MARK, Source, SourceKind
from rotator.config.values import split_url

SHORTEST_READ_TIMEOUT: Final = 60.0
_LEAST_SPARE: Final = 1.0
_SECRET_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DATA_KEY: Final = re.compile(r"(?!\.\.?\Z|\.\.)[-._a-zA-Z0-9]{1,253}")
_FOR_FILES: Final = ("format", "template", "mode", "owner", "group", "newline", "symlink", "in_place")
_OWN_FIELDS: Final = frozenset(("grant_type", "refresh_token", "client_id", "client_secret", "scope"))


_MARGIN: Final = {"kubernetes_secret": "takes 3m to reach every pod,"}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong (`fatal`) or doubtful at a place."""

    place: Place
    text: str
    fatal: bool = True


def check_credential(table: CredentialTable, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check one credential with its defaults; places are relative to its table."""
    if table.token_url is None:
        yield Finding(("token_url",), 'is missing: add token_url = "https://…" here or in [defaults]')
    if table.client_id is None:
        yield Finding(("client_id",), 'is missing: add client_id = "…" here or in [defaults]')
    yield from _client(table)
    yield from _urls(table)
    yield from _timing(table)
    yield from _secrets(table, environ)
    for index, output in enumerate(table.outputs):
        yield from _output(("outputs", index), output)
    for index, hook in enumerate(table.hooks):
        yield from _hook(("hooks", index), hook)


def _client(table: CredentialTable) -> Iterator[Finding]:
    if table.client_authentication == "none" and table.client_secret is not None:
        yield Finding(("client_authentication",), 'is "none", but there is a client_secret: remove one of the two')
    if table.client_authentication != "none" and table.client_secret is None:
        text = 'is missing: add client_secret = { file = "…" }, or client_authentication = "none" for a public client'
        yield Finding(("client_secret",), text)
    if table.grant == "client_credentials" and table.seed is not None:
        text = "is not used with client_credentials, which has no refresh token: remove it"
        yield Finding(("seed",), text)
    if table.client_key and not table.client_certificate:
        yield Finding(("client_key",), "needs client_certificate: add it")
    for key in table.extra:
        if key in _OWN_FIELDS:
            yield Finding(("extra", key), f"is set by rotator itself: remove it{_own_setting(key)}")


def _own_setting(key: str) -> str:
    return f", use the setting {key}" if key in CredentialTable.model_fields else ""


def _urls(table: CredentialTable) -> Iterator[Finding]:
    if table.token_url is not None:
        parts = split_url(table.token_url)
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            text = "uses http, so anyone on the way can read the tokens: use https"
            yield Finding(("token_url",), text, fatal=False)
        if parts.password is not None:
            text = "has a password in it: use client_secret instead"
            yield Finding(("token_url",), text, fatal=False)
    if table.proxy is not None:
        if split_url(table.proxy).password is not None:
            text = 'has a password in it: use { file = "…" } if others may read this file'
            yield Finding(("proxy",), text, fatal=False)
        if table.use_environment_proxies:
            text = "has no effect beside proxy: remove one of the two"
            yield Finding(("use_environment_proxies",), text)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _timing(table: CredentialTable) -> Iterator[Finding]:
    refresh = table.refresh
    at_least: tuple[tuple[Place, float, str, float], ...] = (
        (("total_timeout",), table.total_timeout, "read_timeout", table.read_timeout),
        (("total_timeout",), table.total_timeout, "connect_timeout", table.connect_timeout),
        (
            ("refresh", "backoff_max"),
            refresh.backoff_max,
            "backoff_initial",
            refresh.backoff_initial,
        ),
        (
            ("refresh", "max_lifetime"),
            refresh.max_lifetime,
            "assumed_lifetime",
            refresh.assumed_lifetime,
        ),
    )
    for place, value, name, least in at_least:
        if value < least:
            yield Finding(place, f"must be at least {name} ({format_duration(least)})")
    if table.read_timeout < SHORTEST_READ_TIMEOUT:  # case B9
        yield Finding(
            ("read_timeout",),
            "below 60s may give up on a server that has already replaced the refresh token: use 60s or more",
            fatal=False,
        )
    yield from _margins(table)


def _margins(table: CredentialTable) -> Iterator[Finding]:
    """Tell of margins that the schedule cuts down (case L11); late readers would notice (H17)."""
    lifetime = table.refresh.assumed_lifetime
    margins: list[tuple[Place, float]] = [(("refresh", "min_remaining"), table.refresh.min_remaining)]
    for index, output in enumerate(table.outputs):
        propagation = propagation_of(output)
        key = "propagation" if propagation == output.propagation else "kubernetes_secret"
        margins.append((("outputs", index, key), propagation))
    for place, margin in margins:
        if margin > lifetime / 3:
            yield Finding(
                place,
                f"{_MARGIN.get(str(place[-1]), 'is')} more than a third of the lifetime: with tokens of "
                f"{format_duration(lifetime)} (refresh.assumed_lifetime) {format_duration(round(lifetime / 3, 3))} "
                "is used; shorten it, or ask for longer tokens",
                fatal=False,
            )


def _secrets(table: CredentialTable, environ: Mapping[str, str]) -> Iterator[Finding]:
    secrets: list[tuple[Place, Source | None]] = [(("client_secret",), table.client_secret), (("seed",), table.seed)]
    for place, source in secrets:
        if source is not None and source.kind is SourceKind.IN_PLACE:
            yield Finding(
                place,
                "is written in place, where every reader of this file and its backups sees it: "
                'use { file = "…" } or { credential = "…" }',
                fatal=False,
            )
    secrets += [(("extra", key), source) for key, source in table.extra.items()]
    for place, source in secrets:
        if source is not None and not source.per_name and (notice := source.notice(environ)):
            yield Finding(place, notice, fatal=False)  # case K2


def _output(place: Place, output: OutputTable) -> Iterator[Finding]:
    if (output.path is None) == (output.kubernetes_secret is None):
        found = "none of them" if output.path is None else "both"
        yield Finding(place, f"must have one of path and kubernetes_secret, not {found}")
        return
    if output.kubernetes_secret is not None:
        for key in _FOR_FILES:
            if key in output.model_fields_set:
                yield Finding((*place, key), "is for files, and has no use beside kubernetes_secret: remove it")
        for key in output.kubernetes_secret.data:
            if not _DATA_KEY.fullmatch(key):
                text = "cannot be a key of a Secret: use letters, digits, '-', '_' and '.'"
                yield Finding((*place, "kubernetes_secret", "data", key), text)
        return
    assert output.path is not None  # noqa: S101 - one of the two is there
    if output.format is not None and output.template is not None:
        yield Finding((*place, "template"), "replaces format: remove one of the two")
    if output.path.endswith("/"):
        yield Finding((*place, "path"), "is a directory: add a file name, such as {name}")
    yield from _mode((*place, "mode"), output)


def _mode(place: Place, output: OutputTable) -> Iterator[Finding]:
    if output.in_place and not output.mode & 0o200:
        wider = f"{output.mode | 0o200:04o}"
        yield Finding(place, f'keeps the owner from writing in place a second time: use "{wider}", or remove in_place')
    if output.mode & 0o007:
        text = 'lets every user of this machine at the token: "0640" and a group is safer'
        yield Finding(place, text, fatal=False)


def _hook(place: Place, hook: HookTable) -> Iterator[Finding]:
    kinds = [key for key in ("command", "signal", "webhook") if getattr(hook, key) is not None]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none of them"
        yield Finding(place, f"must have one of command, signal and webhook, not {found}")
    elif kinds == ["signal"] and hook.pid_file is None:
        text = "is missing: a signal needs the file with the process id"
        yield Finding((*place, "pid_file"), text)
    elif kinds != ["signal"] and hook.pid_file is not None:
        yield Finding((*place, "pid_file"), f"has no use beside {kinds[0]}: remove it")
    if hook.webhook is not None and hook.webhook.kind is SourceKind.IN_PLACE:
        try:
            split_url(str(hook.webhook.value))
        except ValueError as error:
            yield Finding((*place, "webhook"), str(error))


def check_store(daemon: DaemonTable, kubernetes: Mapping[str, object]) -> Iterator[Finding]:
    """Check that what is set has a use: a store is in files or in Kubernetes, never in both."""
    if daemon.store == "files" and kubernetes:
        yield Finding(("kubernetes",), 'has no use: add store = "kubernetes" to [daemon], or remove it')
    for key in ("state_directory", "spill_directory") if daemon.store == "kubernetes" else ():
        if getattr(daemon, key) is not None:
            yield Finding(("daemon", key), 'has no use beside store = "kubernetes": remove one of the two')


def check_whole(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check what concerns more than one table."""
    daemon = config.daemon
    longest, name = max(
        ((credential.endpoint.total_timeout, name) for name, credential in config.credentials.items()),
        default=(0.0, ""),
    )
    if daemon.drain_timeout <= longest:
        yield Finding(
            ("daemon", "drain_timeout"),
            f"must be longer than each total_timeout ({format_duration(longest)} in {name}), "
            "or a stop may lose an answer",
        )
    if daemon.kubernetes is not None and daemon.kubernetes.spare < _LEAST_SPARE:  # cases C5, C6
        least = daemon.kubernetes.lease_duration - daemon.kubernetes.spare + _LEAST_SPARE
        yield Finding(
            ("kubernetes", "lease_duration"),
            f"must be at least {format_duration(least)}: as long as the longest request ({format_duration(longest)} in "
            f"{name}), its save (twice timeout) and a second to renew in, or another replica may refresh meanwhile",
        )
    if daemon.max_concurrent_per_server > daemon.max_concurrent:
        yield Finding(
            ("daemon", "max_concurrent"),
            f"must be at least max_concurrent_per_server ({daemon.max_concurrent_per_server})",
        )
    if config.metrics.enabled and environ.get("PROMETHEUS_MULTIPROC_DIR"):  # case M7
        yield Finding(
            ("metrics",),
            "PROMETHEUS_MULTIPROC_DIR is set, but rotator is one process: take it out of the environment",
            fatal=False,
        )
    yield from _output_paths(config)
    yield from _secret_names(config)


def _output_paths(config: Config) -> Iterator[Finding]:
    """Find outputs that overwrite each other or the state: one finding for each table, however many share it."""
    owners: dict[str, str] = {}
    reported: set[int] = set()
    daemon = config.daemon
    private = {"state_directory": daemon.state_directory, "spill_directory": daemon.spill_directory}
    for name, credential in config.credentials.items():
        mine: set[str] = set()
        for index, output in enumerate(credential.outputs):
            if not isinstance(output, OutputConfig):
                continue
            path = os.path.normpath(output.path_for(name))
            other = owners.setdefault(path, name)
            problem = None
            if path in mine:
                problem = f"is the same file as another output of {name}: choose another path"
            elif other != name:
                cure = "choose another path" if NAME_MARK in output.path else "put {name} into it"
                problem = f"is the same file for {other} and {name}: {cure}"
            mine.add(path)
            problem = problem or _overlap(path, private)
            if problem is not None and id(output) not in reported:
                reported.add(id(output))
                yield Finding(("credentials", name, "outputs", index, "path"), problem)


def _secret_names(config: Config) -> Iterator[Finding]:
    """Find Secrets whose name is none, and such that overwrite each other: one finding for each table."""
    owners: dict[tuple[str | None, str], str] = {}
    reported: set[int] = set()
    for name, credential in config.credentials.items():
        for index, output in enumerate(credential.outputs):
            if not isinstance(output, SecretConfig):
                continue
            secret = output.name_for(name)
            other = owners.setdefault((output.namespace, secret), f"{name}[{index}]")
            problem = None
            if not _SECRET_NAME.fullmatch(secret):
                problem = f"makes {secret}, which no Secret can be called: use a-z, 0-9, '-' and '.'"
            elif _may_be_a_state(output, secret, config.daemon.kubernetes):
                problem = (
                    f"makes {secret}: names that begin with kubernetes.secret_prefix are kept for states, which hold "
                    "refresh tokens: choose another"
                )
            elif other != f"{name}[{index}]":
                problem = (
                    f"is the same Secret as that of {other.partition('[')[0]}: choose another, such as {{name}}-token"
                )
            if problem is not None and id(output) not in reported:
                reported.add(id(output))
                yield Finding(("credentials", name, "outputs", index, "kubernetes_secret", "name"), problem)


def _may_be_a_state(output: SecretConfig, secret: str, store: KubernetesConfig | None) -> bool:
    """Tell whether a Secret may be one of the store's; where no namespace is named, it is known in the cluster only."""
    if store is None or not secret.startswith(store.secret_prefix):
        return False
    return output.namespace == store.namespace or None in (output.namespace, store.namespace)


def _overlap(path: str, private: Mapping[str, Path | None]) -> str | None:
    for key, directory in private.items():
        if directory is not None and Path(path).is_relative_to(os.path.normpath(directory)):
            return f"lies in {key} ({directory}), which is private: choose a directory for readers"
    return None
