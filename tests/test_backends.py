"""The core on another backend: the digits network is traced, pruned, masked while it trains, and stripped on JAX."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import kprune
from digits_data import build_digits_resnet

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = """
import json, sys
import keras, numpy as np
import kprune
from digits_data import build_digits_resnet, load_digits_images

(x, y), (x_test, _) = load_digits_images()
model = build_digits_resnet(seed=1)
model.load_weights(sys.argv[1])
plan = kprune.plan_pruning(model, 0.5)
hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
run = lambda m: keras.ops.convert_to_numpy(m(x_test[:32]))
one_shot = float(np.abs(run(hard) - run(soft)).max() / np.abs(run(soft)).max())
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.AdamW(3e-3), loss, metrics=["accuracy"])
callback = kprune.SimilarityPruning(0.5)
history = model.fit(x, y, batch_size=128, epochs=3, verbose=0, callbacks=[callback]).history
small = kprune.strip(model)
trained = float(np.abs(run(small) - run(model)).max() / np.abs(run(model)).max())
print(json.dumps({"backend": keras.backend.backend(), "keep": [e.keep for e in plan.layers], "one_shot": one_shot,
    "trained": trained, "accuracy": history["accuracy"][-1],
    "flops": [kprune.model_cost(small).flops, *callback.plan.flops]}))
"""


@pytest.fixture(scope="module", params=["jax", "torch"])
def result(request, tmp_path_factory):
    """What the script saw on the other backend, and the plan made here for the same weights."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"needs {request.param}")
    weights = tmp_path_factory.mktemp("digits") / "digits.weights.h5"
    model = build_digits_resnet(seed=1)
    model.save_weights(weights)
    environment = os.environ | {"KERAS_BACKEND": request.param, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples'}"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(weights)]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    assert found["backend"] == request.param
    return found, kprune.plan_pruning(model, 0.5)


@pytest.mark.slow
def test_the_plan_is_that_of_this_backend(result):
    found, plan = result
    assert found["keep"] == [list(entry.keep) for entry in plan.layers]


@pytest.mark.slow
def test_masked_equals_removed(result):
    found, _ = result
    assert found["one_shot"] < 1e-5 and found["trained"] < 1e-4


@pytest.mark.slow
def test_the_callback_reaches_the_target_and_the_network_learns(result):
    found, _ = result
    stripped, before, after = found["flops"]
    assert stripped == after <= 0.5 * before
    assert np.isfinite(found["accuracy"]) and found["accuracy"] > 0.5
