"""Where TensorFlow is not installed: what needs none works, what needs it says so (tools/test_environments.sh)."""

import importlib.util
import subprocess
import sys

import keras
import numpy as np
import pytest
from models import build, residual, run
from test_wrong_calls import assert_three_parts

import kprune

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="needs an environment without TensorFlow"
)
IMAGES = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")


def trained():
    model = build(residual)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, np.arange(32) % 3, epochs=3, verbose=0, callbacks=[kprune.SimilarityPruning(0.4)])
    return model


def test_what_a_user_does_from_training_to_the_smaller_file(tmp_path):
    model = trained()
    small = kprune.strip(model)
    np.testing.assert_allclose(run(small, IMAGES), run(model, IMAGES), rtol=1e-3, atol=1e-3)
    plan = kprune.plan_pruning(small, 0.3)
    plan.save(tmp_path / "plan.json")
    smaller = kprune.apply_plan(small, kprune.Plan.load(tmp_path / "plan.json"), data=IMAGES)
    assert (
        kprune.model_cost(smaller).flops <= 0.7 * kprune.model_cost(small).flops < 0.7 * kprune.model_cost(model).flops
    )
    smaller.save(tmp_path / "small.keras")
    np.save(tmp_path / "expected.npy", run(smaller, IMAGES))
    code = """
import sys, keras, numpy as np
model = keras.saving.load_model("small.keras")
images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
np.testing.assert_allclose(model.predict(images, verbose=0), np.load("expected.npy"), rtol=1e-5, atol=1e-5)
assert "kprune" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_the_command_line_prunes(tmp_path):
    build(residual).save(tmp_path / "model.keras")
    command = [sys.executable, "-m", "kprune", "prune", "model.keras", "--target_flops=0.4", "--output=small"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert list(tmp_path.rglob("small*"))


LEAVES = {
    "export_tflite": ("pip install tensorflow", lambda model, folder: kprune.export_tflite(model, folder / "a.tflite")),
    "export_onnx": ("pip install", lambda model, folder: kprune.export_onnx(model, folder / "a.onnx")),
    "export_saved_model": (
        "pip install tensorflow",
        lambda model, folder: kprune.export_saved_model(model, folder / "a"),
    ),
    "export_tftrt": ("pip install tensorflow", lambda model, folder: kprune.export_tftrt(model, folder / "a")),
    "quantize_aware": (r"pip install 'kprune\[quantization\]'", lambda model, folder: kprune.quantize_aware(model)),
    "to_tf_keras": (r"pip install 'kprune\[quantization\]'", lambda model, folder: kprune.to_tf_keras(model)),
    "from_tf_keras": (r"pip install 'kprune\[quantization\]'", lambda model, folder: kprune.from_tf_keras(model)),
    "benchmark_tflite": ("pip install ai-edge-litert", lambda model, folder: kprune.benchmark_tflite(given(folder))),
    "read_metadata": ("pip install tensorflow", lambda model, folder: kprune.read_metadata(given(folder))),
    "read_metadata of ONNX": (
        r"pip install 'kprune\[export\]'",
        lambda model, folder: kprune.read_metadata(given(folder, "onnx")),
    ),
    "benchmark of a SavedModel": (
        "pip install tensorflow",
        lambda model, folder: kprune.benchmark(saved_model(folder)),
    ),
}


def given(folder, kind="tflite"):
    path = folder / f"given.{kind}"
    path.write_bytes(b"a file from another machine")
    return path


def saved_model(folder):
    given(folder).rename(folder / "saved_model.pb")
    return folder


@pytest.mark.parametrize("name", LEAVES)
def test_what_needs_tensorflow_says_what_to_install(name, tmp_path):
    fix, call = LEAVES[name]
    with pytest.raises(kprune.KpruneError, match=f"Fix: {fix}") as caught:
        call(build(residual), tmp_path)
    assert_three_parts(caught.value)
