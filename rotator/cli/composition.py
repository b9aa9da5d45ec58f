"""Puts the daemon together and runs it with its servers: pages for machines, and the control socket."""

import contextlib
import grp
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp

from rotator import VERSION
from rotator.adapters.control import make_control_app, open_control_socket
from rotator.adapters.file_store import FileStore
from rotator.adapters.logs import Fanout, LogObserver, configure
from rotator.adapters.metrics import Metrics
from rotator.adapters.serve import Server, listen
from rotator.adapters.systemd import Systemd
from rotator.adapters.web import is_loopback, make_app
from rotator.assembly import Assembly, InputsUnusable
from rotator.cli.exits import ExitCode, Stop, code_of
from rotator.config import Config, load
from rotator.core.standing import counted
from rotator.daemon import Daemon
from rotator.ports import Notice, Observer, Problem

_TURN_SECONDS: Final = 0.0005
"""A thread that computes for long, for a scrape of a large fleet say, gives way to those that refresh after this long.

Python's own 5 ms, which a refresh would wait for a dozen times, made it take four times as long meanwhile.
"""


@contextlib.contextmanager
def composed(path: Path, config: Config, systemd: Systemd) -> Iterator[tuple[Daemon, Assembly, Metrics]]:
    """Open the store and put the daemon together; the daemon closes what it was given."""
    configure(config.log.level, config.log.format)
    observers = Fanout([LogObserver()])
    systemd.starting("opening the store")
    assembly = _assembly_in_files(config, observers) if config.daemon.kubernetes is None else _shared(config, observers)
    with contextlib.closing(assembly.store):
        systemd.starting(f"preparing {counted(len(config.credentials))}")
        try:
            daemon = Daemon(
                config, assembly, lambda: load(path, None, os.environ), systemd, lambda new: _in_force(new, observers)
            )
        except InputsUnusable as error:  # such as an environment proxy that is no URL
            raise Stop(ExitCode.CONFIG, str(error)) from None
        metrics = Metrics(daemon.desk, config.metrics.fleet_threshold, assembly.clock)
        observers.add(metrics)
        observers.add(daemon)
        unheard = [systemd.problem] if systemd.problem else []
        for text in (*map(str, config.warnings), *unheard):
            observers.notify(Notice("start_warning", text, level="warning"))
        assembly.tell_store_warnings()
        yield daemon, assembly, metrics


def _assembly_in_files(config: Config, observer: Observer) -> Assembly:
    store = FileStore.open(config.daemon.state_directory, config.daemon.spill_directory)
    if isinstance(store, Problem):
        raise Stop(code_of(store.reason), store.text)
    return Assembly(store, observer)


def _shared(config: Config, observer: Observer) -> Assembly:
    from rotator.cli.sharing import shared_assembly

    return shared_assembly(config, observer)


def _in_force(config: Config, observer: Observer) -> None:
    configure(config.log.level, config.log.format)
    if config.uses_a_cluster:
        from rotator.cli import cluster

        cluster.review(config, os.environ, observer)


async def serve(config: Config, daemon: Daemon, observer: Observer, metrics: Metrics) -> int:
    """Run the daemon and its servers until it is told to stop; return its exit code."""
    sys.setswitchinterval(_TURN_SECONDS)
    async with contextlib.AsyncExitStack() as stack:
        pages = make_app(
            daemon.desk,
            metrics,
            status_page=config.metrics.status_page,
            own_names_only=is_loopback(config.metrics.host),
        )
        await _serve_pages(config, pages, stack, observer)
        await _serve_control(config, make_control_app(daemon.desk, VERSION), stack, observer)
        return await daemon.run()


async def _serve(app: ASGIApp, listener: socket.socket, stack: contextlib.AsyncExitStack) -> None:
    server = Server(app, listener)
    stack.push_async_callback(server.stop)
    await server.start()


async def _serve_pages(config: Config, app: ASGIApp, stack: contextlib.AsyncExitStack, observer: Observer) -> None:
    if not config.metrics.enabled:
        return
    listener = listen(config.metrics.host, config.metrics.port)
    if isinstance(listener, Problem):
        text = f"metrics.listen: {listener.text}"
        if not config.metrics.optional:
            raise Stop(ExitCode.CANTCREAT, text)
        observer.notify(Notice("metrics_unavailable", f"{text}; the daemon runs without", level="error"))
        return
    await _serve(app, listener, stack)


async def _serve_control(config: Config, app: ASGIApp, stack: contextlib.AsyncExitStack, observer: Observer) -> None:
    """Serve the control socket. That it cannot be is no reason to let tokens lapse."""
    path, group = config.daemon.control_socket, config.daemon.control_socket_group
    gid: int | str | None = None if group is None else _gid(group)
    listener = gid if isinstance(gid, str) else open_control_socket(path, gid)
    if isinstance(listener, str):
        observer.notify(Notice("control_unavailable", f"{listener}; the daemon runs without", level="error"))
        return
    stack.callback(path.unlink, missing_ok=True)
    await _serve(app, listener, stack)


def _gid(group: str) -> int | str:
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        return f"daemon.control_socket_group: there is no group {group}; make it: groupadd {group}"
