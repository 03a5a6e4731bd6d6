"""From words to commands; and what a new process shows."""

import os
import pathlib
import subprocess
import sys

import pytest

import kprune
from kprune.cli.main import COMMANDS

ROOT = pathlib.Path(__file__).resolve().parents[2]


def process(folder, *command, **environment):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_the_commands_are_listed_with_what_each_does(command, arguments):
    code, printed, error = command(*arguments)
    assert code == 0 and not error
    assert all(f"\n  {name:<9}  {text}\n" in printed for name, text in COMMANDS.items())


def test_the_version_is_that_of_the_package(command):
    assert command("--version") == (0, f"kprune {kprune.__version__}\n", "")


def test_a_misspelt_command_is_told_what_it_may_have_meant(mistake):
    assert "no command 'prnue'; did you mean prune?" in mistake("prnue")
    error = mistake("xyz")
    assert all(name in error for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_how_a_command_is_called_and_its_own_flags_alone(command, name):
    code, printed, error = command(name, "--help")
    assert code == 0 and not error and printed == command("help", name)[1]
    assert printed.startswith(f"usage: kprune {name} ") and f"  kprune {name} " in printed
    assert "--config=" in printed and "--save_config=" in printed
    assert "--verbosity" not in printed and "--pdb" not in printed
    assert max(map(len, printed.splitlines())) <= 120


def test_help_wants_no_keras(tmp_path):
    """The name of the program is what tells the package to wait."""
    code = (
        "import sys; sys.argv = ['kprune', 'prune', '--help']\n"
        "from kprune.cli import main\n"
        "try: main()\n"
        "finally: assert 'keras' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = process(tmp_path, sys.executable, "-c", code)
    assert done.returncode == 0 and "--target_flops=NUMBER" in done.stdout and not done.stderr, done.stderr


def test_a_reader_may_stop_reading(tmp_path):
    program = f"{sys.executable} -m kprune prune --help"
    done = process(tmp_path, "bash", "-c", f"set -o pipefail; {program} | (exec <&-; sleep 2)")
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("program", ["kprune", str(ROOT / "tools" / "fuzz.py")])
def test_where_the_command_runs_the_package_has_all_its_names(tmp_path, program):
    code = (
        f"import sys; sys.argv = [{program!r}]\n"
        "import kprune\n"
        "assert 'keras' not in sys.modules\n"
        "for name in [*kprune.__all__, 'callbacks', 'plots', 'export']: getattr(kprune, name)\n"
        "assert kprune.prune_model is kprune.pruning.prune_model and not hasattr(kprune, 'nothing')\n"
    )
    done = process(tmp_path, sys.executable, "-c", code, KERAS_BACKEND="numpy")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("program", [("-m", "kprune", "export"), (str(ROOT / "tools" / "export_tflite.py"),)])
def test_a_new_process_writes_what_it_has_to_say_and_nothing_of_tensorflow(folder, program):
    quantized = ["--output=new.tflite", "--quantize=int8", "--representative_data=images.npy"]
    done = process(folder, sys.executable, *program, "model.keras", *quantized)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout.startswith("new.tflite: int8 TFLite file") and len(done.stdout.splitlines()) == 2
