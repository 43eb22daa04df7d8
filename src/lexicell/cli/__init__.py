"""The command line."""

from lexicell.cli.program import main

__all__ = ["main"]
