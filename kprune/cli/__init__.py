"""The command line: `kprune prune`, `export`, `benchmark`, `profile`, `plot`, `report`."""

from kprune.cli.main import main

__all__ = ["main"]
