"""What `kprune COMMAND --help` shows."""

import re
import textwrap

from absl import flags

from kprune.cli.common import LIST, SHARED, Program

VALUES = {"string": "TEXT", "int": "N", "float": "NUMBER", LIST: "A,B,..."}
WIDTH = 100


def help_text(program: Program) -> str:
    """How a command is called, what it does, and its own flags; absl's are told by --helpfull."""
    first = program.own[program.positional]
    usage = f"usage: {program.name} {first.name.upper()}{' ...' if first.flag_type() == LIST else ''} [flags]"
    others = (flag for flag in program.own.values() if flag is not first)
    shown = [describe(flag) for flag in (*others, *(flags.FLAGS[name] for name in SHARED))]
    named = describe(first).replace(f"--{first.name}=", f"{first.name.upper()}, or --{first.name}=", 1)
    return "\n".join([usage, "", program.module.__doc__.strip(), "", named, "", "flags:", *shown])


def describe(flag: flags.Flag) -> str:
    """A flag with the form of its value, what it is for, and its default."""
    indent = " " * 6
    text = re.sub(r"^<.*?>: ", "", flag.help) + (f" (default: {default})" if (default := default_of(flag)) else "")
    return f"  {form(flag)}\n{textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)}"


def form(flag: flags.Flag) -> str:
    """How the flag is written."""
    kind = flag.flag_type()
    if kind == "bool":
        return f"--[no]{flag.name}"
    return f"--{flag.name}={'|'.join(flag.parser.enum_values) if kind == 'string enum' else VALUES[kind]}"


def default_of(flag: flags.Flag) -> str:
    """The value that the flag has where it is not given; nothing where that is no value."""
    if isinstance(flag.default, bool):
        return "on" if flag.default else ""
    if isinstance(flag.default, list):
        return ",".join(flag.default)
    return "" if flag.default is None else str(flag.default)
