"""Every Python block of the README runs, one after the other, on a small network."""

import importlib.util
import pathlib
import re

import keras
import numpy as np
import pytest

import kprune

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
OPTIONAL = {"export_onnx": "tf2onnx", "benchmark(": "ai_edge_litert", "quantize_aware": "tensorflow_model_optimization"}

pytestmark = pytest.mark.slow


def small_network():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem_conv")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.Conv2D(24, 3, padding="same", activation="relu", name="stage1_conv")(x)
    x = keras.layers.Add()([x, keras.layers.Conv2D(16, 3, padding="same", name="end")(y)])
    x = keras.layers.Conv2D(24, 3, padding="same", activation="relu", name="stage2_conv")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def namespace(tmp_path_factory):
    """What a user has before the first block: a trained, compiled network, and data."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(256, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 256)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = small_network()
    model.compile("sgd", loss, metrics=["accuracy"])
    folder = tmp_path_factory.mktemp("readme")
    kprune.export_tflite(model, folder / "model.tflite")
    small_network().save(folder / "mobilenet_2019.h5")
    return {
        **{"keras": keras, "model": model, "loss": loss, "validation": (x, y), "before": 1.0, "folder": folder},
        **{"x_train": x, "y_train": y, "x_test": x, "accuracy": lambda model, data: 1.0},
    }


def test_there_are_blocks():
    assert len(BLOCKS) >= 7


@pytest.mark.filterwarnings("ignore")
def test_the_readme_runs(namespace, monkeypatch):
    """In one test, since a block needs what those before it made, and tests may run in other processes."""
    monkeypatch.chdir(namespace["folder"])
    for number, block in enumerate(BLOCKS):
        if all(importlib.util.find_spec(package) for word, package in OPTIONAL.items() if word in block):
            exec(compile(block, f"README block {number}", "exec"), namespace)
