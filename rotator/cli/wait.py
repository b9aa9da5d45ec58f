"""`rotator wait`."""

import time
from typing import Final

import click

from rotator.cli.common import Settings, client_of, config_option, examples, is_passing, stop_for, timeout_option
from rotator.cli.exits import ExitCode, Stop

_LOOK_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 5.0


@click.command(
    short_help="Wait until a valid token is published.",
    epilog=examples("rotator wait home && start-what-needs-the-token", "rotator wait home --timeout 300"),
)
@click.argument("name")
@timeout_option(60.0, "How long to wait for the token, and for the daemon.")
@config_option
@click.pass_obj
def wait(settings: Settings, name: str, timeout: float) -> None:
    """Wait until each required output of NAME holds a valid access token.

    For what must not start without one, e.g. as ExecStartPre= of a unit. A daemon that does not run yet is waited for
    as well. Needs the control socket; neither secrets nor the whole configuration.

    Exit code 0: the token is there. 75: it is not yet, and the line says why.
    """
    from rotator.adapters.control_client import ControlProblem, path_of

    path = path_of("ready", name)
    deadline = time.monotonic() + timeout
    while True:
        answer = client_of(settings, min(_ANSWER_SECONDS, timeout)).get(path)
        if not isinstance(answer, ControlProblem):
            if answer["ready"]:
                return
            why = answer["why"]
        elif is_passing(answer):
            why = answer.text
        else:
            raise stop_for(answer)
        left = deadline - time.monotonic()
        if left <= 0:
            raise Stop(ExitCode.TEMPFAIL, f"no valid token within {timeout:g} s: {why}")
        time.sleep(min(_LOOK_SECONDS, left))
