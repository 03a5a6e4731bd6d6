"""The command-line tools around TFLite, run as users run them: from another folder."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from kprune.deploy.export import export_tflite
from kprune.deploy.timing import run_tflite

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run_tool(folder, tool, *arguments, backend="numpy"):
    """Runs a tool; the NumPy backend, which starts fastest, wherever no TensorFlow is needed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": backend}
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def assert_one_line(result, *words):
    """Exit code 2, one line on stderr that says these words, nothing on stdout."""
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1 and not result.stdout
    assert all(word in result.stderr for word in words), result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, data for it, a TFLite file of it and a file that is none."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("cli")
    inputs = keras.Input((8, 8, 3), name="image")
    model = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(layers.Conv2D(4, 3)(inputs))))
    model.save(folder / "net.keras")
    images = np.random.default_rng(0).normal(size=(9, 8, 8, 3)).astype("float32")
    np.savez(folder / "data.npz", images=images, labels=np.zeros(9))
    export_tflite(model, folder / "net.tflite")
    (folder / "broken.tflite").write_text("broken")
    return folder


@pytest.mark.parametrize("tool, flag", [("export_tflite.py", "--quantize"), ("benchmark.py", "--threads")])
def test_help_names_the_flags(tmp_path, tool, flag):
    result = run_tool(tmp_path, tool, "--help")
    assert result.returncode == 0 and flag in result.stdout and tool in result.stdout and not result.stderr


@pytest.mark.parametrize(
    "tool, arguments, words",
    [
        ("export_tflite.py", [], ["--model is missing", "--output is missing"]),
        ("export_tflite.py", ["--modle=x"], ["Unknown command line flag 'modle'"]),
        ("export_tflite.py", ["--model=x", "--output=y", "--quantize=int4"], ["int4", "float16"]),
        ("export_tflite.py", ["--model=x", "--output=y", "z"], ["Unexpected argument 'z'"]),
        ("benchmark.py", ["--runs=0", "x"], ["--runs=0", "positive"]),
    ],
)
def test_a_wrong_flag_is_one_line(tmp_path, tool, arguments, words):
    assert_one_line(run_tool(tmp_path, tool, *arguments), *words)


@pytest.mark.parametrize(
    "tool, arguments, words",
    [
        ("export_tflite.py", ["--model=missing.keras", "--output=x.tflite"], ["no model file", "To mend"]),
        ("benchmark.py", ["broken.tflite"], ["broken.tflite could not be opened"]),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(folder, tool, arguments, words):
    assert_one_line(run_tool(folder, tool, *arguments), *words)
    assert not (folder / "x.tflite").exists()


def test_export_writes_the_quantized_file(folder):
    data = ["--representative_data=data.npz", "--representative_key=images"]
    result = run_tool(
        folder, "export_tflite.py", "--model=net.keras", "--output=q.tflite", "--quantize=int8", *data,
        backend="tensorflow",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "int8" in result.stdout and "9 samples" in result.stdout
    assert run_tflite(folder / "q.tflite", np.zeros((1, 8, 8, 3))).shape == (1, 4)


@pytest.mark.parametrize("tool", ["benchmark.py", "benchmark_tflite.py"])
def test_benchmark_writes_the_times_of_every_file(folder, tool):
    files = ["net.tflite", "--files=net.tflite"]
    result = run_tool(folder, tool, *files, "--runs=7", "--output=times.json")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 4 and "median of 7 runs" in result.stdout
    timings = json.loads((folder / "times.json").read_text())["models"]
    assert [(timing["path"], len(timing["samples_ms"])) for timing in timings] == [("net.tflite", 7)] * 2


def test_a_saved_config_times_the_same_files_and_the_median_stands_alone(folder):
    result = run_tool(folder, "benchmark.py", "net.tflite", "--runs=3", "--median", "--save_config=times_config.json")
    assert result.returncode == 0 and float(result.stdout) > 0, result.stderr
    config = json.loads((folder / "times_config.json").read_text())
    assert config == {"files": ["net.tflite"], "runs": 3, "median": True}
    again = run_tool(folder, "benchmark.py", "--config=times_config.json")
    assert again.returncode == 0 and float(again.stdout) > 0, again.stderr


def test_arrays_are_read_by_key_or_all(folder):
    import _cli
    from kprune.utils.errors import OptionError

    assert set(_cli.load_arrays(folder / "data.npz")) == {"images", "labels"}
    assert _cli.load_arrays(folder / "data.npz", "labels").shape == (9,)
    with pytest.raises(OptionError, match="no key 'x'"):
        _cli.load_arrays(folder / "data.npz", "x")
    with pytest.raises(OptionError, match="cannot be read"):
        _cli.load_arrays(folder / "broken.tflite")
