"""What the command-line tools share: flags by absl, and every mistake of the user as one line and exit code 2."""

import argparse
import contextlib
import csv
import io
import itertools
import json
import os
import pathlib
import re
import sys

import numpy as np
from absl import app, flags

BAD_INPUT = 2

flags.DEFINE_string("config", None, "A JSON file with values of these flags, by name; flags beside it win over it.")
flags.DEFINE_string("save_config", None, "Write the flags of this run to this JSON file, for --config, and go on.")


def run(main, positional: str | None = None) -> None:
    """Parses the flags and runs `main`; a mistake of the user becomes one line on stderr and exit code 2.

    Args:
      main: called with the program's name.
      positional: the list flag to which arguments that are no flags are added; None: they are a mistake.

    Example:
      >>> if __name__ == "__main__":
      ...     _cli.run(main)
    """

    def guarded(argv: list[str]) -> None:
        with _native_logs_hidden():
            import keras  # noqa: F401  (loads its backend, which writes to stderr)

            from kprune.utils.errors import KpruneError
        mistakes = (KpruneError, flags.Error, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
        try:
            main(argv)
        except mistakes as error:
            _fail(error)

    def parse(argv: list[str]) -> list[str]:
        for name in ("config", "save_config"):  # so that --help shows them with the tool's own
            flags.FLAGS.register_key_flag_for_module(argv[0], flags.FLAGS[name])
        try:
            rest = flags.FLAGS(with_config(argv))
            if positional and len(rest) > 1:
                flags.FLAGS[positional].value = [*(flags.FLAGS[positional].value or []), *rest[1:]]
                flags.FLAGS[positional].present += 1
            save_config()
        except flags.Error as error:
            text = re.sub(r"flag --(\w+)=None: Flag --\w+ must have a value[^.]*", r"--\1 is missing", str(error))
            _fail(f"{text.rstrip(' .')}. Try --help.")
        except SystemExit:
            sys.exit(0)
        if len(rest) > 1 and not positional:
            _fail(f"Unexpected argument {rest[1]!r}: this tool takes flags only. Try --help.")
        return rest[:1]

    app.run(guarded, flags_parser=parse)


def with_config(argv: list[str]) -> list[str]:
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
    own = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(argv[0])} - {"config", "save_config"}
    unknown = sorted(values.keys() - own)
    if unknown:
        raise flags.Error(f"--config={path} has {', '.join(unknown)}; this tool knows {', '.join(sorted(own))}")
    given = [as_arguments(name, value) for name, value in values.items() if value is not None]
    return [argv[0], *itertools.chain.from_iterable(given), *argv[1:]]


def as_arguments(name: str, value) -> list[str]:
    """A flag on the command line, from its value in JSON; one that may be given several times, as often."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no{name}"]
    if isinstance(value, list) and isinstance(flags.FLAGS[name], flags.MultiFlag):
        return [f"--{name}={one}" for one in value]
    if isinstance(value, list):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value)
        value = line.getvalue()
    return [f"--{name}={value}"]


def given_flags() -> dict:
    """The tool's own flags that were given, by name; defaults are left out."""
    own = [flag for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]) if flag.present]
    return {flag.name: flag.value for flag in own if flag.name not in ("config", "save_config")}


def save_config() -> None:
    """Writes the flags that were given to the --save_config file."""
    path = flags.FLAGS.save_config
    if path is None:
        return
    try:
        pathlib.Path(path).write_text(json.dumps(given_flags(), indent=1) + "\n", encoding="utf-8")
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


def _fail(message) -> None:
    program = os.path.basename(sys.argv[0])
    print(f"{program}: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)


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
