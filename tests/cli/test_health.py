"""`rotator health`: what a container's health check runs."""

import signal

from tests.cli.conftest import Place, wait_for


def test_a_daemon_without_any_token_lives(rotator: Place) -> None:
    """A missing login is no reason for a restart; --ready names what is lacking."""
    with rotator.daemon():
        run = rotator("health")
        assert (run.code, run.out, run.err) == (0, "live\n", "")
        run = rotator("health", "--ready")
        assert run.code == 69
        assert run.lines[0].startswith("rotator: not ready: home")


def test_a_published_token_is_ready(rotator: Place) -> None:
    """Once every output holds an unexpired token, --ready agrees."""
    rotator.login()
    with rotator.daemon():
        wait_for(lambda: rotator("health", "--ready").code == 0)


def test_no_daemon_and_a_stopped_one_do_not_live(rotator: Place) -> None:
    """Neither a missing nor a frozen daemon passes, and the answer comes within the limit."""
    run = rotator("health")
    assert run.code == 69
    assert f"no daemon listens at {rotator.socket}" in run.err
    with rotator.daemon() as daemon:
        daemon.send_signal(signal.SIGSTOP)
        try:
            assert rotator("health", "--timeout", "0.5").code == 69
        finally:
            daemon.send_signal(signal.SIGCONT)
