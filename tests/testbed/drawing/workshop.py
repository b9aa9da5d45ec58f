"""Grafana's published components: installed from the lock file, bundled, and asked for the type of a dashboard.

`python -m tests.testbed.drawing.workshop` installs them; outside the clone, so that it is done once.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.testbed.node import Packages

_HERE: Final = Path(__file__).parent
PACKAGES: Final = Packages(_HERE)
_CHECK: Final = """\
import type {{ Dashboard }} from "@grafana/schema";
type Json<T> = T extends string ? `${{T}}` : T extends object ? {{ [K in keyof T]: Json<T[K]> }} : T;
const board = {} satisfies Json<Dashboard>;
export default board;
"""
"""An enumeration of TypeScript takes no string that stands in JSON: `Json` takes their values."""
_OPTIONS: Final = "--noEmit --skipLibCheck --strict --module esnext --moduleResolution bundler --target es2022"


def bundle(directory: Path) -> Path:
    """Write the script that draws, and its styles beside it; return the script's path."""
    script = directory / "bundle.js"
    command = json.loads((_HERE / "package.json").read_text())["scripts"]["build"]
    subprocess.run(
        ["sh", "-ec", f'"$0"/{command} --outfile="$1"', PACKAGES.place / "node_modules" / ".bin", script],
        cwd=_HERE,
        check=True,
        env={**os.environ, "NODE_PATH": str(PACKAGES.place / "node_modules")},
    )
    return script


def mistyped(board: dict[str, Any]) -> str:
    """Return what the compiler has against a dashboard: fields that Grafana's schema lacks, or of another type.

    Annotations are left out: most of their fields are known to the data source alone.
    """
    # It finds the types from there; others may ask at the same time.
    with tempfile.NamedTemporaryFile("w", dir=PACKAGES.place, prefix="board-", suffix=".ts") as source:
        source.write(_CHECK.format(json.dumps({key: value for key, value in board.items() if key != "annotations"})))
        source.flush()
        compiler = PACKAGES.place / "node_modules" / ".bin" / "tsc"
        command = [str(compiler), *_OPTIONS.split(), source.name]
        run = subprocess.run(command, cwd=PACKAGES.place, capture_output=True, text=True, check=False)
    return run.stdout + run.stderr


if __name__ == "__main__":
    PACKAGES.install()
