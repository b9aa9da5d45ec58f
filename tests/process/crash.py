"""The crash proof: the daemon is killed at every system call of a rotation, and must go on without a human.

`python -m tests.process.crash` kills at each call, with a grace window on the server and without, lets each call of a
save fail with each error, and prints a table; the suite's `test_crash.py` and `test_save_errors.py` do so at some.
`strike.py` and `errors.py` tell how.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import click

from tests.process.errors import all_failures, fail_reservation, fail_save
from tests.process.rig import run_sandbox
from tests.process.strike import GRACE, Rotation, Verdict, fault, place, strike_all, unhindered

GRACES = (GRACE, 0.0)


@click.command()
@click.option("--stride", default=1, show_default=True, help="Take every Nth kill point only.")
@click.option("--runs", default=15, show_default=True, help="Unhindered rotations that measure the window.")
def main(stride: int, runs: int) -> None:
    """Kill the daemon at every call of a rotation, let every call of a save fail; status 1 if anything went wrong."""
    table: dict[float, list[Verdict]] = {}
    rotations: list[Rotation] = []
    wrong = 0
    for grace in GRACES:
        with tempfile.TemporaryDirectory() as text, run_sandbox(Path(text), grace_seconds=grace) as sandbox:
            directory = Path(text)
            rotations += [unhindered(place(directory, f"unhindered-{run}", sandbox)) for run in range(runs)]
            points = rotations[-1].points[::stride]
            verdicts = table[grace] = []
            for verdict in strike_all(directory, sandbox, points):
                verdicts.append(verdict)
                complaint = fault(verdict, grace=grace > 0)
                wrong += complaint != ""
                click.echo(f"{len(verdicts):4}/{len(points)}  grace {grace:2.0f} s  {_line(verdict, complaint)}")
    wrong += _let_saves_fail(stride)
    _report(table, rotations)
    sys.exit(1 if wrong else 0)


def _let_saves_fail(stride: int) -> int:
    """Return how many failures did harm. The sandbox has no grace window: nothing may be sent twice."""
    wrong = 0
    with tempfile.TemporaryDirectory() as text, run_sandbox(Path(text)) as sandbox:
        directory = Path(text)
        rotation = unhindered(place(directory, "unhindered", sandbox))
        nth = {rotation.calls[i].name: rotation.calls[i].nth for i in (rotation.save.written, rotation.save.synced)}
        for number, failure in enumerate([*all_failures()][::stride]):
            for what in ("reservation", "save"):
                rig = place(directory, f"{what}-{number}", sandbox)
                try:
                    if what == "reservation":
                        fail_reservation(rig, failure)
                    else:
                        fail_save(rig, failure, nth.get(failure.call, 0))
                    complaint = ""
                except AssertionError as error:
                    complaint = f"  WRONG: {error}"
                wrong += complaint != ""
                click.echo(f"{what}, {failure}: {complaint or 'nothing lost'}")
    return wrong


def _line(verdict: Verdict, complaint: str) -> str:
    state = "healed" if verdict.healed else f"lost: {verdict.told}"
    missed = "" if verdict.struck else "  (this rotation did not come to that call)"
    return f"{verdict.point}: {state}{missed}{complaint and f'  WRONG: {complaint}'}"


def _report(table: dict[float, list[Verdict]], rotations: list[Rotation]) -> None:
    click.echo(
        f"\n{'grace':>6}{'kill points':>13}{'in the window':>15}{'healed':>8}{'lost':>6}{'presented too late':>20}"
    )
    for grace, verdicts in table.items():
        healed = sum(verdict.healed for verdict in verdicts)
        click.echo(
            f"{grace:4.0f} s{len(verdicts):13}{sum(verdict.in_window for verdict in verdicts):15}"
            f"{healed:8}{len(verdicts) - healed:6}{sum(verdict.outside_grace for verdict in verdicts):20}"
        )
    click.echo(f"\nThe window, median of {len(rotations)} unhindered rotations (under strace, which slows them down):")
    for what, seconds in (
        ("request sent to durable", [rotation.since_sent for rotation in rotations]),
        ("answer received to durable", [rotation.since_answer for rotation in rotations]),
        ("answer received to written", [rotation.until_written for rotation in rotations]),
    ):
        click.echo(f"  {what:27}{statistics.median(seconds) * 1000:7.2f} ms")


if __name__ == "__main__":
    main()
