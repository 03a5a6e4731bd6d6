"""Every Python block of the README, of docs/ and of examples/ runs, one after the other, on a small network."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import kprune

ROOT = pathlib.Path(__file__).resolve().parent.parent
OPTIONAL = {"export_onnx": "tf2onnx", "benchmark(": "ai_edge_litert", "quantize_aware": "tensorflow_model_optimization"}
OPTIONAL |= {"micro_memory": "tflite_micro"}

pytestmark = pytest.mark.slow


def pages():
    """What else than the README has blocks."""
    return sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def blocks_of(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


PAGES = {page: blocks_of(page) for page in (str(path.relative_to(ROOT)) for path in pages())}


def small_network():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem_conv")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.Conv2D(24, 3, padding="same", activation="relu", name="stage1_conv")(x)
    x = keras.layers.Add()([x, keras.layers.Conv2D(16, 3, padding="same", name="end")(y)])
    x = keras.layers.Conv2D(24, 3, padding="same", activation="relu", name="stage2_conv")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What lies where a user works: files of an exported network, and one of Keras 2."""
    folder = tmp_path_factory.mktemp("readme")
    kprune.export_tflite(small_network(), folder / "model.tflite")
    small_network().save(folder / "mobilenet_2019.h5")
    return folder


@pytest.fixture
def namespace():
    """What a user has before the first block: a trained, compiled network, and data."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(256, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 256)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = small_network()
    model.compile("sgd", loss, metrics=["accuracy"])
    return {
        **{"model": model, "loss": loss, "validation": (x, y), "x_train": x, "y_train": y, "x_test": x},
        "accuracy": lambda model, data: 1.0,
    }


def run_blocks(page, namespace):
    """In one test, since a block needs what those before it made, and tests may run in other processes.

    A block for another backend of Keras than this process has is not run here; `test_jax_blocks_run` does it.
    """
    for number, block in enumerate(blocks_of(page)):
        installed = all(importlib.util.find_spec(package) for word, package in OPTIONAL.items() if word in block)
        if installed and JAX_ONLY not in block:
            exec(compile(block, f"{page}, block {number}", "exec"), namespace)


JAX_ONLY = "keras.distribution.DataParallel"
IN_JAX = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import keras, numpy, test_readme
build = test_readme.small_network
{block}
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(numpy.zeros((8, 8, 8, 3)), numpy.zeros(8), verbose=0)
"""


GUIDES = sorted(path.stem for path in ROOT.glob("docs/guides/*.md"))


def test_there_are_blocks():
    assert blocks_of("README.md") and len(GUIDES) >= 9
    assert all(PAGES[f"docs/guides/{guide}.md"] for guide in GUIDES) and sum(map(len, PAGES.values())) >= 40


def test_every_function_is_shown_in_a_block():
    """Of what users call; but for what needs a device or a GPU's TensorFlow, and what one is only given."""
    shown = "\n".join(block for page in ("README.md", *PAGES) for block in blocks_of(page))
    names = {name for name in kprune.__all__ if not name.endswith("Error")}
    names -= {"Cost", "PruningRecord", "MaskedLayer", "Measurement", "Report"}
    names -= {"export_tftrt", "from_tf_keras", "to_tf_keras"}
    assert not [name for name in sorted(names) if not re.search(rf"\b{name}\b", shown)]


@pytest.mark.filterwarnings("ignore")
def test_the_readme_runs(folder, namespace, monkeypatch):
    monkeypatch.chdir(folder)
    run_blocks("README.md", namespace)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs TensorFlow's strategies")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if blocks])
def test_the_pages_of_docs_run(page, folder, namespace, monkeypatch):
    tf = pytest.importorskip("tensorflow")
    monkeypatch.chdir(folder)
    run_blocks(page, namespace | {"keras": keras, "tf": tf, "kprune": kprune, "build": small_network, "worker": 0})


def test_jax_blocks_run():
    pytest.importorskip("jax")
    block = "\n".join(block for blocks in PAGES.values() for block in blocks if JAX_ONLY in block)
    code = IN_JAX.format(root=str(ROOT), tests=str(ROOT / "tests"), block=block)
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and block, done.stderr
