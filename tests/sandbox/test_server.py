"""The sandbox as a server: start, stop, start again, HTTPS, and as a process of its own."""

import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from tests.needs import needs
from tests.process.rig import PATIENCE, answered_within, own_host
from tests.sandbox.conftest import CLIENT, LOGIN, assert_no_error_logged


def test_state_survives_a_restart_of_the_server() -> None:
    """A stopped server refuses connections; started again it has the same port, tokens and books."""
    server = SandboxServer(switches=Switches(access_lifetime=20), host=own_host()).start()
    pair = server.sandbox.issue()
    url = server.url
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/sandbox/", trust_env=False)
    with server:
        assert server.url == url
        form = CLIENT | {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]}
        assert httpx.post(f"{url}/v2/token", data=form, trust_env=False).json()["expires_in"] == 20
    server.stop()


@pytest.mark.parametrize("switches", [Switches(fault="hang"), Switches(latency_seconds=60)], ids=["hang", "latency"])
def test_stop_lets_hanging_requests_go(switches: Switches, caplog: pytest.LogCaptureFixture) -> None:
    """Stopping neither waits for a request that would hang for ever, or long, nor has to cancel it."""
    server = SandboxServer(switches=switches).start()
    errors: list[Exception] = []

    def post() -> None:
        try:
            form = CLIENT | {"grant_type": "refresh_token", "refresh_token": "x"}
            httpx.post(f"{server.url}/v2/token", data=form, timeout=PATIENCE, trust_env=False)
        except httpx.TransportError as error:
            errors.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not server.sandbox.books.most_simultaneous and time.monotonic() < deadline:
        time.sleep(0.01)
    server.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert_no_error_logged(caplog)


def test_a_request_that_is_not_whole_is_no_request(caplog: pytest.LogCaptureFixture) -> None:
    """A client that is killed while it sends its form is no fault of the server's, and is not in the books."""
    with SandboxServer() as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"POST /v2/token HTTP/1.1\r\nHost: sandbox\r\nContent-Length: 100\r\n\r\ngrant_type=")
        httpx.get(f"{server.url}/sandbox/", trust_env=False)
        server.stop()  # each connection has had its end by then
        assert server.sandbox.books.token_requests == {}
    assert_no_error_logged(caplog)


def test_address_that_is_taken() -> None:
    """A taken port is an OSError at start, and nothing is left open."""
    with SandboxServer() as first, pytest.raises(OSError, match="in use"):
        SandboxServer(port=first.port).start()


def test_answers_leave_at_once() -> None:
    """Nagle's algorithm is off: on a kept-alive connection it would hold back the body of each answer for 40 ms."""
    with SandboxServer() as server, httpx.Client(base_url=server.url, trust_env=False) as http:
        assert answered_within(0.03, lambda: http.post("/v2/token", data=CLIENT | LOGIN)).status_code == 200


def test_switches_belong_to_one_place() -> None:
    """Switches beside a sandbox that has its own are a mistake."""
    with pytest.raises(ValueError, match="sandbox"):
        SandboxServer(Sandbox(), switches=Switches())


def test_https(tmp_path: Path) -> None:
    """With a certificate it speaks HTTPS, and broken connections are broken there too."""
    needs("openssl")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext"
    subprocess.run(
        [*command.split(), "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    trust = ssl.create_default_context(cafile=cert)
    with (
        SandboxServer(certfile=cert, keyfile=key) as server,
        httpx.Client(base_url=server.url, verify=trust, trust_env=False) as http,
    ):
        assert server.url.startswith("https://")
        assert http.post("/v2/token", data=CLIENT | LOGIN).status_code == 200
        server.sandbox.script(["drop", "reset", "half"])
        for _ in range(3):
            with pytest.raises(httpx.TransportError):
                http.post("/v2/token", data=CLIENT | LOGIN)
        assert http.post("/v2/token", data=CLIENT | LOGIN).status_code == 200


def test_process_of_its_own() -> None:
    """`python -m rotator.sandbox` prints its URL as a JSON line, obeys its options, and ends well at Ctrl-C."""
    options = "--client-id c --client-secret s --user u-* --password p --access-lifetime 20 --no-rotation"
    argv = [sys.executable, "-m", "rotator.sandbox", *options.split()]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = json.loads(process.stdout.readline())["url"]
        form = {"client_id": "c", "client_secret": "s", "grant_type": "password", "username": "u-1", "password": "p"}
        answer = httpx.post(f"{url}/v2/token", data=form, trust_env=False)
        assert answer.json()["expires_in"] == 20
        assert httpx.get(f"{url}/sandbox/switches", trust_env=False).json()["rotation"] is False
        process.send_signal(signal.SIGINT)
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("options", "status", "word"),
    [
        (["--fault", "5o3"], 2, "did you mean '503'?"),
        (["--access-lifetime", "-1"], 2, "switch 'access_lifetime' must be"),
        (["--port", "{taken}"], 1, "cannot listen on 127.0.0.1:"),
    ],
)
def test_wrong_options(options: list[str], status: int, word: str) -> None:
    """What is wrong with the options is told in the last line, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        argv = [sys.executable, "-m", "rotator.sandbox", *(word.format(taken=port) for word in options)]
        run = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert run.returncode == status
    assert word in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
