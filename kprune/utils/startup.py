"""What is known before Keras and its backend are loaded."""

import pathlib
import sys

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"  # of a checkout


def is_command() -> bool:
    """Whether this process is `kprune`, or a script of the tools: they load Keras only once there is something to do.

    So `--help` answers at once, and what a backend writes to stderr while it starts can be hidden.
    """
    program = (sys.argv or [""])[0] if hasattr(sys, "argv") else ""
    if program == "-m":  # all that Python shows while it looks for the module
        return "kprune" in sys.orig_argv
    path = pathlib.Path(program)
    return path.stem == "kprune" or path.resolve().parent == TOOLS
