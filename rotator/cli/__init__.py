"""The command line: parse, validate, run, exit code."""

from rotator.cli.main import main

__all__ = ["main"]
