"""Pages and server over real sockets: what they say, and what rude clients can do to them."""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from rotator.adapters.metrics import Metrics
from rotator.adapters.serve import Server, listen
from rotator.adapters.web import make_app
from rotator.core.model import Reason, TokenSet
from rotator.ports import Problem, PublishFinished, Pulse, RefreshFinished, SaveFinished
from tests.adapters.site import served
from tests.desk import NOW, VIEW, DataDesk
from tests.fakes import FixedClock
from tests.process.rig import PATIENCE, answered_within
from tests.secrets_scan import planted, secrets_in


def app_of(desk: DataDesk) -> ASGIApp:
    """Return the pages of a desk."""
    return make_app(desk, Metrics(desk, 10, FixedClock(NOW)))


def ended(client: socket.socket) -> bool:
    """Wait for the other side to close or reset the connection."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


# -- pages ---------------------------------------------------------------------------------------------


def test_metrics_page() -> None:
    """A scrape gets the text format with its content type, or OpenMetrics if it asks for that."""
    with served(app_of(DataDesk(VIEW))) as site:
        status, content_type, body = site.get("/metrics")
        assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b'rotator_generation{credential="web"} 4.0\n' in body
        _, content_type, body = site.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert content_type.startswith("application/openmetrics-text; version=1.0.0")
        assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize("live", [True, False])
def test_livez_knows_of_the_sweep_only(live: bool) -> None:
    """Invariant 14: liveness is the sweep's, whatever the outputs hold."""
    desk = DataDesk(VIEW)
    desk.life = Pulse(live=live, sweep_age_seconds=0.25)
    desk.served = replace(desk.served, ready=not live)
    with served(app_of(desk)) as site:
        status, content_type, body = site.get("/livez")
    assert (status, content_type) == (200 if live else 503, "application/json")
    assert json.loads(body) == {"live": live, "sweep_age_seconds": 0.25}


@pytest.mark.parametrize("ready", [True, False])
def test_readyz_gives_its_reasons(ready: bool) -> None:
    """Readiness says which credential is not served, and why."""
    desk = DataDesk(VIEW)
    reasons = () if ready else ("web: login_required",)
    desk.served = replace(desk.served, ready=ready, reasons=reasons)
    with served(app_of(desk)) as site:
        status, _, body = site.get("/readyz")
    assert status == (200 if ready else 503)
    assert json.loads(body) == {"ready": ready, "credentials": 1, "reasons": list(reasons)}


@pytest.mark.parametrize("count", [0, 1, 200, 1001])
def test_status_shows_every_credential(count: int) -> None:
    """The status page is one JSON object with each credential in it, in order, however many there are."""
    views = [replace(VIEW, name=f"c{number:04}") for number in range(count)]
    with served(app_of(DataDesk(*views))) as site:
        status, content_type, body = site.get("/status")
    assert (status, content_type) == (200, "application/json")
    shown = json.loads(body)["credentials"]
    assert [view["name"] for view in shown] == [view.name for view in views]
    if shown:
        assert shown[0]["expires_at"] == NOW + 3000
        assert shown[0]["outputs"][0]["current"] is True


def test_no_page_shows_a_secret() -> None:
    """J6: pages know tokens by their fingerprints only."""
    desk = DataDesk(VIEW)
    tokens = TokenSet(4, planted("access"), planted("refresh"), planted("id"), "Bearer", "", NOW, NOW + 60, NOW, None)
    desk.token_sets["web"] = tokens
    with served(app_of(desk)) as site:
        for path in ("/", "/credentials/web", "/metrics", "/livez", "/readyz", "/status"):
            status, _, body = site.get(path)
            assert (status, secrets_in(body.decode())) == (200, [])


def test_pages_only_show() -> None:
    """Nothing can be changed over the port, and an unknown page is a plain 404."""
    desk = DataDesk(VIEW)
    with served(app_of(desk)) as site:
        client = site.connect(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        with client:
            assert client.recv(1000).startswith(b"HTTP/1.1 405 ")
        assert site.get("/token/web")[0] == 404
    assert desk.asked == []


def test_answers_say_nothing_of_the_server() -> None:
    """No Server header: what runs here is nobody's business."""
    with served(app_of(DataDesk(VIEW))) as site, site.connect(b"GET /livez HTTP/1.0\r\n\r\n") as client:
        head = client.recv(1000).lower()
    assert b"\r\nserver:" not in head


# -- rude clients ----------------------------------------------------------------------------------------


def test_slow_clients_do_not_block_a_scrape() -> None:
    """M12: while clients send their requests byte by byte, a scrape is answered at once."""
    with served(app_of(DataDesk(VIEW))) as site, contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(site.connect(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: "))
        assert answered_within(2, lambda: site.get("/metrics"))[0] == 200


def test_a_request_must_come_in_time() -> None:
    """M12: a client that goes on sending a byte now and then is cut off; the bytes buy it no time."""
    with served(app_of(DataDesk(VIEW)), request_seconds=0.4) as site:
        with site.connect(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ") as client:
            started, cut_off = time.monotonic(), False
            client.settimeout(0.05)
            while not cut_off and time.monotonic() - started < PATIENCE:
                try:
                    client.sendall(b"x")
                    cut_off = client.recv(1) == b""
                except TimeoutError:
                    continue
                except OSError:
                    cut_off = True
            assert cut_off
            assert 0.3 < time.monotonic() - started < 5
        assert not site.server._state.connections


def test_the_next_request_of_a_connection_must_come_in_time_too() -> None:
    """M12: after a good request, the slow one is cut off all the same."""
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with served(app_of(DataDesk(VIEW)), request_seconds=0.4) as site, site.connect(request) as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"GET /livez HTT")
        assert ended(client)


def test_pipelined_requests_are_each_answered() -> None:
    """Requests sent in one go get their answers in order, and the connection stays under watch."""
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with served(app_of(DataDesk(VIEW)), request_seconds=0.4) as site, site.connect(request * 3) as client:
        answers = b""
        while part := client.recv(65536):
            answers += part
            if answers.count(b"HTTP/1.1 200 ") == 3 and answers.endswith(b"}"):
                break
        assert ended(client)


def test_an_answer_must_be_taken_in_time() -> None:
    """M12: a client that does not read what it asked for is cut off, and nothing of it stays behind."""
    views = [replace(VIEW, name=f"c{number:05}") for number in range(20000)]
    with served(app_of(DataDesk(*views)), answer_seconds=0.5) as site:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        with client:
            client.connect(("127.0.0.1", site.port))
            client.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
            deadline = time.monotonic() + PATIENCE
            assert client.recv(1)
            while site.server._state.connections and time.monotonic() < deadline:
                assert site.get("/livez")[0] == 200
            assert not site.server._state.connections
            while site.server._state.tasks and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not site.server._state.tasks


def test_connections_are_limited() -> None:
    """M12: whoever waits longest for its request to come gives way; a scrape among hundreds of idle ones succeeds."""
    with served(app_of(DataDesk(VIEW)), most_connections=8) as site, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(site.connect(b"GET /metrics HTTP/1.1\r\n")) for _ in range(100)]
        assert site.get("/metrics")[0] == 200
        assert len(site.server._state.connections) <= 8
        assert all(ended(client) for client in idle[:90])


def test_a_client_that_resets_during_a_scrape_leaves_the_page_up() -> None:
    """M14: resets in the midst of answers are nobody else's trouble, and no line in the log."""
    views = [replace(VIEW, name=f"c{number:04}") for number in range(2000)]
    with served(app_of(DataDesk(*views))) as site:
        for path in (b"/metrics", b"/status") * 5:
            client = site.connect(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        assert site.get("/metrics")[0] == 200


def test_broken_requests_leave_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    """A port scan is answered with 400 and does not fill the log."""
    with served(app_of(DataDesk(VIEW))) as site:
        for sent in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"no http\r\n\r\n"):
            with site.connect(sent) as client:
                assert ended(client)
        assert site.get("/livez")[0] == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO] == []


def test_a_slow_scrape_does_not_hold_up_the_loop() -> None:
    """M13: a scrape of a large fleet runs in a thread: meanwhile the loop turns and others are served."""
    scraping, release = threading.Event(), threading.Event()

    class SlowMetrics:
        def render(self, accept: str = "") -> tuple[bytes, str]:
            scraping.set()
            release.wait(PATIENCE)
            return b"", "text/plain"

    with served(make_app(DataDesk(VIEW), SlowMetrics())) as site, ThreadPoolExecutor(1) as pool:
        scrape = pool.submit(site.get, "/metrics")
        try:
            assert scraping.wait(PATIENCE)
            assert site.get("/livez")[0] == 200
        finally:
            release.set()
        assert scrape.result(PATIENCE)[0] == 200


def test_scrapes_under_load_end_in_time() -> None:
    """M13: scrapes from several sides while events pour in each end within two seconds, and no event is lost."""
    views = [replace(VIEW, name=f"c{number:03}") for number in range(200)]
    desk = DataDesk(*views)
    metrics, over = Metrics(desk, 500, FixedClock(NOW)), threading.Event()

    def pour() -> int:
        rounds = 0
        while not over.wait(0.001):
            for view in views[:20]:
                metrics.notify(RefreshFinished(view.name, "granted", None, "", 0.1, rounds, 0))
                metrics.notify(SaveFinished(view.name, None, 0.001, holds_new_pair=True))
                metrics.notify(PublishFinished(view.name, "file", None, rounds, 0.001, 0))
            rounds += 1
        return 20 * rounds

    def saves(page: bytes) -> float:
        return float(page.partition(b'rotator_saves_total{outcome="success"} ')[2].split()[0])

    with served(make_app(desk, metrics)) as site, ThreadPoolExecutor(6) as pool:
        try:
            pouring = [pool.submit(pour) for _ in range(2)]
            scrapes = [pool.submit(site.get, "/metrics", 2.0) for _ in range(8)]
            pages = [scrape.result(PATIENCE) for scrape in scrapes]
        finally:
            over.set()
        assert [status for status, _, _ in pages] == [200] * 8
        assert len({saves(page) for _, _, page in pages}) > 1
        assert saves(site.get("/metrics")[2]) == sum(each.result(PATIENCE) for each in pouring)


# -- start and stop --------------------------------------------------------------------------------------


def test_a_port_in_use_is_told() -> None:
    """M10: a port that somebody else listens at is a Problem that names the address and the cure."""
    first = listen("127.0.0.1", 0)
    assert isinstance(first, socket.socket)
    with first:
        port = first.getsockname()[1]
        expected = (
            f"cannot listen at 127.0.0.1:{port}: Address already in use; another program listens there; stop it or"
        )
        second = listen("127.0.0.1", port)
        assert isinstance(second, Problem)
        assert second == Problem(Reason.BAD_INPUT, f"{expected} choose another port")


def test_an_address_that_is_not_ours_is_told() -> None:
    """M10: an address of another machine, and a name that is none, are Problems too."""
    foreign = listen("192.0.2.1", 9)
    assert isinstance(foreign, Problem)
    assert foreign.text.startswith("cannot listen at 192.0.2.1:9: ")
    nowhere = listen("no such host", 9)
    assert isinstance(nowhere, Problem)
    assert nowhere.text.startswith("cannot listen at no such host:9: ")
    assert nowhere.text.endswith("check the host")


def test_ten_restarts_in_a_row_all_bind() -> None:
    """M11: a port whose last connections linger can be listened at again at once."""
    port = 0
    started = time.monotonic()
    for _ in range(10):
        listener = listen("127.0.0.1", port)
        assert isinstance(listener, socket.socket), listener
        port = listener.getsockname()[1]

        async def once(listener: socket.socket = listener, port: int = port) -> bytes:
            server = Server(app_of(DataDesk(VIEW)), listener)
            await server.start()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await reader.readline()
            await server.stop()  # the server closes first: its side of the connection lingers
            writer.close()
            return answer

        assert asyncio.run(once()) == b"HTTP/1.1 200 OK\r\n"
    assert time.monotonic() - started < 5


def test_stop_ends_within_a_second() -> None:
    """Invariant 13: neither idle, slow nor never-ending clients hold up the end."""

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.01)

    with served(endless) as site, contextlib.ExitStack() as stack:
        for sent in (b"", b"GET / HT"):
            stack.enter_context(site.connect(sent))
        client = stack.enter_context(site.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        assert client.recv(1)
        assert site.stop() < 5
        assert ended(client)
        with pytest.raises(ConnectionRefusedError):
            site.connect()


def test_stop_lets_an_answer_end() -> None:
    """Who was being served gets the whole answer."""
    asked, release = threading.Event(), threading.Event()

    class SlowMetrics:
        def render(self, accept: str = "") -> tuple[bytes, str]:
            asked.set()
            release.wait(PATIENCE)
            return b"all of it", "text/plain"

    with served(make_app(DataDesk(VIEW), SlowMetrics())) as site, ThreadPoolExecutor(2) as pool:
        scrape = pool.submit(site.get, "/metrics")
        assert asked.wait(PATIENCE)
        stopped = pool.submit(site.stop)
        deadline = time.monotonic() + PATIENCE
        while site.server._limits.connections and time.monotonic() < deadline:
            time.sleep(0.01)  # until it stops
        release.set()
        assert scrape.result(PATIENCE) == (200, "text/plain", b"all of it")
        assert stopped.result(PATIENCE) < 5


def test_signals_stay_the_daemons() -> None:
    """The server leaves SIGTERM and SIGINT to the daemon, whose drain comes first."""

    def found() -> list[object]:
        return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    async def run() -> tuple[list[object], list[object]]:
        before = found()
        listener = listen("127.0.0.1", 0)
        assert isinstance(listener, socket.socket)
        server = Server(app_of(DataDesk(VIEW)), listener)
        await server.start()
        during = found()
        await server.stop()
        return before, during

    before, during = asyncio.run(run())
    assert during == before


def test_a_unix_socket_is_served_too(tmp_path: Path) -> None:
    """The control socket's pages run on the same server."""

    async def run() -> bytes:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.setblocking(False)
        server = Server(app_of(DataDesk(VIEW)), listener)
        await server.start()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await server.stop()
        return answer

    assert asyncio.run(run()).startswith(b"HTTP/1.1 200 ")
