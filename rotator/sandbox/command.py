"""The command: every switch is an option; one JSON line tells the URL."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from rotator.sandbox.switches import Switches


def _switch_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each switch: its name, default and meaning are those of `Switches`."""
    for each in reversed(fields(Switches)):
        flag = "--" + each.name.replace("_", "-")
        shown: dict[str, Any] = {"help": each.metadata["meaning"] + ".", "default": each.default, "show_default": True}
        if isinstance(each.default, bool):
            option = click.option(f"{flag}/--no-{flag[2:]}", **shown)
        elif isinstance(each.default, tuple):
            option = click.option(flag[:-1], each.name, multiple=True, help=shown["help"])
        elif choices := each.metadata["choices"]:
            option = click.option(flag, type=click.Choice(choices), **shown)
        else:
            option = click.option(flag, type=type(each.default), **shown)
        command = option(command)
    return command


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--client-id", default="sandbox-client", show_default=True, help="The client's id.")
@click.option("--user", default="user@example.com", show_default=True, help="User name, or a pattern like 'u-*'.")
@click.option("--password", default="sandbox-password", show_default=True, help="The password of the user or users.")
@click.option("--certfile", type=click.Path(exists=True, path_type=Path), help="Certificate chain (PEM): speak HTTPS.")
@click.option("--keyfile", type=click.Path(exists=True, path_type=Path), help="Private key (PEM) of the certificate.")
@_switch_options
def sandbox(
    *,
    host: str,
    port: int,
    client_id: str,
    user: str,
    password: str,
    certfile: Path | None,
    keyfile: Path | None,
    **switches: Any,
) -> None:
    """Run a token endpoint to rehearse against, in memory.

    It answers like NET2GRID's CE-API and can misbehave in every way that is known. When it is ready it prints one
    line, {"url": "http://…"}. GET /sandbox/ tells how to turn switches and read the books while it runs.
    """
    from rotator.sandbox.sandbox import Sandbox  # noqa: PLC0415 -- only this command needs the web server
    from rotator.sandbox.server import serve  # noqa: PLC0415 -- as above

    try:
        world = Sandbox(switches=Switches(**switches), client_id=client_id, users={user: password})
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        serve(
            world,
            host=host,
            port=port,
            certfile=certfile,
            keyfile=keyfile,
            on_ready=lambda url: click.echo(json.dumps({"url": url})),
        )
    except KeyboardInterrupt:  # uvicorn has stopped in order and raises the signal again
        pass
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
