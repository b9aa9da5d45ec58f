"""Grafana's published components: installed from the lock file, bundled, and asked for the type of a dashboard.

`python -m tests.testbed.drawing.workshop` installs them; outside the clone, so that it is done once.
"""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent
_FILES: Final = ("package.json", "package-lock.json", ".npmrc")
_CHECK: Final = """\
import type {{ Dashboard }} from "@grafana/schema";
type Json<T> = T extends string ? `${{T}}` : T extends object ? {{ [K in keyof T]: Json<T[K]> }} : T;
const board = {} satisfies Json<Dashboard>;
export default board;
"""
"""An enumeration of TypeScript takes no string that stands in JSON: `Json` takes their values."""
_OPTIONS: Final = "--noEmit --skipLibCheck --strict --module esnext --moduleResolution bundler --target es2022"


def place() -> Path:
    """Return the directory where they are, or will be, installed."""
    lock = hashlib.sha256(b"".join((_HERE / name).read_bytes() for name in _FILES)).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "rotator-drawing" / lock


def mark() -> Path:
    """Return a file that is there once all is installed."""
    return place() / "done"


def install() -> None:
    """Install what the lock file says, unless that was done."""
    if not mark().exists():
        shutil.rmtree(place(), ignore_errors=True)
        place().mkdir(parents=True)
        for name in _FILES:
            shutil.copy(_HERE / name, place())
        subprocess.run(["npm", "ci"], cwd=place(), check=True, stdin=subprocess.DEVNULL)
        mark().touch()


def bundle(directory: Path) -> Path:
    """Write the script that draws, and its styles beside it; return the script's path."""
    script = directory / "bundle.js"
    command = json.loads((_HERE / "package.json").read_text())["scripts"]["build"]
    subprocess.run(
        ["sh", "-ec", f'"$0"/{command} --outfile="$1"', place() / "node_modules" / ".bin", script],
        cwd=_HERE,
        check=True,
        env={**os.environ, "NODE_PATH": str(place() / "node_modules")},
    )
    return script


def mistyped(board: dict[str, Any]) -> str:
    """Return what the compiler has against a dashboard: fields that Grafana's schema lacks, or of another type.

    Annotations are left out: most of their fields are known to the data source alone.
    """
    source = place() / "board.ts"  # it finds the types from there
    source.write_text(_CHECK.format(json.dumps({key: value for key, value in board.items() if key != "annotations"})))
    compiler = place() / "node_modules" / ".bin" / "tsc"
    run = subprocess.run(
        [compiler, *_OPTIONS.split(), source], cwd=place(), capture_output=True, text=True, timeout=100, check=False
    )
    return run.stdout + run.stderr


if __name__ == "__main__":
    install()
