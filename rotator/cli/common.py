"""What the commands share: where the configuration is, who answers, how a line is written."""

import contextlib
import os
import signal
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from rotator.cli.exits import ExitCode, Stop, code_of

if TYPE_CHECKING:
    import threading

    from rotator.adapters.control_client import ControlClient, ControlProblem
    from rotator.config import Config

DEFAULT_CONFIG: Final = Path("/etc/rotator/rotator.toml")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """The global options."""

    config: Path = DEFAULT_CONFIG


def _remember(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    settings = ctx.ensure_object(Settings)
    if value is not None:
        settings.config = value


def config_option(command: F) -> F:
    """Take `--config` before and after the command's name."""
    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="ROTATOR_CONFIG",
        expose_value=False,
        callback=_remember,
        help=f"Configuration file.  [default: $ROTATOR_CONFIG, else {DEFAULT_CONFIG}]",
    )(command)


def examples(*lines: str) -> str:
    """Return the last part of a command's help."""
    return "\n".join(["\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])


class _Seconds(click.FloatRange):
    """A number of seconds, as `60` or as `60s`."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = value.removesuffix("s") if isinstance(value, str) else value
        return super().convert(number, param, ctx)  # type: ignore[arg-type] # it takes text, whatever it says


def timeout_option(default: float, help: str = "How long to wait for the daemon's answer.") -> Callable[[F], F]:  # noqa: A002 - click's name
    """Take `--timeout`."""
    return click.option(
        "--timeout",
        type=_Seconds(min=0.1),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=help,
    )


def load_config(settings: Settings, *, looking: bool = False) -> "Config":
    """Read the configuration or stop with all that is wrong with it; `looking`: see `config.load`."""
    from rotator.config import Config, load

    loaded = load(settings.config, None, os.environ, looking=looking)
    if not isinstance(loaded, Config):
        raise Stop(ExitCode.CONFIG, *map(str, loaded))
    return loaded


def control_socket(settings: Settings) -> Path:
    """Find the daemon's socket without a whole configuration (case I8).

    Whoever may use the socket need not be able to read the configuration, nor have the secrets that
    it names; a wrong configuration must not hide a running daemon.
    """
    daemon: dict[str, Any] = {}
    for file in (settings.config, *sorted(settings.config.parent.glob("conf.d/*.toml"))):
        try:
            daemon |= tomllib.loads(file.read_text())["daemon"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    socket, runtime = daemon.get("control_socket"), daemon.get("runtime_directory")
    if isinstance(socket, dict) or isinstance(runtime, dict):
        return load_config(settings).daemon.control_socket
    if isinstance(socket, str):
        return Path(socket)
    if isinstance(runtime, str):
        return Path(runtime, "rotator.sock")
    # The variable may be another unit's, such as a consumer's that waits for its token.
    own = Path(os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0], "rotator.sock")
    return own if own.is_absolute() and os.access(own, os.F_OK) else Path("/run/rotator/rotator.sock")


def client_of(settings: Settings, timeout: float) -> "ControlClient":
    """Return a client for the daemon, whether or not one runs."""
    from rotator.adapters.control_client import ControlClient

    return ControlClient(control_socket(settings), timeout)


def stop_for(problem: "ControlProblem") -> Stop:
    """Turn a failure into the end of the command."""
    return Stop(code_of(problem.reason), problem.text)


def good(answer: "Any | ControlProblem") -> Any:
    """Return a good answer, or stop."""
    from rotator.adapters.control_client import ControlProblem

    if isinstance(answer, ControlProblem):
        raise stop_for(answer)
    return answer


def is_no_daemon(answer: object) -> bool:
    """Tell whether there is no daemon at all, so that the state directory may be used instead."""
    from rotator.adapters.control_client import NO_DAEMON, ControlProblem

    return isinstance(answer, ControlProblem) and answer.reason == NO_DAEMON


def is_passing(problem: "ControlProblem") -> bool:
    """Tell whether the daemon may yet answer: it starts, or is busy."""
    from rotator.adapters.control_client import NO_ANSWER, NO_DAEMON

    return problem.reason in (NO_ANSWER, NO_DAEMON)


def say(line: str) -> None:
    """Write one line for people to standard error."""
    click.echo(f"rotator: {line}", err=True)


@contextlib.contextmanager
def finishing(stopping: "threading.Event") -> Iterator[None]:
    """Let Ctrl-C, a stop or a closed terminal set `stopping`, and nothing else, until the end of the block.

    A token request that is under way is waited for: an answer that nobody saves is a lost refresh token (invariant 13).
    """

    def stop(*_: object) -> None:
        if not stopping.is_set():
            stopping.set()
            say("ending as soon as the request under way is answered and saved")

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
