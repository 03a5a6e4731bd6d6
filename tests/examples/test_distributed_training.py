"""Several devices prune as one does: the same filters, the same network, on every worker."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import kprune
from digits_data import load_digits_images

ROOT = pathlib.Path(__file__).resolve().parents[2]
# One image that two devices cannot share, and a last batch of twelve.
SMALL = ["--images=141", "--batch=16", "--widths=8"]
# Trains by one strategy after the other in one process, to import the backend once. With several workers this starts
# itself again, once per worker.
SCRIPT = """
import pathlib
import sys

import distributed_training as example
import kprune.compat
import numpy as np
from digits_data import load_digits_images
from kprune.surgery.masks import FilterMask

def prune_in_rounds():
    (x, y), _ = load_digits_images()
    x, y = x[:128], y[:128]

    def fit(model):
        kprune.compat.fix_multiworker_fit(model).fit(x, y, batch_size=16, shuffle=False, verbose=0)

    with example.make_scope():
        run = kprune.prune_iteratively(example.make_model(), fit, 0.5, criterion="l1", rounds=2, verbose=False)
    return run.model, run.plan

def write_outputs(model, path):
    outputs = {"outputs": model.predict(load_digits_images()[1][0], batch_size=16, verbose=0)}
    if "val_accuracy" in model.history.history:
        outputs["val_accuracy"] = model.history.history["val_accuracy"][-1]
    np.savez(path / f"outputs{example.file_suffix()}.npz", **outputs)
    if example.FLAGS.strategy == "mirrored":
        read = model.distribute_strategy.experimental_local_results
        masked = [weight for weight in model.weights if isinstance(weight.constraint, FilterMask)]
        np.savez(path / "replicas.npz", *(np.stack(read(weight.value)) for weight in masked))

example.FLAGS(sys.argv[:1] + sys.argv[3:])
for run in sys.argv[2].split(","):
    example.FLAGS.strategy, _, method = run.partition("-")
    example.FLAGS.criterion = "similarity" if method in ("", "rounds") else method
    example.FLAGS.penalty = 0.02 if method == "relevance" else 0.0
    example.FLAGS.output = f"{sys.argv[1]}/{run}"
    example.prepare()
    model, plan = prune_in_rounds() if method == "rounds" else example.train()
    example.finish(model, plan)
    write_outputs(model, pathlib.Path(example.FLAGS.output))
"""


def environment(**changes):
    # One thread a process: the workers share this machine.
    paths = f"{ROOT}{os.pathsep}{ROOT / 'examples'}"
    return os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "TF_NUM_INTRAOP_THREADS": "1"} | changes


def train(folder, runs, *arguments, **changes) -> str:
    """Runs the script.

    Returns:
      What it printed, over all workers.
    """
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-W", "ignore", str(script), str(folder), ",".join(runs), *SMALL, *arguments]
    options = {"check": True, "timeout": 600, "stdout": subprocess.PIPE, "text": True}
    return subprocess.run(command, env=environment(**changes), **options).stdout


def assert_alike(expected, found, worker=""):
    """The same plan, and the same weights to what rounding makes of a few steps."""
    plans = [
        kprune.Plan.load(folder / name) for folder, name in ((expected, "plan.json"), (found, f"plan{worker}.json"))
    ]
    assert plans[0] == plans[1] and plans[0].flops[1] <= 0.5 * plans[0].flops[0]
    one = keras.models.load_model(expected / "pruned.keras")
    other = keras.models.load_model(found / f"pruned{worker}.keras")
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert_same_outputs(other, found / f"outputs{worker}.npz")


def assert_same_outputs(model, path):
    """`predict` under the strategy gave the rows of the stripped network; validation in `fit` gave their accuracy."""
    x_test, y_test = load_digits_images()[1]
    expected, told = model.predict(x_test, verbose=0), np.load(path)
    np.testing.assert_allclose(told["outputs"], expected, atol=1e-3)
    if "val_accuracy" in told:
        assert told["val_accuracy"] == pytest.approx((expected.argmax(-1) == y_test).mean(), abs=1e-6)


def assert_evaluated(folder, printed, criterion):
    """`evaluate` under the strategy gave the accuracy of the stripped network, on every worker."""
    (x_test, y_test) = load_digits_images()[1]
    outputs = keras.models.load_model(folder / "pruned.keras").predict(x_test, verbose=0)
    expected = f"accuracy {(outputs.argmax(-1) == y_test).mean():.2%}"
    lines = [line for line in printed.splitlines() if line.startswith(f"{criterion}, multiworker")]
    assert len(lines) == 2 and all(line.endswith(expected) for line in lines)


def assert_penalized(folder):
    """The scales of the BatchNorms, 1 at the start, became smaller than without a penalty."""
    weights = keras.models.load_model(folder / "pruned.keras").weights
    assert np.mean([weight.numpy().mean() for weight in weights if weight.name == "gamma"]) < 0.9


def assert_replicas_agree(folder):
    """Both replicas hold the same weights, and the same zeros in them, to the bit."""
    replicas = list(np.load(folder / "replicas.npz").values())
    assert any((kernels == 0).any() for kernels in replicas)
    for kernels in replicas:
        assert len(kernels) == 2
        np.testing.assert_array_equal(kernels[0], kernels[1])


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute needs the TensorFlow backend")
def test_mirrored_devices_and_two_workers_prune_as_one_device_does(tmp_path):
    methods = ["", "-relevance", "-rounds"]
    train(tmp_path, [f"{strategy}{method}" for strategy in ("mirrored", "single") for method in methods], "--epochs=3")
    printed = train(tmp_path, ["multiworker", "multiworker-relevance"], "--epochs=3")
    for method in methods:
        assert_alike(tmp_path / f"single{method}", tmp_path / f"mirrored{method}")
    for method, criterion in (("", "similarity"), ("-relevance", "relevance")):
        workers = tmp_path / f"multiworker{method}"
        assert_alike(tmp_path / f"single{method}", workers)
        assert_alike(workers, workers, "_1")
        assert_evaluated(workers, printed, criterion)
    assert_penalized(tmp_path / "single-relevance")
    assert_replicas_agree(tmp_path / "mirrored")
    assert_replicas_agree(tmp_path / "mirrored-relevance")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
def test_data_parallel_devices_on_jax_prune_as_one_does(tmp_path):
    devices = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    # The distribution holds for all that follows it in the process.
    train(tmp_path, ["single", "single-relevance", "data_parallel", "data_parallel-relevance"], "--epochs=2", **devices)
    assert_alike(tmp_path / "single", tmp_path / "data_parallel")
    assert_alike(tmp_path / "single-relevance", tmp_path / "data_parallel-relevance")
