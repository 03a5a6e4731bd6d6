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
from digits_data import build_digits_resnet, load_digits_images

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = """
import json, sys
import keras, numpy as np
import kprune
from digits_data import build_digits_resnet, load_digits_images
from test_backends import data_scores

(x, y), (x_test, _) = load_digits_images()
model = build_digits_resnet(seed=1)
model.load_weights(sys.argv[1])
plan = kprune.plan_pruning(model, 0.5)
hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
run = lambda m: keras.ops.convert_to_numpy(m(x_test[:32]))
one_shot = float(np.abs(run(hard) - run(soft)).max() / np.abs(run(soft)).max())
scores = data_scores(model, x, y)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.AdamW(3e-3), loss, metrics=["accuracy"])
callback = kprune.SimilarityPruning(0.5)
history = model.fit(x, y, batch_size=128, epochs=3, verbose=0, callbacks=[callback]).history
small = kprune.strip(model)
trained = float(np.abs(run(small) - run(model)).max() / np.abs(run(model)).max())
gradual = build_digits_resnet(seed=1, widths=(6, 8, 8))
gradual.compile(keras.optimizers.AdamW(3e-3), loss)
by_relevance = kprune.GradualPruning("relevance", 0.3, until_epoch=1, data=(x[:64], y[:64]))
gradual.fit(x[:256], y[:256], batch_size=128, epochs=2, verbose=0, callbacks=[by_relevance, kprune.BatchNormPenalty()])
small_gradual = kprune.strip(gradual)
by_scores = float(np.abs(run(small_gradual) - run(gradual)).max() / np.abs(run(gradual)).max())
print(json.dumps({"backend": keras.backend.backend(), "keep": [e.keep for e in plan.layers], "one_shot": one_shot,
    "trained": trained, "by_scores": by_scores, "scores": scores,
    "gradual": [kprune.model_cost(small_gradual).flops, *by_relevance.plan.flops], "accuracy": history["accuracy"][-1],
    "flops": [kprune.model_cost(small).flops, *callback.plan.flops]}))
"""


PATHS = os.pathsep.join(map(str, (ROOT, ROOT / "examples", ROOT / "tests")))


def data_scores(model, x, y):
    """The scores of channel sets by criteria that carry something back, on the backend in use."""
    graph, found = kprune.graph.trace(model), {}
    for name in ("relevance", "taylor", "apoz"):
        criterion = kprune.criteria.get_criterion(name)
        statistics = kprune.criteria.collect(graph, (x[:64], y[:64]), criterion.needs, verbose=0)
        found[name] = criterion.scores(graph, np.ones(len(graph.sets), dtype=bool), statistics).tolist()
    return found


@pytest.fixture(scope="module", params=["jax", "torch"])
def result(request, tmp_path_factory):
    """What the script saw on the other backend, and the model with the same weights here."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"needs {request.param}")
    weights = tmp_path_factory.mktemp("digits") / "digits.weights.h5"
    model = build_digits_resnet(seed=1)
    model.save_weights(weights)
    environment = os.environ | {"KERAS_BACKEND": request.param, "PYTHONPATH": PATHS}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(weights)]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    assert found["backend"] == request.param
    return found, model


@pytest.mark.slow
def test_the_plan_is_that_of_this_backend(result):
    found, model = result
    plan = kprune.plan_pruning(model, 0.5)
    assert found["keep"] == [list(entry.keep) for entry in plan.layers]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relevance", "taylor", "apoz"])
def test_scores_from_data_are_those_of_this_backend(result, name):
    found, model = result
    (x, y), _ = load_digits_images()
    expected = np.array(data_scores(model, x, y)[name])
    np.testing.assert_allclose(found["scores"][name], expected, rtol=1e-2, atol=1e-3 * expected.max())


@pytest.mark.slow
def test_gradual_pruning_reaches_the_target_and_masked_equals_removed(result):
    found, _ = result
    stripped, before, after = found["gradual"]
    assert stripped == after <= 0.7 * before and found["by_scores"] < 1e-4


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
