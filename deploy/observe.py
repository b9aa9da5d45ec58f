"""`python -m deploy.observe`: rotator, a sandbox and Prometheus side by side, without containers, to look at.

Everything lives in a temporary directory and is gone afterwards. Grafana is not in Debian: whoever has one points it
at the Prometheus that is started here.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_ROTATOR: Final = (sys.executable, "-m", "rotator.cli")
_NAMES: Final = ("household-1", "household-2", "household-3")
_CONFIG: Final = """\
[daemon]
state_directory = "{place}/state"
runtime_directory = "{place}/run"

[metrics]
listen = "127.0.0.1:{port}"

[defaults]
token_url = "{sandbox}/v2/token"
client_id = "sandbox-client"
client_secret = "sandbox-secret"
refresh_token_lifetime = "30d"
outputs = [{{ path = "{place}/run/{{name}}.token" }}]

"""
_PROMETHEUS: Final = """\
global: {{ scrape_interval: 5s, evaluation_interval: 5s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: rotator
    static_configs: [{{ targets: ["127.0.0.1:{port}"] }}]
"""
_SAID: Final = """\
rotator     http://127.0.0.1:{port}/
sandbox     {sandbox}/sandbox/
Prometheus  {prometheus}
Grafana     {grafana}
files       {place}

Hurt it:    curl -X PATCH {sandbox}/sandbox/switches -d '{{"fault": "503"}}'   ("" heals it)
            curl -X POST {sandbox}/sandbox/revoke
Heal it:    {command} -c {place}/rotator.toml login household-1
            (user@example.com, sandbox-password)

Ctrl-C ends it.
"""
_NO_PROMETHEUS: Final = "is not installed, so there are no alerts: apt install prometheus"
_NO_GRAFANA: Final = "is not in Debian. To one that you have, give this Prometheus and {dashboards}/*.json"


def main() -> int:
    """Start everything, say where it is, and wait for the end. Returns the exit code."""
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rotator-observe-")))
        try:
            children = _start(place, stack)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            sys.stderr.write(f"cannot start: {error}\n")
            return 1
        while not over.wait(0.5):
            for name, child in children.items():
                if child.poll() is not None:
                    sys.stderr.write(f"{name} has ended:\n{(place / f'{name}.log').read_text()[-2000:]}")
                    return 1
        sys.stderr.write("Ending; nothing is left behind.\n")
    return 0


def _start(place: Path, stack: contextlib.ExitStack) -> dict[str, subprocess.Popen[str]]:
    """Start one after the other, each when what it needs is there; say where they are. Returns them by name."""
    children: dict[str, subprocess.Popen[str]] = {}

    def start(name: str, *command: str) -> subprocess.Popen[str]:
        children[name] = stack.enter_context(_child(place, name, command))
        return children[name]

    for name in ("state", "run"):
        (place / name).mkdir(mode=0o700)
    sandbox = _url(start("sandbox", *_ROTATOR, "sandbox", f"--port={_port(8080)}", "--access-lifetime=120"))
    port = _port(9774)
    config = place / "rotator.toml"
    tables = "".join(f"[credentials.{name}]\n" for name in _NAMES)
    config.write_text(_CONFIG.format(place=place, port=port, sandbox=sandbox) + tables)
    config.chmod(0o600)
    for name in _NAMES:
        login = [*_ROTATOR, "-c", str(config), "login", name, "--username=user@example.com", "--password-stdin"]
        subprocess.run(login, input="sandbox-password\n", text=True, check=True, stdout=subprocess.DEVNULL)
    start("rotator", *_ROTATOR, "-c", str(config), "run")
    _wait(port)
    prometheus = _NO_PROMETHEUS
    if program := shutil.which("prometheus"):
        settings = place / "prometheus.yml"
        settings.write_text(_PROMETHEUS.format(rules=_HERE / "prometheus" / "rules.yaml", port=port))
        address = f"127.0.0.1:{_port(9090)}"
        database = place / "prometheus"
        start(
            "prometheus",
            program,
            f"--config.file={settings}",
            f"--storage.tsdb.path={database}",
            f"--web.listen-address={address}",
        )
        _wait(int(address.rpartition(":")[2]))
        prometheus = f"http://{address}/   (its menu has Alerts)"
    grafana = _NO_GRAFANA.format(dashboards=os.path.relpath(_HERE / "grafana" / "dashboards"))
    command = os.path.relpath(Path(sys.executable).with_name("rotator"))
    sys.stdout.write(
        _SAID.format(place=place, port=port, sandbox=sandbox, prometheus=prometheus, grafana=grafana, command=command)
    )
    sys.stdout.flush()
    return children


def _url(sandbox: subprocess.Popen[str]) -> str:
    """Wait until the sandbox tells its URL. Raises ValueError if it ends instead."""
    assert sandbox.stdout is not None  # noqa: S101 - a pipe was asked for
    line = sandbox.stdout.readline()
    if not line:
        raise ValueError("the sandbox has ended; `rotator sandbox` alone tells why")
    return str(json.loads(line)["url"])


@contextlib.contextmanager
def _child(place: Path, name: str, command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the end of the block; Ctrl-C is for this one alone, which then ends the others in order."""
    with (
        (place / f"{name}.log").open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        ) as child,
    ):
        try:
            yield child
        finally:
            child.terminate()


def _port(usual: int) -> int:
    """Return the usual port, or a free one if that is taken."""
    for port in (usual, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as found:
            return int(found.getsockname()[1])
    raise OSError("no port is free")


def _wait(port: int) -> None:
    """Wait until something listens. Raises TimeoutError."""
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > end:
                raise TimeoutError(f"nothing listens on 127.0.0.1:{port}") from None
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
