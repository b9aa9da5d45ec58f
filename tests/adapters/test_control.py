"""The control socket: its answers, its patience, and a client's view of a sick daemon."""

import asyncio
import contextlib
import itertools
import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rotator.adapters.control import make_control_app, open_control_socket
from rotator.adapters.control_client import (
    DENIED,
    NO_ANSWER,
    NO_DAEMON,
    UNDER_WAY,
    ControlClient,
    ControlProblem,
    path_of,
)
from rotator.adapters.serve import Server
from rotator.core.model import Reason, TokenSet
from rotator.core.standing import CredentialView
from rotator.ports import Problem, Readiness
from tests.desk import NOW, VIEW, DataDesk
from tests.needs import needs
from tests.process.rig import PATIENCE, answered_within
from tests.secrets_scan import assert_no_secrets, planted

TOKENS = TokenSet(
    4, planted("access"), planted("refresh"), planted("id"), "Bearer", "openid", NOW - 600, NOW + 3000, NOW, None
)


class HeldDesk(DataDesk):
    """A desk whose work hangs until `release` is set, and ends in `result`."""

    def __init__(self) -> None:
        super().__init__(VIEW)
        self.token_sets = {"web": TOKENS}
        self.result: CredentialView | Problem = replace(VIEW, generation=5)
        self.release = threading.Event()
        self.secrets: list[tuple[str, ...]] = []

    async def _work(self, *asked: str) -> CredentialView | Problem:
        self.asked.append((asked[0], asked[1]))
        self.secrets.append(asked[2:])
        await asyncio.to_thread(self.release.wait)
        return self.result

    async def rotate(self, name: str) -> CredentialView | Problem:
        """Hang, then answer."""
        return await self._work("rotate", name)

    async def login(self, name: str, username: str, password: str) -> CredentialView | Problem:
        """Hang, then answer."""
        return await self._work("login", name, username, password)

    async def adopt(self, name: str, pair: str) -> CredentialView | Problem:
        """Hang, then answer."""
        return await self._work("adopt", name, pair)

    async def reload(self) -> tuple[str, ...]:
        """Hang, then find fault."""
        await self._work("reload", "")
        return ("rotator.toml:3: metrics.listen: must be host:port",)


@contextlib.contextmanager
def served(desk: HeldDesk, path: Path) -> Iterator[ControlClient]:
    """Serve a desk at `path` until the end of the block."""
    listener = open_control_socket(path, None)
    assert isinstance(listener, socket.socket), listener
    ready, end = threading.Event(), threading.Event()

    async def serve() -> None:
        server = Server(make_control_app(desk, "1.2.3"), listener)
        await server.start()
        ready.set()
        await asyncio.to_thread(end.wait)
        await server.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield ControlClient(path, PATIENCE)
    finally:
        desk.release.set()
        end.set()
        thread.join(PATIENCE)


@pytest.fixture
def desk() -> HeldDesk:
    """A desk that answers at once until `release` is cleared."""
    desk = HeldDesk()
    desk.release.set()
    return desk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket is."""
    return tmp_path / "control.sock"


@pytest.fixture
def client(desk: HeldDesk, path: Path) -> Iterator[ControlClient]:
    """A client of a daemon that works."""
    with served(desk, path) as client:
        yield client


def good(answer: object) -> dict[str, Any]:
    """Return a good answer as it is."""
    assert isinstance(answer, dict), answer
    return answer


def test_status_shows_every_credential(desk: HeldDesk, client: ControlClient) -> None:
    """All views come in one answer, however many there are."""
    desk.credentials = {f"user-{n}": replace(VIEW, name=f"user-{n}") for n in range(1001)}
    views = good(client.get("/v1/status"))["credentials"]
    assert [view["name"] for view in views] == sorted(desk.credentials)
    assert views[0]["expires_at"] == NOW + 3000
    assert good(client.get("/v1/status/user-7"))["credentials"][0]["name"] == "user-7"


def test_no_credentials_is_a_good_answer(desk: HeldDesk, client: ControlClient) -> None:
    """An empty configuration has an empty status."""
    desk.credentials = {}
    assert client.get("/v1/status") == {"credentials": []}


def test_token_hands_out_all_but_the_refresh_token(client: ControlClient) -> None:
    """The access token and the id token are given, the refresh token never."""
    answer = good(client.get("/v1/token/web"))
    assert answer["access_token"] == planted("access")
    assert answer["id_token"] == planted("id")
    assert answer["expires_at"] == NOW + 3000
    assert planted("refresh") not in json.dumps(answer)


def test_no_answer_but_the_token_holds_a_secret(client: ControlClient) -> None:
    """Status, health and version can be shown to anybody."""
    for place in ("/v1/status", "/v1/status/web", "/v1/health", "/v1/readiness", "/v1/version"):
        assert_no_secrets(json.dumps(client.get(place)))


def test_readiness_is_told_with_what_is_lacking(desk: HeldDesk, client: ControlClient) -> None:
    """One credential is ready, or there is one line that says what it lacks."""
    assert client.get("/v1/ready/web") == {"ready": True, "why": ""}
    desk.lacks["web"] = "web: no valid token yet"
    assert client.get("/v1/ready/web") == {"ready": False, "why": "web: no valid token yet"}
    assert isinstance(client.get("/v1/ready/other"), ControlProblem)


def test_a_credential_without_token_says_what_to_do(desk: HeldDesk, client: ControlClient) -> None:
    """No token yet is a failure with the reason of the credential."""
    desk.token_sets = {}
    assert client.get("/v1/token/web") == ControlProblem(
        "login_required", "web has no access token yet; see: rotator status web"
    )


def test_an_unknown_name_is_answered_with_the_nearest(client: ControlClient) -> None:
    """A typing error is told from a missing configuration."""
    expected = ControlProblem("unknown_credential", "no credential is named 'wbe'; did you mean web?")
    assert client.get("/v1/status/wbe") == expected
    assert client.post(path_of("rotate", "wbe")) == expected
    far = client.get(path_of("token", "../a b"))
    assert isinstance(far, ControlProblem)
    assert far.reason == "unknown_credential"


def test_rotate_gives_the_new_view(desk: HeldDesk, client: ControlClient) -> None:
    """The answer comes when the rotation is over."""
    assert good(client.post("/v1/rotate/web"))["credentials"][0]["generation"] == 5
    assert desk.asked == [("rotate", "web")]


def test_a_problem_comes_through_as_it_is(desk: HeldDesk, client: ControlClient) -> None:
    """Reason and text of the daemon reach the person unchanged."""
    desk.result = Problem(Reason.INVALID_GRANT, "login refused: invalid_grant; check user name and password")
    assert client.post("/v1/rotate/web") == ControlProblem(desk.result.reason, desk.result.text)


def test_login_and_adopt_hand_their_secrets_to_the_desk_alone(
    desk: HeldDesk, client: ControlClient, capfd: pytest.CaptureFixture[str]
) -> None:
    """User name, password and pair reach the daemon and no log."""
    body = {"username": planted("user"), "password": planted("password ö ")}
    good(client.post("/v1/login/web", body))
    good(client.post("/v1/adopt/web", {"pair": planted("pair")}))
    assert desk.asked == [("login", "web"), ("adopt", "web")]
    assert desk.secrets == [(planted("user"), planted("password ö ")), (planted("pair"),)]
    assert_no_secrets(*capfd.readouterr())


@pytest.mark.parametrize(
    "body",
    [{}, {"username": "u"}, {"username": "u", "password": 7}, {"username": "", "password": "p"}],
)
def test_an_incomplete_login_is_refused(desk: HeldDesk, client: ControlClient, body: dict[str, Any]) -> None:
    """What is missing is named, what was sent is not shown."""
    text = "the request must be a JSON object with username and password, not empty"
    assert client.post("/v1/login/web", body) == ControlProblem("bad_request", text)
    assert desk.asked == []


def raw(path: Path, request: bytes) -> bytes:
    """Send bytes and return the answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b"[" * 60_000, b""])
def test_rubbish_is_refused_without_repeating_it(client: ControlClient, path: Path, body: bytes) -> None:
    """A body that is no JSON object is one line of error."""
    head = b"POST /v1/adopt/web HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    answer = raw(path, head % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"must be a JSON object with pair" in answer


def test_a_large_body_is_refused(desk: HeldDesk, client: ControlClient) -> None:
    """More than 64 KiB is not read."""
    answer = client.post("/v1/adopt/web", {"pair": "x" * 70_000})
    assert answer == ControlProblem("too_large", "the request is larger than 64 KiB")
    assert desk.asked == []


def test_an_unknown_place_points_at_the_version(client: ControlClient) -> None:
    """An older daemon that lacks a command says so."""
    answer = client.get("/v9/status")
    assert isinstance(answer, ControlProblem)
    assert answer.text == "Not Found; are this command and the daemon of the same version?"


def test_every_answer_comes_within_a_second_while_work_hangs(desk: HeldDesk, client: ControlClient) -> None:
    """E11: a token call that hangs holds up neither status nor the answer to a rotation."""
    desk.release.clear()
    short = ControlClient(client._path, 0.01)
    assert short._exchange("POST", "/v1/rotate/web?wait=0") is not None
    assert answered_within(1, lambda: client._exchange("POST", "/v1/rotate/web?wait=60"))
    assert answered_within(1, lambda: good(client.get("/v1/status")))
    assert answered_within(1, lambda: good(client.get("/v1/token/web")))


def test_the_client_waits_as_long_as_it_was_told(desk: HeldDesk, client: ControlClient) -> None:
    """E11: when its own time is over it says that the work goes on."""
    desk.release.clear()
    answer = ControlClient(client._path, 1.0).post("/v1/rotate/web")
    assert answer == ControlProblem(UNDER_WAY, "still under way after 1 s, and goes on; see rotator status")


def test_a_long_rotation_is_waited_for(desk: HeldDesk, client: ControlClient) -> None:
    """A rotation that takes longer than one answer may is fetched by its ticket."""
    desk.release.clear()
    threading.Timer(1.2, desk.release.set).start()
    assert good(client.post("/v1/rotate/web"))["credentials"][0]["generation"] == 5
    assert len(desk.asked) == 1


def test_many_rotations_run_side_by_side(desk: HeldDesk, client: ControlClient) -> None:
    """`rotate --all` does not wait for one before it asks for the next."""
    desk.credentials = {f"user-{n}": replace(VIEW, name=f"user-{n}") for n in range(40)}
    desk.release.clear()
    threading.Timer(0.5, desk.release.set).start()
    paths = [path_of("rotate", name) for name in desk.credentials]
    answers = list(client.post_all(paths))
    assert [path for path, _ in answers] == paths
    assert all(isinstance(answer, dict) for _, answer in answers)
    assert sorted(name for _, name in desk.asked) == sorted(desk.credentials)


def test_a_large_fleet_is_rotated_in_one_go(desk: HeldDesk, client: ControlClient) -> None:
    """`rotate --all` of more credentials than may be under way at once: what is done leaves its place."""
    answers = client.post_all(itertools.repeat("/v1/rotate/web", 1010))
    assert [path for path, answer in answers if isinstance(answer, ControlProblem)] == []


def test_an_unknown_ticket_is_no_puzzle(client: ControlClient) -> None:
    """After a restart of the daemon the caller is told to ask anew."""
    answer = client.get("/v1/tickets/feed")
    assert isinstance(answer, ControlProblem)
    assert answer.reason == "unknown_ticket"


def test_reload_tells_what_is_wrong(client: ControlClient) -> None:
    """Each error of the configuration is a line."""
    expected = {"problems": ["rotator.toml:3: metrics.listen: must be host:port"]}
    assert client.post("/v1/reload") == expected


def test_health_and_version(desk: HeldDesk, client: ControlClient) -> None:
    """Health is that of the probes; the version tells which daemon answers."""
    desk.served = Readiness(ready=False, reasons=("web: dns",), credentials=1)
    assert good(client.get("/v1/health")) == {"live": True, "sweep_age_seconds": 0.5}
    assert good(client.get("/v1/readiness"))["reasons"] == ["web: dns"]
    assert client.get("/v1/version") == {"version": "1.2.3", "pid": os.getpid()}


# -- the client without a daemon that is well -----------------------------------------------------


def test_no_daemon_is_told_from_a_silent_one(path: Path) -> None:
    """C24: a socket file that a killed daemon left means the same as none at all."""
    expected = ControlProblem(NO_DAEMON, f"no daemon listens at {path}; start it: rotator run")
    assert ControlClient(path, 1).get("/v1/status") == expected
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert ControlClient(path, 1).get("/v1/status") == expected


def test_a_silent_daemon_is_given_up_on(path: Path) -> None:
    """A stopped daemon takes connections and answers none."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        answer = ControlClient(path, 0.2).get("/v1/status")
        assert isinstance(answer, ControlProblem)
        assert answer.reason == NO_ANSWER
        assert "gives no good answer within 0.2 s; look into its log" in answer.text


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\n\r\nno", b"HTTP/1.1 200 OK\r\n\r\n[]", b"\0"])
def test_something_else_at_the_socket_is_no_crash(path: Path, reply: bytes) -> None:
    """Whatever answers there, the client says that it is no good answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        answer = ControlClient(path, 2).get("/v1/status")
        thread.join()
    assert isinstance(answer, ControlProblem)
    assert answer.reason == NO_ANSWER


def test_a_stranger_is_told_which_group_to_join() -> None:
    """Permission denied names the group of the socket."""
    needs("root")
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = Path(directory, "socket")
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        Path(directory).chmod(0o755)
        os.seteuid(65534)
        try:
            answer = ControlClient(path, 1).get("/v1/status")
        finally:
            os.seteuid(0)
    assert isinstance(answer, ControlProblem)
    assert answer.reason == DENIED
    assert answer.text.endswith("; join its group (usermod -aG root USER) and log in anew")


# -- the socket itself ----------------------------------------------------------------------------


def test_the_socket_is_for_owner_and_group(path: Path) -> None:
    """Mode 0660 and the group asked for, whatever the umask."""
    before = os.umask(0)
    try:
        listener = open_control_socket(path, os.getgid())
    finally:
        os.umask(before)
    assert isinstance(listener, socket.socket)
    listener.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert list(path.parent.iterdir()) == [path]


def test_a_socket_left_behind_is_replaced_and_a_living_one_is_not(path: Path) -> None:
    """C24: a killed daemon's socket is no obstacle; a running daemon keeps its own."""
    first = open_control_socket(path, None)
    assert isinstance(first, socket.socket)
    second = open_control_socket(path, None)
    assert second == f"cannot listen at {path}: another rotator does; stop it, or set daemon.control_socket"
    first.close()
    third = open_control_socket(path, None)
    assert isinstance(third, socket.socket)
    third.close()


def test_a_socket_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A missing directory and a path that is too long each name the cure."""
    missing = open_control_socket(tmp_path / "none" / "s", None)
    why = "No such file or directory; check its directory and its owner"
    assert missing == f"cannot listen at {tmp_path}/none/s: {why}"
    long = open_control_socket(tmp_path / ("x" * 120), None)
    assert isinstance(long, str)
    assert long.endswith("; configure a shorter daemon.control_socket")
