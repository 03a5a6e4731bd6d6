"""From the words after `kprune` to the module that does what they ask for."""

import difflib
import importlib
import os
import sys

from kprune.cli.common import BAD_INPUT, Program, run
from kprune.cli.help import help_text

COMMANDS = {
    "prune": "make a model smaller: to a share of its FLOPs, to an accuracy, to milliseconds",
    "export": "write a model as TFLite, ONNX, SavedModel or TF-TRT, checked against the model",
    "benchmark": "time models of any kind on this machine, in turn",
    "profile": "time the layers of a model over their widths, as a table to prune by",
    "plot": "draw what pruning looks at, chooses and costs",
    "report": "make the report of a pruning run anew, with exports and timings",
}
HELP = {"--help", "-help", "-h"}
USAGE = "usage: kprune COMMAND [arguments] [flags]"
NOTES = """\
kprune COMMAND --help tells what a command takes; kprune --version the version.
Every command takes its flags from a file with --config=run.json, and writes one with --save_config=run.json."""


def listing() -> str:
    """What `kprune --help` shows."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join([USAGE, "", *lines, "", NOTES])


def main(arguments: list[str] | None = None) -> None:
    """Runs the command that the arguments name.

    Args:
      arguments: what follows `kprune`; None: those of this process.

    Raises:
      SystemExit: always, in the end; with 2 for a mistake of the user.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name == "help" or name in HELP:
        if not rest:
            show(listing())
        name, *rest = *rest[:1], "--help"
    if name == "--version":
        show(f"kprune {sys.modules['kprune'].__version__}")
    if name not in COMMANDS:
        refuse(name)
    module = importlib.import_module(f"kprune.cli.{name}")
    program = Program(f"kprune {name}", module)
    if HELP.intersection(rest):
        show(help_text(program))
    run(module.main, program, [program.name, *rest])


def show(text: str) -> None:
    """Writes what was asked for and ends; a reader such as `head` may want no more than its beginning."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes at its end
    sys.exit(0)


def refuse(name: str) -> None:
    """Says in one line that there is no such command, and which may be meant."""
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}."
    print(f"kprune: there is no command {name!r}; {hint} Try kprune --help.", file=sys.stderr)
    sys.exit(BAD_INPUT)
