"""The command line: parse, validate, run, exit code."""

from rotator.cli.commands import main

__all__ = ["main"]
