"""The commands while a daemon runs: through its control socket."""

import json
import signal
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

from rotator.adapters.control_client import ControlClient
from rotator.sandbox.server import SandboxServer
from tests.cli.conftest import PASSWORD, USERNAME, Place, wait_for
from tests.process.rig import PATIENCE, answered_within
from tests.secrets_scan import planted

HEAVY = ("apscheduler", "httpx", "prometheus_client", "pydantic", "starlette", "tenacity", "uvicorn")


def test_a_whole_day_with_a_daemon(rotator: Place, server: SandboxServer) -> None:
    """Login, status, token and rotation go through the socket; the password is used once."""
    with rotator.daemon():
        assert rotator("status").code == 69
        login = rotator.login()
        assert (login.code, login.err) == (0, "")
        assert login.out.startswith("home: logged in, generation 1\n")
        assert rotator.output.read_text() in rotator.tokens()
        status = rotator("status")
        assert (status.code, status.err) == (0, "")
        assert status.out.startswith("home: valid, generation 1\n  access token:  59 min left of 60 min\n")
        rotation = rotator("rotate", "home")
        assert rotation.out == "home: rotated, generation 2; access token: 59 min left of 60 min\n"
        wait_for(lambda: rotator("token", "home", shows_token=True).out == rotator.output.read_text() + "\n")
        assert rotator("rotate", "--all").code == 0
        assert json.loads(rotator("status", "home", "--json").out)["credentials"][0]["generation"] == 3
    assert server.sandbox.books.password_grants == 1
    assert server.sandbox.books.refresh_grants == 2
    assert not rotator.socket.exists()


def test_the_control_socket_is_for_owner_and_group(rotator: Place) -> None:
    """The socket has mode 0660."""
    with rotator.daemon():
        assert stat.S_IMODE(rotator.socket.stat().st_mode) == 0o660


def test_pairs_from_stdin_reach_the_daemon(rotator: Place, server: SandboxServer) -> None:
    """A token answer or a bare refresh token is taken over while the daemon runs."""
    pair = server.sandbox.issue(USERNAME)
    with rotator.daemon():
        assert rotator("login", "home", "--from-stdin", stdin=json.dumps(pair)).code == 0
        assert rotator.output.read_text() == pair["access_token"]
        bare = server.sandbox.issue(USERNAME)
        run = rotator("login", "home", "--from-stdin", stdin=str(bare["refresh_token"]))
        assert run.code == 0
        wait_for(lambda: rotator.output.read_text() in rotator.tokens() - {pair["access_token"]})


def test_a_wrong_password_and_a_wrong_name_are_one_line(rotator: Place) -> None:
    """Failures come through the socket with reason and cure."""
    with rotator.daemon():
        wrong = rotator("login", "home", "--username", USERNAME, "--password-stdin", stdin=planted("wrong"))
        assert wrong.code == 77
        assert len(wrong.lines) == 1
        assert wrong.err.endswith("; check user name and password\n")
        for command in ("status", "token", "rotate"):
            run = rotator(command, "hom")
            assert (run.code, run.lines) == (64, ["rotator: no credential is named 'hom'; did you mean home?"])
        assert rotator("token", "home").lines == ["rotator: home has no access token yet; see: rotator status home"]


def test_status_and_token_answer_at_once_while_a_token_call_hangs(rotator: Place, server: SandboxServer) -> None:
    """E11: a server that never answers holds up the rotation that waits for it and nothing else."""
    with rotator.daemon():
        rotator.login()
        server.sandbox.script(["hang"])
        run = rotator("rotate", "home", "--timeout", "0.5")
        assert run.code == 75
        assert run.lines == ["rotator: home: still under way after 0.5 s, and goes on; see rotator status"]
        client = ControlClient(rotator.socket, PATIENCE)
        for path in ("/v1/status", "/v1/token/home", "/v1/health"):
            assert isinstance(answered_within(1, partial(client.get, path)), dict)
        assert "next:          a refresh is under way" in rotator("status").out
        server.sandbox.change()


def test_a_login_during_a_hanging_refresh_is_not_held_up(rotator: Place, server: SandboxServer) -> None:
    """E11: a person can log in while the old refresh token's request hangs."""
    with rotator.daemon():
        rotator.login()
        server.sandbox.script(["hang"])
        rotator("rotate", "home", "--timeout", "0.3")
        run = rotator.login()
        assert (run.code, run.err) == (0, "")
        assert run.out.startswith("home: logged in, generation 2\n")
        server.sandbox.change()


def test_status_imports_nothing_heavy(rotator: Place) -> None:
    """A running daemon's status is shown without loading what only the daemon needs."""
    code = (
        "import sys; from rotator.cli import main; main(sys.argv[1:]); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    with rotator.daemon():
        command = [sys.executable, "-c", code, "-c", str(rotator.config), "status"]
        done = subprocess.run(command, capture_output=True, text=True, env=rotator.environ, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_socket_is_found_without_a_whole_configuration(rotator: Place) -> None:
    """I8: a configuration that was broken, or may not be read, since the start does not hide the daemon."""
    rotator.environment["RUNTIME_DIRECTORY"] = str(rotator.socket.parent)
    with rotator.daemon():
        text = rotator.config.read_text()
        rotator.config.write_text(text.replace("[metrics]", "[metrics]\nno_such_key = 1"))
        assert "home: login_required" in rotator("status").out
        rotator.config.unlink()
        assert "home: login_required" in rotator("status").out


def test_reload_takes_a_good_configuration_and_refuses_a_bad_one(rotator: Place) -> None:
    """A refused reload tells each error and changes nothing."""
    with rotator.daemon():
        rotator.configure("[credentials.away]")
        reloaded = rotator("reload")
        assert (reloaded.code, reloaded.out, reloaded.err) == (0, "reloaded\n", "")
        assert "away: login_required" in rotator("status").out
        rotator.configure("no_such_key = 1")
        refused = rotator("reload")
        assert refused.code == 78
        assert "credentials.home.no_such_key: is not a known key" in refused.lines[0]
        assert refused.lines[-1] == "rotator: not reloaded; the daemon goes on as before"
        assert "away: login_required" in rotator("status").out


def test_reload_without_a_daemon_says_so(rotator: Place) -> None:
    """There is nothing to reload."""
    run = rotator("reload")
    assert (run.code, run.lines) == (69, [f"rotator: no daemon listens at {rotator.socket}; start it: rotator run"])


def test_a_stopped_daemon_is_told_from_none(rotator: Place) -> None:
    """A daemon that does not answer is given up on in time, and the state is not touched behind its back."""
    with rotator.daemon() as process:
        process.send_signal(signal.SIGSTOP)
        run = rotator("status", "--timeout", "0.5")
        process.send_signal(signal.SIGCONT)
    assert run.code == 69
    assert run.lines == [
        f"rotator: the daemon at {rotator.socket} gives no good answer within 0.5 s; look into its log, restart it"
    ]


def test_a_second_daemon_names_the_first(rotator: Place) -> None:
    """Two daemons on one state directory: the second ends with the first one's process id."""
    with rotator.daemon() as process:
        run = rotator("run")
        assert run.code != 0
        assert f"in use by another rotator, process {process.pid}" in run.lines[-1]
        assert rotator("status").err == ""


def test_a_killed_daemon_leaves_nothing_in_the_way(rotator: Place) -> None:
    """C24: after kill -9 the commands work on the state, and the next daemon starts."""
    process = subprocess.Popen(rotator.command("run"), stderr=subprocess.DEVNULL, env=rotator.environ)
    client = ControlClient(rotator.socket, PATIENCE)
    wait_for(lambda: isinstance(client.get("/v1/version"), dict))
    rotator.login()
    process.kill()
    process.wait()
    assert rotator.socket.exists()
    assert rotator("status").code == 0
    with rotator.daemon():
        assert rotator("status").err == ""


def test_a_taken_metrics_port_stops_the_start(rotator: Place, server: SandboxServer) -> None:
    """The address and the cure are named; with `optional` the daemon runs without."""
    rotator.configure(metrics=f'listen = "{server.host}:{server.port}"')
    run = rotator("run")
    assert run.code == 73
    assert f"metrics.listen: cannot listen at {server.host}:{server.port}: Address already in use" in run.lines[-1]
    rotator.configure(metrics=f'listen = "{server.host}:{server.port}"\noptional = true')
    with rotator.daemon():
        assert rotator.login().code == 0


def test_a_control_socket_that_cannot_be_is_no_reason_to_let_tokens_lapse(rotator: Place) -> None:
    """Without its socket the daemon still publishes; the log says why there is none."""
    rotator.login()
    rotator.output.unlink()
    rotator.configure(daemon=f'control_socket = "{rotator.directory}/none/socket"')
    log = rotator.directory / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(rotator.command("run"), stderr=stderr, env=rotator.environ)
        try:
            wait_for(rotator.output.exists)
            assert "control_unavailable" in log.read_text()
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0


def test_ctrl_c_ends_the_daemon_without_noise(rotator: Place) -> None:
    """SIGINT is an ordinary end."""
    with rotator.daemon() as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def test_the_password_is_in_no_argument_vector(rotator: Place, server: SandboxServer) -> None:
    """While a login waits for its answer, the process list shows no password."""
    with rotator.daemon():
        server.sandbox.script(["hang"])
        command = rotator.command("login", "home", "--username", USERNAME, "--password-stdin")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
            env=rotator.environ,
        ) as login:  # fmt: skip
            assert login.stdin is not None
            login.stdin.write(PASSWORD + "\n")
            login.stdin.close()
            wait_for(lambda: server.sandbox.script_left == [])
            for name in ("cmdline", "environ"):
                assert PASSWORD.encode() not in Path(f"/proc/{login.pid}/{name}").read_bytes()
            login.kill()
        server.sandbox.change()
