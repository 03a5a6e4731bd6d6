"""Writes docs/cli.md, all that `kprune --help` and the help of its commands show:  python tools/cli_page.py"""

import importlib
import pathlib

from kprune.cli.common import Program
from kprune.cli.help import help_text
from kprune.cli.main import COMMANDS, listing

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "cli.md"
HEAD = """\
# The command line

Made from `--help` by `python tools/cli_page.py`.
"""


def block(text: str) -> str:
    return f"```text\n{text}\n```\n"


def page() -> str:
    """The page as it should be."""
    parts = [HEAD, block(listing())]
    for name in COMMANDS:
        module = importlib.import_module(f"kprune.cli.{name}")
        parts += [f"## kprune {name}\n", block(help_text(Program(f"kprune {name}", module)))]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
