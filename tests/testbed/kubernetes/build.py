"""Build etcd and kube-apiserver for the tests, once: `python -m tests.testbed.kubernetes.build`.

No package carries them, but Go's module proxy has their source. The two binaries are kept outside of the clone,
under a key that changes with whatever they are made of, so that a machine which keeps its cache builds nothing.
The optimiser is off: that saves a third of the time, and costs a second at start.
"""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
PROGRAMS: Final = ("etcd", "kube-apiserver")
_SOURCES: Final = ("go.mod", "go.sum", "etcd/main.go", "kube-apiserver/main.go")
_TOO_OLD: Final = "It takes Go 1.26 or newer (Debian's is older): install it as the Go project describes"
_FLAGS: Final = ("-gcflags=all=-N -l -dwarf=false", "-ldflags=-s -w")
# Never another toolchain than the machine's own, and nothing from the clone's history in the binaries.
_GO: Final = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}


def directory() -> Path:
    """Return where the binaries are or belong; raises OSError or CalledProcessError if `go` does not run."""
    go = subprocess.run(("go", "version"), env=_GO, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    digest = hashlib.sha256(go.stdout + " ".join(_FLAGS).encode())
    for source in _SOURCES:
        digest.update((HERE / source).read_bytes())
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "rotator-testbed" / f"kubernetes-{digest.hexdigest()[:16]}"


def build(target: Path) -> None:
    """Put the binaries into `target`, all or nothing; raises CalledProcessError."""
    required = re.search(r"k8s\.io/kubernetes v((\d+)\.(\d+)\.\d+)", (HERE / "go.mod").read_text())
    assert required is not None
    # Without these it calls itself v0.0.0, and clients that ask for its version are told nonsense.
    names = {"gitVersion": f"v{required[1]}", "gitMajor": required[2], "gitMinor": required[3]}
    named = " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in names.items())
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch, "made")
        packages = [f"./{program}" for program in PROGRAMS]
        subprocess.run(
            ("go", "build", *_FLAGS[:-1], f"{_FLAGS[-1]} {named}", "-o", f"{made}/", *packages),
            cwd=HERE, env=_GO, stdin=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        made.rename(target)


def main(*, only_look: bool) -> int:
    """Build what is missing, or only say what is: one line, and an exit code."""
    try:
        target = directory()
    except (OSError, subprocess.CalledProcessError) as error:
        return _complain(f"go cannot be run ({error}). {_TOO_OLD}")
    there = all((target / program).is_file() for program in PROGRAMS)
    if there or only_look:
        return 0 if there else _complain("run python -m tests.testbed.kubernetes.build once")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            print(
                "Building etcd and kube-apiserver for the tests (once, about four minutes of one core) ...", flush=True
            )
            started = time.monotonic()
            try:
                build(target)
            except subprocess.CalledProcessError as error:
                return _complain(f"go build ended with {error.returncode}. {_TOO_OLD}")
            print(f"Built in {time.monotonic() - started:.0f} s.")
    return 0


def _complain(text: str) -> int:
    print(f"no Kubernetes API server for the tests: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(only_look="--there" in sys.argv))
