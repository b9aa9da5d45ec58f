"""What the commands do without a daemon: the same, on the state directory, under its lock."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from rotator.adapters.control_client import ControlProblem
from rotator.adapters.file_store import FileStore
from rotator.assembly import Assembly, InputsUnusable
from rotator.cli.common import finishing, say
from rotator.cli.exits import ExitCode, Stop, code_of
from rotator.config import Config, CredentialConfig, OutputConfig, SecretConfig
from rotator.core.grant import is_another_scope
from rotator.core.model import Fingerprinter, Halt, Reason
from rotator.core.schedule import SinkRef
from rotator.core.standing import OutputView, Standing, view
from rotator.core.state import CredentialState, judged
from rotator.credential import Credential
from rotator.ports import Event, Notice, Problem, PublishFinished, SaveFinished

_NOTICED: Final = ("warning", "error", "critical")


class _ToStandardError:
    """Tells a person at a terminal what went wrong. Implements `ports.Observer`."""

    def notify(self, event: Event) -> None:
        """Show failures and warnings, nothing else."""
        if isinstance(event, Notice) and event.level in _NOTICED:
            say(f"{event.credential}: {event.text}" if event.credential else event.text)
        elif isinstance(event, SaveFinished | PublishFinished) and event.problem:
            say(f"{event.credential}: {event.problem.text}")


@contextlib.contextmanager
def _store(config: Config, *, looking: bool = False) -> Iterator[FileStore]:
    """Open the store. Whoever is only `looking` makes no directory: it would belong to the wrong user."""
    if config.daemon.kubernetes is not None:
        where = config.daemon.control_socket
        text = f"no daemon listens at {where}: with the store in Kubernetes, run this where one does (kubectl exec)"
        raise Stop(ExitCode.UNAVAILABLE, text)
    directory = config.daemon.state_directory
    if looking and not directory.exists():
        text = f"{directory} does not exist: no daemon has run and nobody has logged in yet; start it with: rotator run"
        raise Stop(ExitCode.UNAVAILABLE, text)
    store = FileStore.open(config.daemon.state_directory, config.daemon.spill_directory)
    if isinstance(store, Problem):
        if store.reason is Reason.BUSY_TARGET:
            where = config.daemon.control_socket
            text = f"a daemon runs, but does not listen at {where}: {store.text}"
            raise Stop(ExitCode.UNAVAILABLE, text)
        raise Stop(code_of(store.reason), store.text)
    with contextlib.closing(store):
        yield store
        for text in store.warnings:
            say(text)


def named(config: Config, name: str | None) -> Mapping[str, CredentialConfig]:
    """Return the credential called `name`, or all for None; stop if there is none."""
    if name is None:
        return config.credentials
    if name not in config.credentials:
        from rotator.adapters.control import unknown_credential

        raise Stop(ExitCode.USAGE, unknown_credential(name, list(config.credentials)))
    return {name: config.credentials[name]}


def views(config: Config, name: str | None) -> list[dict[str, Any]]:
    """Show the saved states. Needs no client secret (case I8)."""
    chosen = named(config, name)
    with _store(config, looking=True) as store:
        return [_view(store, one, chosen[one]) for one in sorted(chosen)]


def _stored(store: FileStore, name: str, config: CredentialConfig) -> CredentialState | Problem:
    """Return the saved state; what the newest answer says beside its pair may never have been read (decision 0002)."""
    loaded = store.load(name)
    if isinstance(loaded, Problem):
        return loaded
    state = loaded.state or CredentialState()
    return judged(state, config.policy, config.grant, config.scope, on_schedule=False)[0]


def _view(store: FileStore, name: str, config: CredentialConfig) -> dict[str, Any]:
    stored = _stored(store, name, config)
    state = CredentialState() if isinstance(stored, Problem) else stored
    secrets = tuple(SinkRef(output.title) for output in config.outputs if isinstance(output, SecretConfig))
    fingerprint, tokens = Fingerprinter(store.fingerprint_key()), state.tokens
    marks = (fingerprint(tokens.access_token), fingerprint(tokens.refresh_token)) if tokens else ("-", "-")
    shown = asdict(
        view(name, state, config.policy, config.grant, secrets, time.time(), unsaved=False, fingerprints=marks)
    )
    files = [_file(output, name, state) for output in config.outputs if isinstance(output, OutputConfig)]
    shown["outputs"] = [*files, *shown["outputs"]]
    shown["scope_changed"] = tokens is not None and is_another_scope(tokens.scope, config.scope)
    if isinstance(stored, Problem):
        shown |= {"standing": Standing.STATE_UNREADABLE, "reason": stored.reason, "text": stored.text}
    return shown


def _file(output: OutputConfig, name: str, state: CredentialState) -> dict[str, Any]:
    """Look whether a file holds the saved tokens: what was delivered since the last save is noted nowhere."""
    path, tokens = output.path_for(name), state.tokens
    try:
        content = path.read_text(errors="replace")
        delivered_at: float | None = path.stat().st_mtime
    except OSError:
        content, delivered_at = "", None
    held = (tokens.access_token, tokens.id_token) if tokens else ()
    current = any(token and token in content for token in held)
    shown = OutputView(
        output.path, is_hook=False, current=current, generation=state.generation if current else 0,
        delivered_at=delivered_at if current else None, expires_at=tokens.expires_at if tokens and current else None,
        failures=0, reason=None, text="",
    )  # fmt: skip
    return asdict(shown)


def token(config: Config, name: str) -> dict[str, Any]:
    """Return the saved access token and what belongs to it."""
    chosen = named(config, name)[name]
    with _store(config, looking=True) as store:
        stored = _stored(store, name, chosen)
    if isinstance(stored, Problem):
        raise Stop(code_of(stored.reason), stored.text)
    tokens = stored.tokens
    if tokens is None or not tokens.access_token:
        text = f"{name} has no access token yet; get one: rotator login {name}, then rotator run"
        raise Stop(ExitCode.NOPERM, text)
    return {
        "access_token": tokens.access_token,
        "id_token": tokens.id_token,
        "token_type": tokens.token_type,
        "scope": tokens.scope,
        "generation": tokens.generation,
        "obtained_at": tokens.obtained_at,
        "expires_at": tokens.expires_at,
    }


@contextlib.contextmanager
def _assembled(config: Config) -> Iterator[Assembly]:
    with _store(config) as store:
        assembly = Assembly(store, _ToStandardError(), os.environ)
        with contextlib.closing(assembly), finishing(assembly.stopping):
            try:
                yield assembly
            except InputsUnusable as error:
                raise Stop(ExitCode.CONFIG, str(error)) from None


def login(config: Config, name: str, body: Mapping[str, str]) -> dict[str, Any]:
    """Log in, save, and bring outputs up to date; a bare refresh token is tried out at once."""
    chosen = named(config, name)
    with _assembled(config) as assembly:
        credential = Credential(name, assembly.plan(name, chosen[name]))
        if "pair" in body:
            problem = assembly.adopt_pair(credential, body["pair"])
        else:
            problem = assembly.login(credential, body["username"], body["password"])
        if problem is not None:
            raise Stop(code_of(problem.reason), problem.text)
        assembly.rotator.step(credential)
        return asdict(credential.view(assembly.fingerprint, assembly.clock.now()))


def rotations(
    config: Config, name: str | None, timeout: float
) -> Iterator[tuple[str, dict[str, Any] | ControlProblem]]:
    """Rotate one credential or all, one after the other; `timeout` seconds are for each."""
    chosen = named(config, name)
    with _assembled(config) as assembly:
        for one in sorted(chosen):
            if assembly.stopping.is_set():
                yield one, ControlProblem("stopping", "not rotated: rotator was told to end before its turn")
                continue
            credential = Credential(one, assembly.plan(one, chosen[one]))
            yield one, _rotation(assembly, credential, time.monotonic() + timeout)


def _rotation(assembly: Assembly, credential: Credential, deadline: float) -> dict[str, Any] | ControlProblem:
    waiter = assembly.rotator.ask(credential)
    while True:
        outcome = assembly.rotator.step(credential)
        if waiter.done():
            return asdict(waiter.result())
        wait = 0.0 if isinstance(outcome, Halt) else outcome.until - assembly.clock.now()
        if isinstance(outcome, Halt) or time.monotonic() + wait > deadline:
            reason = outcome.reason if isinstance(outcome, Halt) else outcome.why
            return ControlProblem(reason, f"not rotated: {reason}; see what is said above")
        if assembly.stopping.wait(max(0.05, wait)):
            return ControlProblem("stopping", "not rotated: rotator was told to end")
