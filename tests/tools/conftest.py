"""Scripts in the process of the tests, which saves the seconds that a new one needs to import TensorFlow."""

import pathlib
import runpy
import sys

import pytest
from absl import flags

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def run_script(monkeypatch):
    """Runs a tool by name with some arguments, as `__main__` or as a module; gives what it defines. Its flags go."""
    monkeypatch.syspath_prepend(str(TOOLS))

    def run(name, *arguments, run_name="__main__"):
        program = str(TOOLS / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        try:
            return runpy.run_path(program, run_name=run_name)
        finally:
            defined = flags.FLAGS.flags_by_module_dict()
            for flag in [flag for module in {program, run_name} for flag in defined.get(module, ())]:
                delattr(flags.FLAGS, flag.name)
            for name in {"config", "save_config"}.intersection(flags.FLAGS):
                flags.FLAGS[name].unparse()

    return run
