"""`python -m kprune`: lists the command-line tools, and runs one by its name."""

import ast
import contextlib
import pathlib
import runpy
import sys
from importlib import metadata

ORDER = ("prune", "report", "export_tflite", "export_onnx", "export_saved_model", "benchmark", "profile_layers", "plot")
USAGE = "usage: python -m kprune TOOL [flags]     python -m kprune TOOL --help"


def find_tools() -> dict[str, pathlib.Path]:
    """The scripts by name: those of the checkout that this package lies in, else those installed with it."""
    found = pathlib.Path(__file__).resolve().parent.parent / "tools"
    paths = list(found.glob("*.py")) if (found / "_cli.py").is_file() else []
    if not paths:
        with contextlib.suppress(metadata.PackageNotFoundError):
            files = metadata.files("kprune") or ()
            paths = [pathlib.Path(f.locate()).resolve() for f in files if f.match("share/kprune/tools/*.py")]
    names = {path.stem: path for path in paths if not path.name.startswith("_")}
    order = [*(name for name in ORDER if name in names), *sorted(names.keys() - set(ORDER))]
    return {name: names[name] for name in order}


def listing(tools: dict[str, pathlib.Path]) -> str:
    """What each tool does, in the first line of its docstring."""
    width = max(map(len, tools), default=0)
    lines = []
    for name, path in tools.items():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:<{width}}  {text.partition(chr(10))[0]}")
    where = f"The scripts lie in {next(iter(tools.values())).parent}." if tools else "No tools are installed."
    note = (
        "Each takes --config=run.json with its flags, and writes one with --save_config=run.json, except\n"
        "jetson_benchmark, which stands alone."
    )
    return "\n".join([USAGE, "", *lines, "", note, where])


def main(arguments: list[str]) -> int:
    """Runs the tool that the first argument names; without one, or with --help, lists them.

    Returns:
      The exit code: 2 for a name that is none.
    """
    tools = find_tools()
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(listing(tools))
        return 0
    name, *rest = arguments
    if name not in tools:
        print(f"kprune: there is no tool {name!r}; there are {', '.join(tools)}.", file=sys.stderr)
        return 2
    sys.argv = [str(tools[name]), *rest]
    sys.path.insert(0, str(tools[name].parent))
    runpy.run_path(str(tools[name]), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
