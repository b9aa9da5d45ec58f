"""What `rotator check` looks at. Nothing is changed; probes are removed again."""

import ctypes
import os
import shlex
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rotator.adapters import atomic
from rotator.adapters.control_client import ControlProblem
from rotator.adapters.endpoint import EndpointSettings, probe
from rotator.adapters.file_store import FileStore
from rotator.adapters.serve import listen
from rotator.cli import offline
from rotator.cli.common import Settings, client_of, is_no_daemon
from rotator.cli.exits import Stop
from rotator.config import Config, EndpointConfig, InputError, OutputConfig, Source, SourceKind, load
from rotator.core.standing import counted, span
from rotator.ports import Problem

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"
COLOURS: Final = {OK: "green", WARN: "yellow", FAIL: "red"}
_ONLINE_SECONDS: Final = 15.0
_PROBES_AT_ONCE: Final = 8
_TIMEX_BYTES: Final = 512  # larger than struct timex of any platform
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `rotator check`."""

    level: str
    text: str


def findings(settings: Settings, *, online: bool) -> Iterator[Finding]:
    """Yield what is found, in the order in which a start would meet it."""
    config = load(settings.config, None, os.environ)
    if not isinstance(config, Config):
        yield from (Finding(FAIL, str(error)) for error in config)
        return
    files = ", ".join(map(str, config.files))
    yield Finding(OK, f"configuration: {files}: {counted(len(config.credentials))}")
    yield from (Finding(WARN, str(warning)) for warning in config.warnings)
    yield from _config_files(config)
    running = client_of(settings, 2.0).get("/v1/status")
    yield from _state(config, running)
    yield from _cluster(config)
    yield from _secrets(config)
    yield from _outputs(config)
    yield from _margins(config, running)
    if is_no_daemon(running):
        yield from _metrics_address(config)
    yield _clock()
    if online:
        yield from _endpoints(config)


def _config_files(config: Config) -> Iterator[Finding]:
    for path in config.files:
        mode = path.stat().st_mode
        if mode & stat.S_IWOTH:
            text = f"{path}: everybody may change it (mode {stat.S_IMODE(mode):04o}): chmod o-w {path}"
            yield Finding(FAIL, text)


def _state(config: Config, running: Any) -> Iterator[Finding]:
    if config.daemon.kubernetes is not None:
        return  # with the cluster
    directory = config.daemon.state_directory
    if not is_no_daemon(running):
        if isinstance(running, ControlProblem):
            yield Finding(FAIL, f"control socket: {running.text}")
        else:
            yield Finding(OK, f"state directory: {directory} is in use by the running daemon")
        return
    if not directory.exists() and os.access(directory.parent, os.W_OK | os.X_OK):
        yield Finding(OK, f"state directory: {directory} will be made at the first start")
        return
    if (unmade := _unmade("state directory", directory, "/var/lib", "StateDirectory")) is not None:
        yield unmade
        return
    store = FileStore.open(directory, config.daemon.spill_directory)
    if isinstance(store, Problem):
        yield Finding(FAIL, f"state directory: {store.text}")
        return
    yield from (Finding(WARN, f"state directory: {text}") for text in store.warnings)
    store.close()
    yield Finding(OK, f"state directory: {directory} is private and can be written")


def _cluster(config: Config) -> Iterator[Finding]:
    if not config.uses_a_cluster:
        return
    try:
        from rotator.cli import cluster
    except ImportError as error:
        yield Finding(FAIL, f"Kubernetes: install the extra token-rotator[kubernetes]: {error}")
        return
    for level, text in cluster.findings(config, os.environ):
        yield Finding(level, f"Kubernetes: {text.removeprefix('Kubernetes: ')}")


def _unmade(what: str, directory: Path, parent: str, setting: str) -> Finding | None:
    """Look at a directory that the systemd unit makes: before its first start, or after a boot, it is not there."""
    if str(directory.parent) != parent or directory.exists():
        return None
    made = f"a start of the systemd service makes it ({setting}=); without one: mkdir {shlex.quote(str(directory))}"
    return Finding(WARN, f"{what}: {directory} is not there yet: {made}")


def _secrets(config: Config) -> Iterator[Finding]:
    """Read each secret once, as the daemon will; show where it is, never what it is."""
    seen: set[tuple[str, Source]] = set()
    bad = False
    for name, credential in config.credentials.items():
        sources = [("client_secret", credential.client_secret), ("seed", credential.seed)]
        sources += [(f"extra.{key}", source) for key, source in credential.extra]
        for key, source in sources:
            place = (key, source.named(name)) if source else None
            if place is None or place in seen:
                continue
            seen.add(place)
            value = place[1].read(os.environ)
            if isinstance(value, InputError):
                finding = _unreadable(name, key, place[1], value)
                bad = bad or finding.level == FAIL
                yield finding
    if seen and not bad:
        yield Finding(OK, f"secrets: {len(seen)} sources looked at")


def _unreadable(name: str, key: str, source: Source, error: InputError) -> Finding:
    where = f"credentials.{name}.{key}"
    if source.kind is SourceKind.CREDENTIAL and not os.environ.get("CREDENTIALS_DIRECTORY"):
        text = f"{source.describe()} can be read inside the unit only, so it was not looked at"
        return Finding(WARN, f"{where}: {text}")
    # A seed may well be gone once there is a state.
    return Finding(WARN if key == "seed" else FAIL, f"{where}: {error.text}")


def _outputs(config: Config) -> Iterator[Finding]:
    """Write and remove a file in each directory that outputs go to."""
    directories: dict[Path, str] = {}
    for name, credential in config.credentials.items():
        for output in credential.outputs:
            if not isinstance(output, OutputConfig):
                continue
            path = output.path_for(name)
            if output.in_place and path.exists():
                if not os.access(path, os.W_OK):
                    text = f"output {path} cannot be written: let user id {os.geteuid()} write it"
                    yield Finding(FAIL, text)
                continue
            follows = output.symlink == "follow"
            directories.setdefault(Path(os.path.realpath(path) if follows else path).parent, name)
    for directory, name in directories.items():
        if (unmade := _unmade("outputs", directory, "/run", "RuntimeDirectory")) is not None:
            yield unmade
            continue
        probe_file = directory / f"{atomic.PREFIX}check-{os.getpid()}"
        try:
            atomic.write(probe_file, b"probe", mode=0o600, durable=False, lenient=True)
            probe_file.unlink()
        except OSError as error:
            problem = atomic.problem_of(error, probe_file, "write")
            yield Finding(FAIL, f"outputs of {name}: {problem.text}")
        else:
            yield Finding(OK, f"outputs: {directory} can be written")


def _margins(config: Config, running: Any) -> Iterator[Finding]:
    """Compare what a consumer may lag behind with what the tokens really leave (cases H16, H17)."""
    for view in _views(config, running):
        credential = config.credentials.get(view["name"])
        delay = max((output.propagation for output in credential.outputs), default=0.0) if credential else 0.0
        if credential is None or view["issued_at"] is None or not delay:
            continue
        lifetime, policy = view["expires_at"] - view["issued_at"], credential.policy
        margin = max(lifetime * (1 - policy.lifetime_ratio), min(policy.min_remaining, lifetime / 3))
        if margin < delay:
            text = (
                f"credentials.{view['name']}: tokens live {span(lifetime)} and are renewed {span(margin)} before their "
                f"end, but readers may notice a new one {span(delay)} late (propagation): ask for longer tokens, or "
                "let them look more often"
            )
            yield Finding(WARN, text)


def _views(config: Config, running: Any) -> list[dict[str, Any]]:
    if isinstance(running, ControlProblem):
        if not is_no_daemon(running) or not config.daemon.state_directory.exists():
            return []
        try:
            return offline.views(config, None)
        except Stop:  # said already
            return []
    views: list[dict[str, Any]] = running["credentials"]
    return views


def _metrics_address(config: Config) -> Iterator[Finding]:
    metrics = config.metrics
    if not metrics.enabled:
        return
    listener = listen(metrics.host, metrics.port)
    if isinstance(listener, Problem):
        yield Finding(WARN if metrics.optional else FAIL, f"metrics.listen: {listener.text}")
    else:
        listener.close()
        yield Finding(OK, f"metrics: {metrics.host}:{metrics.port} is free")


def _clock() -> Finding:
    """Ask the kernel whether a time service keeps the clock right."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state == _TIME_ERROR:
        return Finding(WARN, "clock: not synchronized: start a time service, such as chrony")
    return Finding(OK, "clock: synchronized")


def _endpoints(config: Config) -> Iterator[Finding]:
    """Reach for each token endpoint: name, connection, TLS, one request without a token or client."""
    places: dict[EndpointConfig, str] = {}
    for name, credential in config.credentials.items():
        places.setdefault(credential.endpoint, name)
    with ThreadPoolExecutor(_PROBES_AT_ONCE) as pool:
        results = pool.map(probe, map(_short, places))
        for name, (problem, text) in zip(places.values(), results, strict=True):
            yield Finding(FAIL if problem else OK, f"token endpoint of {name}: {text}")


def _short(at: EndpointConfig) -> EndpointSettings:
    return EndpointSettings(
        token_url=at.token_url,
        ca_file=at.ca_file,
        client_certificate=at.client_certificate,
        client_key=at.client_key,
        proxy=at.proxy,
        use_environment_proxies=at.use_environment_proxies,
        connect_timeout=min(at.connect_timeout, _ONLINE_SECONDS),
        read_timeout=_ONLINE_SECONDS,
        total_timeout=_ONLINE_SECONDS,
    )
