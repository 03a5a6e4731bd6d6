"""`kprune export`: each format, checked against the model."""

import json

import keras
import numpy as np
import pytest

import kprune

pytestmark = pytest.mark.tensorflow


def test_the_file_lies_beside_the_model_by_its_name(command, folder):
    code, printed, error = command("export", "model.keras")
    assert code == 0 and printed.startswith("model.tflite: float32 TFLite file"), error
    assert (folder / "model.tflite").stat().st_size > 1000


def test_export_writes_the_quantized_file(command, folder):
    data = ["--representative_data=data.npz", "--representative_key=x", "--check_data=images.npy"]
    code, printed, error = command("export", "model.keras", "--output=q.tflite", "--quantize=int8", *data)
    assert code == 0 and "int8" in printed and "9 samples" in printed, error
    shape = keras.models.load_model(folder / "model.keras").input_shape[1:]
    assert kprune.run_tflite(folder / "q.tflite", np.zeros((1, *shape))).shape == (1, 3)


def test_export_onnx_writes_a_checked_file_and_its_record(command, mistake, folder):
    pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    given = ["model.keras", "--format=onnx", "--check_data=images.npy", "--record=onnx.json"]
    code, printed, _ = command("export", *given)
    record = json.loads((folder / "onnx.json").read_text())["export"]
    assert code == 0 and "9 samples" in printed
    assert record["size_bytes"] == (folder / "model.onnx").stat().st_size and record["error"] < 1e-4
    assert "already there" in mistake("export", "model.keras", "--format=onnx", "--nooverwrite")


def test_export_saved_model_writes_a_checked_folder(command, mistake, folder):
    code, printed, _ = command("export", "model.keras", "--format=saved_model", "--check_data=images.npy")
    assert code == 0 and "9 samples" in printed and (folder / "model_saved_model" / "saved_model.pb").is_file()
    assert "FP16" in mistake("export", "model.keras", "--format=tftrt", "--precision=FP8")
    assert "TensorRT" in mistake("export", "model.keras", "--format=tftrt", "--output=trt")
    assert not (folder / "trt").exists()


def test_export_tflite_tells_the_arena_of_a_microcontroller(command, folder):
    pytest.importorskip("tflite_micro")
    given = ["model.keras", "--output=micro.tflite", "--batch_size=1", "--micro_memory", "--record=micro.json"]
    code, printed, _ = command("export", *given)
    assert code == 0 and "kB of arena under TFLite Micro" in printed
    arena = json.loads((folder / "micro.json").read_text())["export"]["arena_bytes"]
    assert arena == kprune.micro_memory(folder / "micro.tflite").arena_bytes


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["missing.keras", "--output=x.tflite"], "no model file missing.keras"),
        (["model.keras", "--format=onnx", "--quantize=int8"], "--quantize is for --format=tflite, not for onnx"),
        (["model.keras", "--opset=13"], "--opset is for --format=onnx, not for tflite"),
        (["model.keras", "--format=onnx", "--representative_data=images.npy"], "--check_data is"),
        (["model.keras", "--format=tftrt", "--check_data=images.npy"], "--check_data is not for --format=tftrt"),
        (["model.keras", "--representative_key=x"], "--representative_key is for --representative_data"),
    ],
)
def test_a_mistake_is_one_line(mistake, folder, arguments, words):
    assert words in mistake("export", *arguments)
    assert not (folder / "x.tflite").exists()
