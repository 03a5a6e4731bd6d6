"""The device script: old grammar, every kind of file, what it says where something is missing."""

import ast
import json
import os
import pathlib
import stat
import sys
import types

import keras
import numpy as np
import pytest
from keras import layers

import jetson_benchmark
import kprune
from kprune.deploy.export import export_onnx, export_saved_model, export_tflite

SCRIPT = pathlib.Path(jetson_benchmark.__file__)
FAKE_TRTEXEC = f"""#!{sys.executable}
import json, sys
out = next(a.split("=")[1] for a in sys.argv if a.startswith("--exportTimes"))
if "broken" in sys.argv[1]:
    sys.exit("[E] could not parse")
print("&&&& RUNNING TensorRT.trtexec [TensorRT v8502]")
json.dump([{{"latencyMs": 1.0 + ("--fp16" in sys.argv)}}] * 4, open(out, "w"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    inputs = keras.Input((8, 8, 3), name="image")
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Conv2D(4, 3)(inputs))))
    export_tflite(model, folder / "net.tflite")
    export_saved_model(model, folder / "net")
    try:
        export_onnx(model, folder / "net.onnx")
    except ValueError:  # without tf2onnx the other two are timed
        pass
    return folder


def run(tmp_path, *arguments):
    output = tmp_path / "result.json"
    code = jetson_benchmark.main([*map(str, arguments), f"--output={output}", "--runs=5", "--warmup=1"])
    return code, json.loads(output.read_text())


def test_the_grammar_is_that_of_python_3_6():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


def test_it_imports_numpy_and_the_standard_library_only():
    tree = ast.parse(SCRIPT.read_text())
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert set(names) - set(sys.stdlib_module_names) == {"numpy"}


def test_every_file_of_a_folder_is_timed_in_turn(folder, tmp_path, capsys):
    code, report = run(tmp_path, folder)
    kinds = {pathlib.Path(row["model"]).name: row for row in report["models"]}
    assert code == 0 and set(kinds) == {path.name for path in folder.iterdir()}
    for row in kinds.values():
        if "error" not in row:
            assert len(row["samples_ms"]) == row["runs"] == 5 and row["in_turn"]
            assert row["median_ms"] == pytest.approx(np.median(row["samples_ms"]))
            assert row["p10_ms"] <= row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert "error" not in kinds["net.tflite"] and "error" not in kinds["net"]
    assert report["device"]["python"] and "net.tflite" in capsys.readouterr().out


def test_models_take_turns():
    order = []

    class Model:
        def __init__(self, name):
            self.run, self.runtime = lambda: order.append(name), name

    options = jetson_benchmark.parse(["x", "--runs=2", "--warmup=1"])
    rows = jetson_benchmark.time_in_turn([("a", Model("a")), ("b", Model("b"))], options)
    assert order == ["a", "b"] * 3 and [len(row["samples_ms"]) for row in rows] == [2, 2]


def test_a_model_that_fails_while_it_runs_does_not_take_the_others_with_it():
    class Model:
        runtime, left = "fake", 3

        def run(self):
            self.left -= 1
            if self.left < 0:
                raise MemoryError("no memory left\nsecond line")

    good, options = Model(), jetson_benchmark.parse(["x", "--runs=4", "--warmup=1"])
    good.left = 100
    rows = jetson_benchmark.time_in_turn([("bad", Model()), ("good", good)], options)
    assert rows[0] == {"model": "bad", "error": "in run 4: no memory left"} and rows[1]["runs"] == 4


@pytest.mark.parametrize("module, version", [("wrap_py_utils", (5, 1, 6)), ("_pywrap_py_utils", (7, 1, 3))])
def test_old_tensorflow_tells_tensorrt_by_its_version(monkeypatch, module, version):
    name = "tensorflow.compiler.tf2tensorrt"
    packages = [types.ModuleType(part) for part in ("tensorflow", "tensorflow.compiler", name, f"{name}.{module}")]
    packages[-1].get_linked_tensorrt_version = lambda: version
    for other in [key for key in sys.modules if key.startswith(name)]:
        monkeypatch.delitem(sys.modules, other)
    for package in packages:
        package.__path__ = []
        monkeypatch.setitem(sys.modules, package.__name__, package)
    old = types.SimpleNamespace(sysconfig=types.SimpleNamespace())
    assert jetson_benchmark.has_tensorrt(old) and jetson_benchmark.tensorrt_version() == version
    assert jetson_benchmark.tensorrt_name(old) == f", TensorRT {'.'.join(map(str, version))}"
    packages[-1].get_linked_tensorrt_version = lambda: (0, 0, 0)
    assert not jetson_benchmark.has_tensorrt(old)


def test_the_median_alone_is_what_a_stop_watch_takes(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = f"{sys.executable} {SCRIPT} {{path}} --runs=5 --warmup=1 --median"
    ms = kprune.CommandStopwatch(command)(folder / "net.tflite")
    (row,) = json.loads((tmp_path / "jetson_benchmark.json").read_text())["models"]
    assert ms == pytest.approx(row["median_ms"], rel=1e-4)
    (tmp_path / "broken.tflite").write_text("no model")
    with pytest.raises(kprune.ModelError, match="exit code 1"):
        kprune.CommandStopwatch(command)(tmp_path / "broken.tflite")


def test_what_tf_trt_lacks_is_said_and_the_rest_is_timed(folder, tmp_path):
    import tensorflow as tf

    if jetson_benchmark.has_tensorrt(tf):
        pytest.skip("this TensorFlow has TensorRT")
    code, report = run(tmp_path, folder / "net", "--tftrt=FP16")
    assert code == 0 and len(report["models"]) == 2
    assert "built without TensorRT" in report["models"][1]["error"]


def test_trtexec_is_run_on_onnx_files(tmp_path, monkeypatch):
    program = tmp_path / "trtexec"
    program.write_text(FAKE_TRTEXEC)
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("net.onnx", "broken.onnx"):
        (tmp_path / name).write_text("no model")
    code, report = run(tmp_path, tmp_path / "net.onnx", "--trtexec=fp16", "--trtexec=fp32")
    rows = {row["model"].split(", ")[-1]: row for row in report["models"] if "trtexec" in row["model"]}
    assert code == 0 and rows["trtexec fp16"]["median_ms"] == 2.0 and rows["trtexec fp32"]["median_ms"] == 1.0
    assert rows["trtexec fp16"]["in_turn"] is False and "8502" in rows["trtexec fp16"]["runtime"]
    code, report = run(tmp_path, tmp_path / "broken.onnx", "--trtexec=fp16")
    assert code == 1 and "could not parse" in report["models"][-1]["error"]


def test_a_broken_file_does_not_keep_others_from_being_timed(folder, tmp_path):
    (tmp_path / "broken.tflite").write_text("no model")
    code, report = run(tmp_path, tmp_path / "broken.tflite", folder / "net.tflite")
    assert code == 0 and [("error" in row) for row in report["models"]] == [False, True]


@pytest.mark.parametrize("arguments", [["missing"], ["file.txt"], ["x", "--runs=0"], [], ["x", "--output=no/x.json"]])
def test_wrong_arguments_end_it(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(SystemExit) as error:
        jetson_benchmark.main(arguments)
    assert error.value.code not in (0, None)


def test_inputs_do_not_depend_on_the_order_of_names():
    specs = [("b", (None, 2), "float32"), ("a", (-1, 3), "uint8")]
    first, second = (jetson_benchmark.random_inputs(s, 4, 0) for s in (specs, specs[::-1]))
    assert all(np.array_equal(first[name], second[name]) for name in "ab")
    assert first["b"].shape == (4, 2) and first["a"].dtype == "uint8"
    with pytest.raises(jetson_benchmark.Unusable, match="must be fixed"):
        jetson_benchmark.random_inputs([("a", (1, None), "float32")], 1, 0)
