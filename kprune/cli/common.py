"""What the commands share: flags by absl, help, and every mistake of the user as one line and exit code 2."""

import argparse
import contextlib
import csv
import functools
import io
import itertools
import json
import logging
import os
import pathlib
import re
import sys
import types
from collections.abc import Callable

from absl import app, flags
from absl import logging as absl_logging

BAD_INPUT = 2
LIST = "comma separated list of strings"

flags.DEFINE_string("config", None, "A JSON file with values of these flags, by name; flags beside it win over it.")
flags.DEFINE_string("save_config", None, "Write the flags of this run to this JSON file, for --config, and go on.")
SHARED = ("config", "save_config")


def own_flags() -> tuple[flags.FlagValues, types.SimpleNamespace]:
    """The flags of one command, apart from those of others, and what defines them as absl's DEFINE_ functions do.

    Example:
      >>> FLAGS, define = common.own_flags()
      >>> define.string("model", None, "The Keras model file.")
    """
    values = flags.FlagValues()
    kinds = {name: getattr(flags, f"DEFINE_{name}") for name in ("string", "integer", "float", "bool", "enum", "list")}
    return values, types.SimpleNamespace(
        **{name: functools.partial(define, flag_values=values) for name, define in kinds.items()}
    )


class Program:
    """What a user runs: a command, or a script of the tools.

    Args:
      name: how mistakes begin.
      module: of a command: its docstring is its help, `FLAGS` are its flags, `POSITIONAL` names the flag that
        arguments without a name go to, and `NEEDS` those that must be given. None: a script with absl's own flags.

    Attributes:
      positional: the flag that arguments without a name go to, or None.
      needs: flags that must have a value.
    """

    def __init__(self, name: str, module: types.ModuleType | None = None):
        self.name, self.module = name, module
        self.positional: str | None = getattr(module, "POSITIONAL", None)
        self.needs: tuple[str, ...] = getattr(module, "NEEDS", ())

    @property
    def own(self) -> dict[str, flags.Flag]:
        """Its own flags by name, in the order of their definition."""
        if self.module is not None:
            return {name: self.module.FLAGS[name] for name in self.module.FLAGS}
        own = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
        return {flag.name: flag for flag in own if flag.name not in SHARED}

    def values(self) -> flags.FlagValues:
        """All flags that it takes, absl's included."""
        if self.module is None:
            for name in SHARED:  # so that --help shows them with the script's own
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
            return flags.FLAGS
        own, merged = self.own, flags.FlagValues()
        shared = {name: flags.FLAGS[name] for name in flags.FLAGS}
        for flag in ({flag.name: flag for flag in shared.values()} | own).values():  # shared has short names as well
            merged[flag.name] = flag
        for name in (*own, *SHARED):  # what an earlier run in this process left
            merged[name].unparse()
        return merged

    def fail(self, message) -> None:
        """Ends with a line on stderr and the code for a mistake of the user."""
        print(f"{self.name}: {' '.join(str(message).split())}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def given(own: flags.FlagValues | dict[str, flags.Flag]) -> dict:
    """The values of flags that were given, by name; defaults are left out."""
    return {name: own[name].value for name in own if own[name].present}


def run(main: Callable, program: Program | None = None, argv: list[str] | None = None) -> None:
    """Parses the flags and runs `main`; a mistake of the user becomes one line on stderr and exit code 2.

    Args:
      main: called with the program's name, once Keras is loaded.
      program: what is run; None: the script of this process.
      argv: its name and its arguments; None: those of this process.

    Example:
      >>> if __name__ == "__main__":
      ...     common.run(main)
    """
    program = program or Program(os.path.basename(sys.argv[0]))

    def guarded(argv: list[str]) -> None:
        with _native_logs_hidden():
            import keras  # noqa: F401  (loads its backend, which writes to stderr)

            from kprune.utils.errors import KpruneError
        mistakes = (KpruneError, flags.Error, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
        try:
            with contextlib.nullcontext() if program.module is None else _own_lines_only():
                main(argv)
        except mistakes as error:
            program.fail(error)

    app.run(guarded, sys.argv if argv is None else argv, flags_parser=lambda argv: parse(program, argv))


def parse(program: Program, argv: list[str]) -> list[str]:
    """Gives the flags their values; returns the program's name alone.

    Raises:
      SystemExit: a mistake, told in one line; or absl showed its help.
    """
    try:
        values = program.values()
        rest = values(with_config(program, argv))
        take_positional(program, rest[1:])
        missing = [f"--{name} is missing" for name in program.needs if program.own[name].value is None]
        if missing:
            raise flags.Error(", ".join(missing))
        save_config(program)
    except flags.Error as error:
        text = re.sub(r"flag --(\w+)=None: Flag --\w+ must have a value[^.]*", r"--\1 is missing", str(error))
        program.fail(f"{re.sub(r' [?]$', '?', text.rstrip(' .'))}. Try --help.".replace("?. ", "? "))
    except SystemExit:
        sys.exit(0)
    flags.FLAGS.mark_as_parsed()
    if program.module is not None:
        program.module.FLAGS.mark_as_parsed()
    return rest[:1]


def take_positional(program: Program, arguments: list[str]) -> None:
    """Gives arguments that are no flags to the flag that stands for them.

    Raises:
      flags.Error: there is none, or there are too many.
    """
    if not arguments:
        return
    if program.positional is None:
        raise flags.Error(f"Unexpected argument {arguments[0]!r}: this tool takes flags only")
    flag = program.own[program.positional]
    if flag.flag_type() == LIST:
        flag.value, flag.present = [*(flag.value or []), *arguments], flag.present + 1
        return
    spare = arguments if flag.present else arguments[1:]
    if spare:
        raise flags.Error(f"Unexpected argument {spare[0]!r}: there is a {flag.name} already")
    flag.parse(arguments[0])


def with_config(program: Program, argv: list[str]) -> list[str]:
    """The arguments with those of the --config file before them, so that a flag given beside it wins.

    Raises:
      flags.Error: the file is missing or is no JSON object, or names a flag that this tool does not have.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", "-config")
    path = finder.parse_known_args(argv[1:])[0].config
    if path is None:
        return argv
    try:
        values = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise flags.Error(f"--config={path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise flags.Error(f"--config={path} is a JSON {type(values).__name__}; expected an object of flags")
    own = program.own
    unknown = sorted(values.keys() - own.keys())
    if unknown:
        raise flags.Error(f"--config={path} has {', '.join(unknown)}; this tool knows {', '.join(sorted(own))}")
    given = [as_arguments(own[name], value) for name, value in values.items() if value is not None]
    return [argv[0], *itertools.chain.from_iterable(given), *argv[1:]]


def as_arguments(flag: flags.Flag, value) -> list[str]:
    """A flag on the command line, from its value in JSON; one that may be given several times, as often."""
    if isinstance(value, bool):
        return [f"--{flag.name}" if value else f"--no{flag.name}"]
    if isinstance(value, list) and isinstance(flag, flags.MultiFlag):
        return [f"--{flag.name}={one}" for one in value]
    if isinstance(value, list):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value)
        value = line.getvalue()
    return [f"--{flag.name}={value}"]


def save_config(program: Program) -> None:
    """Writes the flags that were given to the --save_config file."""
    path = flags.FLAGS["save_config"].value
    if path is None:
        return
    try:
        pathlib.Path(path).write_text(json.dumps(given(program.own), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise flags.Error(f"--save_config={path} cannot be written: {error}") from error


def write_record(record: str | None, export) -> None:
    """Writes what an export measured as JSON, where the user asked for it."""
    from kprune.utils.files import write_by_rename

    if record is not None:
        text = json.dumps({"export": export.to_json()}, indent=1) + "\n"
        write_by_rename(record, lambda file: file.write_text(text, encoding="utf-8"))


def load_model(path: str):
    """Reads a Keras model from a file, without its optimizer.

    Raises:
      ModelError: there is no such file, or Keras cannot read it.
    """
    import keras

    import kprune.surgery  # noqa: F401  (Keras learns the layers of models pruned with mode="soft")
    from kprune.utils.errors import ModelError

    if not pathlib.Path(path).is_file():
        raise ModelError(f"There is no model file {path}.", "A .keras or .h5 file.", "Check the path.")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise ModelError(
            f"Keras cannot read {path}: {error}",
            "A file that model.save wrote.",
            "Save the model again with the Keras that is installed here.",
        ) from error


def load_arrays(path: str, key: str | None = None):
    """Reads a .npy file as an array, an .npz file as its one array (or that of `key`), or as a dict of several.

    Raises:
      OptionError: there is no such file, it is none of these, or it has no `key`.
    """
    import numpy as np

    from kprune.utils.errors import OptionError

    if not pathlib.Path(path).is_file():
        raise OptionError(f"There is no data file {path}.", "A .npy or .npz file.", "Check the path.")
    try:
        loaded = np.load(path)
        arrays = {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except (ValueError, OSError, EOFError) as error:
        raise OptionError(
            f"{path} cannot be read: {error}", "A .npy or .npz file of numbers.", "Write it with numpy.save."
        ) from error
    if key is not None:
        if not isinstance(arrays, dict) or key not in arrays:
            has = f"the keys {sorted(arrays)}" if isinstance(arrays, dict) else "one array and no keys"
            raise OptionError(f"{path} has no key {key!r}.", f"It has {has}.", "Name one of its keys, or none.")
        return arrays[key]
    return next(iter(arrays.values())) if isinstance(arrays, dict) and len(arrays) == 1 else arrays


@contextlib.contextmanager
def _own_lines_only():
    """Logs what kprune tells beside its results without time and thread, and hides TensorFlow's advice."""
    handler, tensorflow = absl_logging.get_absl_handler().python_handler, logging.getLogger("tensorflow")
    formatter, level = handler.formatter, tensorflow.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    tensorflow.setLevel(logging.ERROR)
    try:
        yield
    finally:
        handler.setFormatter(formatter)
        tensorflow.setLevel(level)


@contextlib.contextmanager
def _native_logs_hidden():
    """Hides what native libraries write to stderr while they are imported; Python's own errors still show."""
    stderr, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(sink)
