"""The commands without a daemon: on the state directory, under its lock."""

import contextlib
import json
import signal
import subprocess
import time

import pytest

from rotator.adapters.file_store import FileStore
from rotator.core.model import Fingerprinter
from rotator.sandbox.server import SandboxServer
from tests.cli.conftest import PASSWORD, USERNAME, Place
from tests.process.rig import PATIENCE, wait_until
from tests.samples import jwt
from tests.secrets_scan import planted

NO_DAEMON = "rotator: no daemon is running; this is what it left behind. Start it: rotator run"


def test_login_gets_saves_and_publishes_the_first_tokens(rotator: Place, server: SandboxServer) -> None:
    """A first login leaves a saved pair and a current output; user name and password are kept nowhere."""
    run = rotator.login()
    assert (run.code, run.err) == (0, "")
    assert run.out.splitlines() == [
        "home: logged in, generation 1",
        "  access token:  59 min left of 60 min",
        "  refresh token: 29 days left",
        f"  output:        {rotator.output}: current",
    ]
    assert rotator.output.read_text() in rotator.tokens()
    assert server.sandbox.books.password_grants == 1
    for path in rotator.directory.rglob("*"):
        if path.is_file():
            assert USERNAME.encode() not in path.read_bytes()
            assert PASSWORD.encode() not in path.read_bytes()


def test_a_login_tells_what_was_odd_about_its_answer(rotator: Place, server: SandboxServer) -> None:
    """A4: whoever logs in is the first to hear that the server names no lifetime."""
    server.sandbox.change(odd="expires_in_missing")
    run = rotator.login()
    assert run.code == 0
    assert run.err == (
        "rotator: home: expires_in is missing; assumed_lifetime counts: set it to what the server grants\n"
    )


def test_a_later_login_goes_on_from_the_saved_generation(rotator: Place) -> None:
    """Logging in again replaces the tokens; nothing earlier is lost."""
    rotator.login()
    earlier = rotator.tokens()
    assert rotator.login().out.startswith("home: logged in, generation 2\n")
    assert {token for token in earlier if token in rotator.tokens()} != set()


def test_a_wrong_password_is_one_line(rotator: Place) -> None:
    """The server's refusal says what to check and shows neither name nor password."""
    run = rotator("login", "home", "--username", USERNAME, "--password-stdin", stdin=planted("wrong"))
    assert run.code == 77
    (line,) = run.lines
    assert line.startswith("rotator: login refused: ")
    assert line.endswith("; check user name and password")


def test_a_bare_refresh_token_is_tried_out_at_once(rotator: Place, server: SandboxServer) -> None:
    """`--from-stdin` with a refresh token alone refreshes and publishes."""
    pair = server.sandbox.issue(USERNAME)
    run = rotator("login", "home", "--from-stdin", stdin=str(pair["refresh_token"]) + "\n")
    assert (run.code, run.err) == (0, "")
    assert rotator.output.read_text() not in ("", pair["access_token"])
    assert server.sandbox.books.refresh_grants == 1


def test_a_token_answer_is_taken_over_as_it_is(rotator: Place, server: SandboxServer) -> None:
    """`--from-stdin` with a whole answer spends nothing."""
    pair = server.sandbox.issue(USERNAME)
    assert rotator("login", "home", "--from-stdin", stdin=json.dumps(pair)).code == 0
    assert rotator.output.read_text() == pair["access_token"]
    assert server.sandbox.books.refresh_grants == 0


def test_an_old_token_answer_is_not_believed_fresh(rotator: Place, server: SandboxServer) -> None:
    """A46: an answer handed in long after it was given: its JWT ends when it says, whatever `expires_in` says."""
    now = time.time()
    pair = server.sandbox.issue(USERNAME) | {"access_token": jwt(iat=now - 1800, exp=now + 1800)}
    assert "  access token:  29 min left of " in rotator("login", "home", "--from-stdin", stdin=json.dumps(pair)).out


def test_a_dead_refresh_token_from_stdin_is_told(rotator: Place) -> None:
    """A refresh token that the server refuses ends in exit code 77 and the server's words."""
    run = rotator("login", "home", "--from-stdin", stdin=planted("dead"))
    assert run.code == 77
    assert "home: tokens taken over, but invalid_grant: " in run.err


def test_rubbish_from_stdin_is_refused_unseen(rotator: Place) -> None:
    """What is no token is told from one before anything is sent, and is not repeated."""
    run = rotator("login", "home", "--from-stdin", stdin=f"two words {planted('x')}")
    assert run.code == 65
    why = "a refresh token holds no blanks or control characters; was more than the token pasted?"
    assert run.lines == [f"rotator: standard input: {why}"]
    run = rotator("login", "home", "--from-stdin", stdin="x" * 70_000)
    assert (run.code, run.lines) == (65, ["rotator: standard input: it is larger than 60 kB"])


def test_without_a_terminal_no_password_is_asked_for(rotator: Place) -> None:
    """A script that forgot --password-stdin ends at once with the cure."""
    run = rotator("login", "home")
    assert run.code == 66
    assert run.lines == ["rotator: there is no terminal to ask for the password; use --username and --password-stdin"]


def test_a_misspelt_name_is_told_before_a_password_is_read(rotator: Place) -> None:
    """The nearest name is named."""
    run = rotator("login", "hom", "--username", USERNAME, "--password-stdin", stdin=PASSWORD)
    assert (run.code, run.lines) == (64, ["rotator: no credential is named 'hom'; did you mean home?"])


def test_status_before_a_login_says_what_to_do(rotator: Place) -> None:
    """B32: both clocks, next step and outputs are in plain words."""
    run = rotator("status")
    assert (run.code, run.lines) == (69, [NO_DAEMON])
    assert run.out.splitlines() == [
        "home: login_required, no token yet",
        "  access token:  none yet",
        "  refresh token: none yet",
        "  next:          log in: rotator login home",
        "  last error:    none",
        f"  output:        {rotator.output}: not yet",
    ]


def test_status_tells_the_two_clocks_apart(rotator: Place) -> None:
    """B3, B32: the hour of the access token and the days of the refresh token, with fingerprint, have a line each."""
    rotator.login()
    run = rotator("status", "home")
    assert (run.code, run.lines) == (0, [NO_DAEMON])
    lines = run.out.splitlines()
    fingerprint = Fingerprinter((rotator.state / ".fingerprint-key").read_bytes())
    stored = json.loads((rotator.state / "home.json").read_text())["state"]["tokens"]["refresh_token"]
    assert lines[:3] == [
        "home: valid, generation 1",
        "  access token:  59 min left of 60 min",
        f"  refresh token: 29 days left, fingerprint {fingerprint(stored)}",
    ]
    assert lines[3].startswith("  next:          refresh in 3")
    assert lines[4:] == ["  last error:    none", f"  output:        {rotator.output}: current"]


def test_status_as_json_has_each_instant_twice(rotator: Place) -> None:
    """`--json` gives seconds since the epoch for programs and ISO 8601 for people."""
    rotator.login()
    document = json.loads(rotator("status", "--json").out)
    (view,) = document["credentials"]
    assert abs(view["expires_at"] - time.time() - 3600) < 60
    assert view["expires_at_iso"].endswith("Z")
    assert view["outputs"][0]["delivered_at_iso"] is not None
    assert view["standing"] == "valid"


def test_status_needs_no_secret(rotator: Place) -> None:
    """I8: outside the unit the credentials of systemd are not there, and status works."""
    rotator.login()
    rotator.config.write_text(
        rotator.config.read_text().replace(f'{{ file = "{rotator.directory}/secret" }}', '{ credential = "secret" }')
    )
    assert rotator("status").code == 0
    assert rotator("token", "home", shows_token=True).code == 0


@pytest.mark.parametrize("key", ["proxy", "token_url", "client_id", "ca_file"])
def test_what_the_daemon_alone_can_read_hides_no_state(rotator: Place, key: str) -> None:
    """I8: outside the unit there are no systemd credentials; status and token send nothing and do without."""
    rotator.login()
    rotator.configure(f'{key} = {{ credential = "{key}" }}')
    assert rotator("status").code == 0
    assert rotator("token", "home", shows_token=True).code == 0
    refused = rotator("rotate", "home")
    assert refused.code == 78
    assert f"credentials.home.{key}: systemd credential {key} cannot be found: " in refused.lines[-1]


def test_where_the_state_is_must_be_readable(rotator: Place) -> None:
    """I8: no other state is shown in the place of one that cannot be found."""
    rotator.login()
    text = rotator.config.read_text()
    rotator.config.write_text(text.replace(f'"{rotator.state}"', '{ credential = "place" }'))
    assert rotator("status").code == 78


def test_status_tells_a_damaged_state_from_none(rotator: Place) -> None:
    """A damaged state file is named with its cure; it is not taken for a first start."""
    rotator.login()
    (rotator.state / "home.json").write_text("{")
    run = rotator("status")
    assert run.code == 69
    assert run.out.startswith("home: state_unreadable, no token yet\n")
    assert "log in again (rotator login home)" in run.out


def test_token_prints_each_format(rotator: Place) -> None:
    """`token` writes what an output file of that format would hold."""
    rotator.login()
    raw = rotator("token", "home", shows_token=True)
    assert raw.out == rotator.output.read_text() + "\n"
    header = rotator("token", "home", "--format", "header", shows_token=True)
    assert header.out == f"Authorization: Bearer {raw.out}"
    assert f"ACCESS_TOKEN='{raw.out.strip()}'\n" in rotator("token", "home", "--format", "env", shows_token=True).out
    document = json.loads(rotator("token", "home", "--format", "json", shows_token=True).out)
    assert document["access_token"] == raw.out.strip()
    assert "refresh_token" not in document


def test_token_without_a_login_says_so(rotator: Place) -> None:
    """No token is no empty line."""
    run = rotator("token", "home")
    assert (run.code, run.out) == (77, "")
    assert run.lines == ["rotator: home has no access token yet; get one: rotator login home, then rotator run"]


def test_an_expired_token_is_not_printed(rotator: Place, server: SandboxServer) -> None:
    """A consumer gets an error with the reason to look for, not a token that is refused."""
    server.sandbox.change(access_lifetime=1)
    rotator.login()
    deadline = time.time() + 1.2
    while time.time() < deadline:
        time.sleep(0.05)
    run = rotator("token", "home")
    assert (run.code, run.out) == (75, "")
    assert run.lines[0].startswith("rotator: the access token of home expired ")
    assert run.lines[0].endswith(" s ago; see: rotator status home")


def test_rotate_works_without_a_daemon(rotator: Place, server: SandboxServer) -> None:
    """One request, saved and published."""
    rotator.login()
    run = rotator("rotate", "home")
    assert (run.code, run.err) == (0, "")
    assert run.out == "home: rotated, generation 2; access token: 59 min left of 60 min\n"
    assert server.sandbox.books.refresh_grants == 1
    assert rotator.output.read_text() in rotator.tokens()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_rotation_that_is_told_to_end_saves_its_answer(
    rotator: Place, server: SandboxServer, number: signal.Signals
) -> None:
    """B1: Ctrl-C, a stop or a closed terminal ends `rotate` after the answer is saved; nothing more is begun."""
    rotator.configure("[credentials.work]")
    rotator.login()
    server.sandbox.change(latency_seconds=1.0)
    with subprocess.Popen(
        rotator.command("rotate", "--all"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=rotator.environ,
    ) as running:  # fmt: skip
        wait_until(lambda: server.sandbox.authorization_server.requests_under_way > 0, "the request has arrived")
        running.send_signal(number)
        out, err = running.communicate(timeout=PATIENCE)
    assert out.startswith("home: rotated, generation 2; ")
    assert err == (
        "rotator: ending as soon as the request under way is answered and saved\n"
        "rotator: work: not rotated: rotator was told to end before its turn\n"
    )
    assert running.returncode == 75
    server.sandbox.change(latency_seconds=0.0)
    assert rotator("rotate", "home").out.startswith("home: rotated, generation 3; ")


@pytest.mark.parametrize("daemon", [False, True], ids=["offline", "daemon"])
def test_a_login_that_brings_no_refresh_token_takes_nothing_over(
    rotator: Place, server: SandboxServer, *, daemon: bool
) -> None:
    """A22: without one, what is stored would end with its access token; the cure names the scope that is missing."""
    rotator.login()
    before = rotator.tokens()
    with rotator.daemon() if daemon else contextlib.nullcontext():
        server.sandbox.script(["refresh_token_absent"])
        run = rotator.login()
        assert run.code == 78
        assert run.err.count("\n") == 1
        assert "the server gave an access token without a refresh token, so nothing was taken over" in run.err
        assert "offline_access" in run.err
        assert rotator.tokens() == before


def test_rotate_all_goes_on_after_a_failure(rotator: Place) -> None:
    """One credential without a login does not keep the others from being rotated; the exit code tells."""
    rotator.configure("[credentials.away]")
    rotator.login()
    run = rotator("rotate", "--all")
    assert run.code == 77
    assert run.lines == ["rotator: away: not rotated: login_required; log in: rotator login away"]
    assert run.out.startswith("home: rotated, generation 2; ")


def test_a_refused_rotation_says_why(rotator: Place, server: SandboxServer) -> None:
    """The reason and what comes next are on one line."""
    rotator.login()
    server.sandbox.revoke()
    run = rotator("rotate", "home")
    assert run.code == 77
    assert run.lines[-1].startswith("rotator: home: not rotated: invalid_grant: ")


def test_a_wrong_client_secret_is_a_matter_of_configuration(rotator: Place, server: SandboxServer) -> None:
    """invalid_client ends in exit code 78 and keeps everything."""
    rotator.login()
    server.sandbox.change(client_secret=planted("other"))
    before = rotator.tokens()
    assert rotator("rotate", "home").code == 78
    assert rotator.tokens() == before


def test_a_server_that_is_away_is_a_passing_failure(rotator: Place, server: SandboxServer) -> None:
    """No connection ends in exit code 75 with the server's name."""
    rotator.login()
    server.stop()
    run = rotator("rotate", "home")
    assert run.code == 75
    assert f"{server.host}:{server.port}" in run.lines[-1]


def test_a_locked_state_directory_without_a_socket_is_told(rotator: Place) -> None:
    """A daemon that cannot be talked to still owns its state: nothing is read or written behind its back."""
    store = FileStore.open(rotator.state)
    assert isinstance(store, FileStore)
    try:
        for command in (("status",), ("token", "home"), ("rotate", "home")):
            run = rotator(*command)
            assert run.code == 69
            assert run.lines[-1].startswith(f"rotator: a daemon runs, but does not listen at {rotator.socket}: ")
    finally:
        store.close()


def test_an_extra_field_that_cannot_be_read_stops_the_command(rotator: Place, server: SandboxServer) -> None:
    """The place and the cure are named, and nothing is sent."""
    rotator.login()
    rotator.configure('extra = { audience = { env = "NO_SUCH_VARIABLE" } }')
    run = rotator("rotate", "home")
    assert run.code == 78
    assert "environment variable NO_SUCH_VARIABLE is not set: set it" in run.lines[-1]
    assert server.sandbox.books.token_requests.total() == 1


def test_an_environment_proxy_that_is_no_url_is_one_line(rotator: Place) -> None:
    """F13: what only shows when the parts are made, such as the environment's proxy, is a configuration error too."""
    rotator.configure("use_environment_proxies = true")
    rotator.environment["http_proxy"] = "http://"
    for command in (("run", "--once"), ("run",), ("rotate", "home")):
        run = rotator(*command)
        assert run.code == 78
        assert run.lines[-1] == "rotator: credentials.home: http_proxy is no URL: it must look like https://host/path"


def test_run_once_refreshes_what_is_due(rotator: Place, server: SandboxServer) -> None:
    """I10: exit code 0 when every output holds a valid token, also when nothing was due."""
    pair = server.sandbox.issue(USERNAME)
    seed = rotator.directory / "seed"
    seed.write_text(str(pair["refresh_token"]))
    seed.chmod(0o600)
    rotator.configure(f'seed = {{ file = "{seed}" }}')
    assert rotator("run", "--once").code == 0
    assert rotator.output.read_text() in rotator.tokens()
    assert rotator("run", "--once").code == 0
    assert server.sandbox.books.refresh_grants == 1


def test_run_once_tells_a_dead_grant_from_a_passing_failure(rotator: Place, server: SandboxServer) -> None:
    """I10: 77 when somebody must log in, 75 when another try may help, 78 when the configuration is wrong."""
    assert rotator("run", "--once").code == 77
    pair = server.sandbox.issue(USERNAME)
    seed = rotator.directory / "seed"
    seed.write_text(str(pair["refresh_token"]))
    seed.chmod(0o600)
    rotator.configure(f'seed = {{ file = "{seed}" }}')
    server.sandbox.change(fault="503")  # a server that is away is waited for, up to a minute
    assert rotator("run", "--once").code == 75
    rotator.configure("no_such_key = 1")
    assert rotator("run", "--once").code == 78


def test_looking_makes_no_state_directory(rotator: Place) -> None:
    """Whoever only looks, root for instance, does not make a directory that the daemon could then not write to."""
    rotator.state.rmdir()
    for command in (["status"], ["token", "home"]):
        run = rotator(*command)
        assert run.code == 69
        assert run.lines[-1] == (
            f"rotator: {rotator.state} does not exist: no daemon has run and nobody has logged in yet;"
            " start it with: rotator run"
        )
        assert not rotator.state.exists()


def test_a_killed_daemon_leaves_the_true_lifetime_behind(rotator: Place, server: SandboxServer) -> None:
    """B2: the pair was saved before its `expires_in` was read; what is shown is the server's word all the same."""
    rotator.login()
    server.sandbox.change(access_lifetime=600)
    with rotator.daemon(ended=-signal.SIGKILL) as daemon:
        assert rotator("rotate", "home").code == 0
        daemon.kill()
        daemon.wait(PATIENCE)
    assert "left of 10 min" in rotator("status", "home").out
    told = json.loads(rotator("token", "home", "--format", "json", shows_token=True).out)
    assert told["expires_at"] - time.time() < 601
