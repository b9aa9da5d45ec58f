"""`python -m tests.testbed.drawing DIRECTORY`: draw both dashboards in each scene of the script of faults."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tests.testbed.drawing.drawings import DESK, PHONE, easel, recorded
from tests.testbed.drawing.workshop import PACKAGES
from tests.testbed.prometheus.boards import Board
from tests.testbed.prometheus.play import PODS, Stage, hurried, play

CREDENTIALS: Final = ("home", "lost", "revoked", "blocked")


def main() -> None:
    """Play, record, draw."""
    pictures = Path(sys.argv[1])
    pictures.mkdir(parents=True, exist_ok=True)
    PACKAGES.install()
    records: dict[str, dict[str, Any]] = {}

    def look(scene: str, stage: Stage) -> None:
        chosen = [("overview", "", "rotator"), *(("credential", name, "rotator") for name in CREDENTIALS)]
        for board, credential, job in (*chosen, ("overview", "", PODS["job"])):
            values = {"job": job, "credential": credential}
            name = "-".join(filter(None, (scene, board, credential, "pods" if job != "rotator" else "")))
            records[name] = recorded(Board(board, stage.prometheus, values, stage.began_at, time.time()))

    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as workbench:
        play(Path(directory), hurried(), look)
        with easel(Path(workbench)) as pencil:
            for name, record in records.items():
                for screen, size in (("desk", DESK), ("phone", PHONE)):
                    drawn = pencil.draw(record, pictures / f"{name}-{screen}.png", size)
                    sys.stdout.write(f"{name}-{screen}: {drawn.failed or drawn.errors or 'drawn'}\n")


main()
