"""`rotator mirror`."""

import os
import signal
import threading
from pathlib import Path
from typing import Final

import click

from rotator.cli.common import examples
from rotator.cli.exits import ExitCode, Stop

_REVIEW_SECONDS: Final = 10.0


def _files(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Path]:
    files = {}
    for pair in pairs:
        key, equals, path = pair.partition("=")
        if not key or not equals or not path.startswith("/"):
            raise click.BadParameter(f"{pair!r} is not KEY=/path/of/file")
        files[key] = Path(path)
    return files


def _mode(_: click.Context, __: click.Parameter, text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no octal number") from None


@click.command(
    short_help="Keep files as a published Secret is, without any right to refresh.",
    epilog=examples(
        "rotator mirror home-token token=/tokens/home",
        "rotator mirror home-token token=/tokens/home --namespace tokens --once",
    ),
)
@click.argument("secret")
@click.argument("files", nargs=-1, required=True, callback=_files, metavar="KEY=PATH...")
@click.option("--namespace", help="Where the Secret is.  [default: the pod's own]")
@click.option("--mode", default="0640", show_default=True, callback=_mode, help="Permissions of the files, octal.")
@click.option("--once", is_flag=True, help="End when every file is written.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="For --once: seconds.")
def mirror(
    secret: str,
    files: dict[str, Path],
    namespace: str | None,
    mode: int,
    once: bool,  # noqa: FBT001 - click's way
    timeout: float,
) -> ExitCode:
    """Write the keys of the Kubernetes Secret SECRET to files, and keep them current, until SIGTERM.

    For a sidecar in an application's pod: it needs the rights to list and watch this one Secret, so no refresh token
    is within its reach. New tokens arrive within a second, where a mounted Secret takes a minute or more.

    Exit code 0: told to stop, or with --once, every file is written. 75: with --once, it is not yet.
    """
    from rotator.adapters.kubernetes.client import KubernetesClient
    from rotator.adapters.kubernetes.mirror import Mirror, rights_of
    from rotator.adapters.kubernetes.review import warn
    from rotator.adapters.logs import LogObserver, configure
    from rotator.ports import Notice

    configure("info", "auto")
    observer, stopping = LogObserver(), threading.Event()
    client = KubernetesClient(os.environ)
    place = (namespace or client.namespace(), secret)
    if not place[0]:
        text = "this is no pod, and no kubeconfig names a namespace: give --namespace, or set KUBECONFIG"
        raise Stop(ExitCode.CONFIG, text)
    kept = Mirror(
        client, place, files, mode, 10.0, lambda text: observer.notify(Notice("mirrored", text)),
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    kept.start()
    threading.Thread(target=warn, args=(client, rights_of(*place), _REVIEW_SECONDS, observer), daemon=True).start()
    try:
        if once:
            if not kept.written.wait(timeout):
                raise Stop(ExitCode.TEMPFAIL, f"not written within {timeout:g} s: {kept.trouble}")
            return ExitCode.OK
        told = ""
        while not stopping.wait(1.0):
            kept.again()
            if (trouble := kept.trouble) != told:
                told = trouble
                text = trouble or "all is well again"
                observer.notify(Notice("mirror_trouble", text, level="error" if trouble else "info"))
        return ExitCode.OK
    finally:
        kept.stop()
        client.close()
