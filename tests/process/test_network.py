"""A token endpoint that is away, slow, sick or gone in the middle of an answer."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rotator.adapters.control_client import ControlClient
from tests.needs import needs
from tests.process.life import Life, begin_rotation, events, rotate, wait_for_generation
from tests.process.rig import PATIENCE, DaemonProcess, answered_within, wait_until


def _seconds(until: Callable[[], object], what: str) -> float:
    started = time.monotonic()
    wait_until(until, what)
    return time.monotonic() - started


def test_a_start_without_the_server_is_made_good_when_it_comes(life: Life) -> None:
    """E21: nothing listens at the start: the daemon is up and says why; success follows the server within some 5 s."""
    life.refresh = {}
    life.configure()
    life.put_pair(age=60, lifetime=4)
    life.server.stop()
    with life.daemon() as daemon:
        daemon.wait_until(lambda: daemon.shown()["failures"] >= 1, "the first try has failed")
        assert '"live":true' in daemon.page("/livez")
        assert f"home: retrying: {life.server.host}:" in daemon.page("/readyz")
        assert daemon.shown()["reason"] == "connect"
        life.server.start()
        assert _seconds(life.has_good_token, "the token is published") < 15
        assert '"ready":true' in daemon.page("/readyz")


def test_names_that_resolve_again_are_noticed(life: Life, tmp_path: Path) -> None:
    """E21, E23: no DNS at the start; once the name resolves, the first success follows within some 5 s."""
    needs("mount namespace")
    hosts, resolver = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    life.refresh = {}
    life.configure()
    life.config.write_text(life.config.read_text().replace(f"//{life.server.host}:", "//auth.rotator.test:"))
    life.put_pair(age=60, lifetime=4)
    script = f'mount --bind "{hosts}" /etc/hosts && mount --bind "{resolver}" /etc/resolv.conf && exec "$@"'
    with life.daemon(prefix=("unshare", "--mount", "sh", "-c", script, "sh")) as daemon:
        daemon.wait_until(lambda: daemon.shown()["failures"] >= 1, "the first try has failed")
        assert daemon.shown()["reason"] == "dns"
        hosts.write_text(f"127.0.0.1 localhost\n{life.server.host} auth.rotator.test\n")
        assert _seconds(life.has_good_token, "the token is published") < 15


def test_a_short_retry_after_is_waited_for(life: Life) -> None:
    """The server's few seconds are kept within one request, and the fate of the token is never in doubt."""
    life.server.sandbox.change(access_lifetime=3600, retry_after="3")
    life.put_pair(age=0)
    for fault in ("429_retry_after", "503_retry_after"):
        life.server.sandbox.script([fault])
        with life.daemon() as daemon:
            started = time.monotonic()
            shown = rotate(daemon)
            assert time.monotonic() - started >= 3
            assert (shown["standing"], shown["failures"]) == ("valid", 0)
            assert daemon.stop() == 0
    assert life.books.token_requests == {"429_retry_after": 1, "503_retry_after": 1, "granted": 2}


def test_a_long_retry_after_is_kept_in_the_schedule(life: Life) -> None:
    """The server's minutes are kept, over a restart too; a person who asks is not held up by them."""
    life.server.sandbox.change(access_lifetime=3600, retry_after="300")
    life.server.sandbox.script(["429_retry_after"])
    life.put_pair(age=0)
    with life.daemon() as daemon:
        shown = rotate(daemon)
        assert (shown["standing"], shown["reason"]) == ("retrying", "rate_limited")
        assert 300 <= shown["next_at"] - shown["last_attempt_at"] < 310
        assert daemon.stop() == 0
    with life.daemon() as daemon:
        daemon.wait_until(lambda: daemon.shown()["next_at"] == shown["next_at"], "the schedule is read, and kept")
        assert rotate(daemon)["standing"] == "valid"


def test_an_outage_of_the_server_leaves_the_published_token_alone(life: Life) -> None:
    """500 for a while: the token that was published stays, the metrics tell, and a healthy server is enough."""
    life.put_pair(age=0, lifetime=4)
    with life.daemon() as daemon:
        wait_for_generation(daemon, 2)
        life.server.sandbox.change(fault="500")
        daemon.wait_until(lambda: daemon.shown()["failures"] >= 3, "three failures")
        assert life.token() != ""
        assert daemon.sample("rotator_consecutive_failures", credential="home") >= 3
        assert daemon.sample("rotator_failing", credential="home", reason="http_5xx") == 1
        assert daemon.sample("rotator_state", credential="home", state="ambiguous") == 1
        assert "answered 500" in events(daemon, "refresh_failed")[0]["message"]
        life.server.sandbox.change(fault="")
        daemon.wait_until(life.has_good_token, "a new token is published")
        daemon.wait_until(lambda: daemon.shown()["standing"] == "valid", "all is well")
    assert life.books.replays_outside_grace == life.books.families_revoked == 0


def _lose_an_answer(life: Life, daemon: DaemonProcess, fault: str) -> None:
    life.server.sandbox.script([fault])
    shown = rotate(daemon)
    assert (shown["standing"], shown["next_why"]) == ("ambiguous", "replay")


def test_a_lost_answer_is_asked_for_again_within_the_grace_window(life: Life) -> None:
    """B12: the connection drops after the rotation was committed: the same token, once more, at once, heals it."""
    life.server.sandbox.change(access_lifetime=3600, grace_seconds=60)
    life.put_pair(age=0)
    with life.daemon() as daemon:
        _lose_an_answer(life, daemon, "after:drop")
        wait_for_generation(daemon, 2)
        assert daemon.shown()["standing"] == "valid"
        wait_until(life.has_good_token, "the token is published")
        assert rotate(daemon)["generation"] == 3
    assert life.books.replays_in_grace == 1
    assert life.books.families_revoked == 0


def test_an_answer_that_does_not_come_in_time_is_asked_for_again(life: Life) -> None:
    """B9: the server rotates and then says nothing: after the read timeout the same token is sent again."""
    life.server.sandbox.change(access_lifetime=3600, grace_seconds=60)
    life.configure(defaults='read_timeout = "1s"')
    life.put_pair(age=0)
    with life.daemon() as daemon:
        _lose_an_answer(life, daemon, "after:hang")
        assert events(daemon, "refresh_failed")[0]["reason"] == "read_timeout"
        wait_for_generation(daemon, 2)
        wait_until(life.has_good_token, "the token is published")
        life.server.sandbox.change()
    assert life.books.replays_in_grace == 1
    assert life.books.families_revoked == 0


def test_an_answer_given_up_on_after_the_window_puts_nothing_at_risk(life: Life) -> None:
    """B9 B13: a read timeout longer than `replay_window`: the spent token is kept back while the other is good."""
    life.server.sandbox.change(access_lifetime=3600)
    life.refresh["replay_window"] = "1s"
    life.configure(defaults='read_timeout = "1s"')
    life.put_pair(age=0)
    with life.daemon() as daemon:
        daemon.wait_until(life.has_good_token, "the token is published")
        life.server.sandbox.script(["after:hang"])
        shown = rotate(daemon)
        assert (shown["standing"], shown["next_why"]) == ("ambiguous", "retry")
        assert shown["expires_at"] - 121 < shown["next_at"] < shown["expires_at"]
        life.server.sandbox.change()
    assert life.books.replays_outside_grace == 0


def test_a_lost_answer_without_a_grace_window_is_told_and_healed_by_a_login(life: Life) -> None:
    """B12: a server without grace revokes the family: this is said where people look, and a login is all it takes."""
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=0)
    with life.daemon() as daemon:
        _lose_an_answer(life, daemon, "after:drop")
        daemon.wait_until(lambda: daemon.shown()["standing"] == "reauthorization_required", "the grant is dead")
        assert daemon.sample("rotator_state", credential="home", state="reauthorization_required") == 1
        assert "rotator login home" in events(daemon, "status_changed")[-1]["message"]
        life.login()
        daemon.wait_until(life.has_good_token, "the login's token is published")
        assert daemon.shown()["standing"] == "valid"
    assert life.books.families_revoked == 1


def test_without_a_replay_window_nothing_is_risked_while_the_access_token_lasts(life: Life) -> None:
    """B13: `replay_window = 0` is for servers that revoke on reuse: a token of unknown fate is kept back."""
    life.server.sandbox.change(access_lifetime=3600)
    life.refresh["replay_window"] = 0
    life.configure()
    life.put_pair(age=0)
    with life.daemon() as daemon:
        daemon.wait_until(life.has_good_token, "the token is published")
        life.server.sandbox.script(["after:drop"])
        shown = rotate(daemon)
        assert shown["standing"] == "ambiguous"
        assert shown["expires_at"] - 121 < shown["next_at"] < shown["expires_at"]
    assert life.books.replays_outside_grace == 0


def test_everything_answers_within_a_second_while_a_token_request_hangs(life: Life) -> None:
    """E11: status, token, health, metrics and the pages; the answer that comes after all is taken."""
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=0)
    with life.daemon() as daemon:
        daemon.wait_until(life.has_good_token, "the token is published")
        life.server.sandbox.script(["hang"])
        begin_rotation(life, daemon)
        client = ControlClient(life.socket, PATIENCE)
        questions: dict[str, Callable[[str], object]] = {
            **dict.fromkeys(
                ("/v1/status", "/v1/status/home", "/v1/token/home", "/v1/health", "/v1/readiness"), client.get
            ),
            **dict.fromkeys(("/metrics", "/status", "/livez", "/readyz"), daemon.page),
        }
        for path, ask in questions.items():
            assert answered_within(1, partial(ask, path))
        assert client.get("/v1/token/home")["access_token"] == life.token()  # type: ignore[index]
        assert daemon.sample("rotator_requests_under_way") == 1
        life.server.sandbox.change()
        wait_for_generation(daemon, 2)


def test_a_login_while_a_request_hangs_counts_and_the_late_answer_does_not(life: Life) -> None:
    """E11: somebody logs in while the old token's request hangs: at once, and what comes later changes nothing."""
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=0)
    with life.daemon() as daemon:
        life.server.sandbox.script(["hang"])
        begin_rotation(life, daemon)
        life.login()
        assert daemon.shown()["generation"] == 2
        assert life.token() == daemon.get("/v1/token/home")["access_token"]
        life.server.sandbox.change()
        daemon.wait_until(lambda: events(daemon, "refresh_late"), "the late answer")
        assert daemon.shown()["generation"] == 2
        assert daemon.sample("rotator_refresh_attempts_total", credential="home", outcome="late") == 1
        assert rotate(daemon)["generation"] == 3
    assert life.books.replays_outside_grace == 0


def test_a_hanging_account_does_not_hold_up_the_others(life: Life) -> None:
    """L3: with one place for the server, a request that hangs keeps it for some seconds only."""
    life.server.sandbox.change(access_lifetime=3600)
    life.server.sandbox.script(["hang"])
    life.configure(
        daemon="max_concurrent_per_server = 1", credentials="[credentials.home]\n[credentials.a]\n[credentials.b]"
    )
    for name in ("home", "a", "b"):
        life.put_pair(age=7200, name=name)
    with life.daemon() as daemon:
        wait_until(lambda: life.server.sandbox.script_left == [], "a request hangs")
        daemon.wait_until(lambda: sum(daemon.shown(n)["generation"] for n in ("home", "a", "b")) == 5, "the others")
        life.server.sandbox.change()
        daemon.wait_until(lambda: sum(daemon.shown(n)["generation"] for n in ("home", "a", "b")) == 6, "all three")


def test_failed_requests_leave_no_file_descriptor_behind(life: Life) -> None:
    """F7, F9, F12: connections that were dropped, reset or cut are closed, and good ones after a few idle seconds."""
    life.server.sandbox.change(access_lifetime=3600, grace_seconds=60)
    names = [f"c{number}" for number in range(12)]
    life.configure(credentials="\n".join(f"[credentials.{name}]" for name in names))
    for name in names:
        life.put_pair(age=0, name=name)

    def rotate_all(*steps: str) -> None:
        life.server.sandbox.script(steps)
        for _, answer in ControlClient(life.socket, PATIENCE).post_all(f"/v1/rotate/{name}" for name in names):
            assert isinstance(answer, dict), answer

    def sockets(daemon: DaemonProcess) -> int:
        found = 0
        for path in Path(f"/proc/{daemon.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                found += str(path.readlink()).startswith("socket:")
        return found

    with life.daemon() as daemon:
        daemon.wait_until(lambda: all(life.token(name) for name in names), "all are published")
        before = sockets(daemon)
        rotate_all("drop", "reset", "half", "500", "502_html", "429", "200_cut", "301", "after:drop", "after:reset")
        rotate_all()
        daemon.wait_until(lambda: sockets(daemon) <= before, "every connection is closed")
    assert life.books.families_revoked == 0
