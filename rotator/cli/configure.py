"""`rotator config`: what is in force, and what could be."""

import json

import click

from rotator.cli.common import Settings, config_option, examples, load_config


@click.group(short_help="Show what is configured, or could be.")
def config() -> None:
    """Show the configuration in force, its schema, and its reference."""


@config.command(epilog=examples("rotator config show"))
@config_option
@click.pass_obj
def show(settings: Settings) -> None:
    """Print the whole configuration with all defaults filled in; secrets are hidden."""
    from rotator.config.show import show as shown

    click.echo(shown(load_config(settings)), nl=False)


@config.command(epilog=examples("rotator config schema > rotator.schema.json"))
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from rotator.config.tables import configuration_schema

    click.echo(json.dumps(configuration_schema(), indent=2))


@config.command(epilog=examples("rotator config reference | less"))
def reference() -> None:
    """Print the reference of all settings as Markdown."""
    from rotator.config.reference import reference_page

    click.echo(reference_page(), nl=False)
