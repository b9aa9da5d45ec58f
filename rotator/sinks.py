"""From configuration to sinks: files, Secrets and hooks. What speaks to a cluster is loaded if an output needs it."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rotator.adapters.file_sink import FileSink
from rotator.adapters.hooks import CommandHook, SignalHook, WebhookHook
from rotator.config import CredentialConfig, InputError, OutputConfig, SecretConfig, Source
from rotator.config import settings as configured
from rotator.core.model import Reason
from rotator.ports import Clock, Problem, Sink

if TYPE_CHECKING:
    from rotator.adapters.kubernetes.cluster import Cluster


class InputsUnusable(Exception):  # noqa: N818 - it says what is the matter, for an operator
    """What is configured cannot be made into working parts: one line with the cure."""


class Sinks:
    """Makes sinks, and holds what those of one process share."""

    def __init__(
        self,
        environ: Mapping[str, str],
        clock: Clock,
        stopping: threading.Event,
        notice: Callable[[str, str], None],
    ) -> None:
        """Take what sinks need; `notice`: an event's name and a line."""
        self._environ = environ
        self._clock = clock
        self._stopping = stopping
        self._notice = notice
        self._cluster: Cluster | None = None

    def outputs(self, name: str, config: CredentialConfig) -> tuple[Sink, ...]:
        """Make one credential's outputs. Raises `InputsUnusable`."""
        return tuple(
            self._file(name, output) if isinstance(output, OutputConfig) else self._secret(name, output)
            for output in config.outputs
        )

    def _file(self, name: str, output: OutputConfig) -> FileSink:
        return FileSink(
            output.title,
            output.path_for(name),
            format=output.format,
            template=output.template,
            mode=output.mode,
            owner=output.owner,
            group=output.group,
            newline=output.newline,
            symlink=output.symlink,
            in_place=output.in_place,
            in_pod="KUBERNETES_SERVICE_HOST" in self._environ,
            notice=self._notice,
            clock=self._clock,
        )

    def _secret(self, name: str, output: SecretConfig) -> Sink:
        try:
            from rotator.adapters.kubernetes import cluster  # noqa: PLC0415 - 12 MB that few need
        except ImportError as error:
            text = f"credentials.{name}: kubernetes_secret needs the extra token-rotator[kubernetes]: {error}"
            raise InputsUnusable(text) from None
        if self._cluster is None:
            self._cluster = cluster.Cluster(self._environ, self._clock, self._notice)
        settings = cluster.SecretSettings(
            name=output.name_for(name),
            namespace=output.namespace,
            data=output.data,
            type=output.type,
            labels=output.labels,
            annotations=output.annotations,
            adopt=output.adopt,
        )
        return self._cluster.sink(output.title, name, settings)

    def hooks(self, name: str, config: CredentialConfig) -> tuple[Sink, ...]:
        """Make one credential's hooks."""
        hooks: list[Sink] = []
        for number, hook in enumerate(config.hooks, 1):
            match hook:
                case configured.CommandHook():
                    title = f"hook {number}: {Path(hook.command[0]).name}"
                    command = hook.command_for(name)
                    hooks.append(CommandHook(title, name, command, hook.timeout, self._clock, self._stopping))
                case configured.SignalHook():
                    title = f"hook {number}: SIG{hook.signal}"
                    hooks.append(SignalHook(title, hook.pid_file_for(name), hook.signal))
                case configured.WebhookHook():
                    url = reader(self._environ, hook.url.named(name))
                    title = f"hook {number}: webhook"
                    hooks.append(WebhookHook(title, name, url, hook.timeout, self._clock, self._stopping))
        return tuple(hooks)

    def close(self) -> None:
        """Close what the sinks share."""
        if self._cluster is not None:
            self._cluster.close()


def reader(environ: Mapping[str, str], source: Source) -> Callable[[], str | Problem]:
    """Return a way to read a source anew each time."""

    def read() -> str | Problem:
        value = source.read(environ)
        return Problem(Reason.BAD_INPUT, value.text) if isinstance(value, InputError) else value

    return read
