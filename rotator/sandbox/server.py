"""The sandbox on a real socket: in a thread for tests and the demo, or in the foreground for the command line."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from rotator.sandbox.app import create_app
from rotator.sandbox.connection import BreakableProtocol
from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.switches import Switches

_LOOK_SECONDS = 0.1
_STOP_SECONDS = 1


class SandboxServer:
    """A sandbox served in a thread; a context manager.

    It may be stopped and started again: port, tokens and books stay. `port` 0 takes a free one. With `certfile` (and
    `keyfile`) it speaks HTTPS.
    """

    def __init__(
        self,
        sandbox: Sandbox | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        switches: Switches | None = None,
        certfile: Path | None = None,
        keyfile: Path | None = None,
    ) -> None:
        if sandbox is not None and switches is not None:
            raise ValueError("give the switches to the sandbox")
        self.sandbox = sandbox or Sandbox(switches=switches)
        self.host = host
        self.port = port
        self._certfile = certfile
        self._keyfile = keyfile
        self._running: tuple[_Server, threading.Thread] | None = None

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return _url(self.host, self.port, secure=self._certfile is not None)

    def start(self) -> Self:
        """Bind, serve, and return when requests are answered. Raises OSError if the address is taken."""
        bound = _bind(self.host, self.port)
        self.port = bound.getsockname()[1]
        server = _Server(_config(self.sandbox, self._certfile, self._keyfile))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="sandbox", daemon=True)
        thread.start()
        while not server.ready.wait(_LOOK_SECONDS):
            if not thread.is_alive():
                bound.close()
                raise RuntimeError("the sandbox did not start; see the traceback of its thread")
        self._running = server, thread
        return self

    def stop(self) -> None:
        """Stop answering and close every connection; hanging requests are let go."""
        if self._running is None:
            return
        server, thread = self._running
        self._running = None
        server.should_exit = True
        self.sandbox.change()
        thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(
    sandbox: Sandbox,
    *,
    host: str,
    port: int,
    on_ready: Callable[[str], object],
    certfile: Path | None = None,
    keyfile: Path | None = None,
) -> None:
    """Serve in the foreground until SIGINT or SIGTERM. `on_ready` gets the URL once requests are answered.

    Raises OSError if the address is taken.
    """
    bound = _bind(host, port)
    url = _url(host, bound.getsockname()[1], secure=certfile is not None)
    _Server(_config(sandbox, certfile, keyfile), lambda: on_ready(url)).run(sockets=[bound])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], object] = lambda: None) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()
        self.ready.set()


def _config(sandbox: Sandbox, certfile: Path | None, keyfile: Path | None) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(sandbox),
        http=BreakableProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        access_log=False,
        log_config=None,  # the loggers belong to the program that the sandbox runs in
        log_level=None,
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
    )


def _bind(host: str, port: int) -> socket.socket:
    """Bind a socket of our own: the port is known before anything is served, and a restart gets it back."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; else each kept-alive answer waits 40 ms
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _url(host: str, port: int, *, secure: bool) -> str:
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
