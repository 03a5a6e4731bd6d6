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
SMALL = ["--images=128", "--batch=16", "--widths=8"]
# Trains by one strategy after the other in one process, to import the backend once.
SCRIPT = """
import sys
import distributed_training as example
example.FLAGS(sys.argv[:1] + sys.argv[3:])
for run in sys.argv[2].split(","):
    example.FLAGS.strategy, _, criterion = run.partition("-")
    example.FLAGS.criterion = criterion or "similarity"
    example.FLAGS.output = f"{sys.argv[1]}/{run}"
    example.main(None)
"""


def environment(**changes):
    # One thread a process: the workers share this machine.
    paths = f"{ROOT}{os.pathsep}{ROOT / 'examples'}"
    return os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "TF_NUM_INTRAOP_THREADS": "1"} | changes


def train(folder, runs, *arguments, **changes):
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder), runs, *SMALL, *arguments]
    subprocess.run(command, env=environment(**changes), check=True, timeout=600)


def assert_evaluated(folder, printed):
    """`evaluate` under the strategy gave the accuracy of the stripped network, on every worker."""
    (x_test, y_test) = load_digits_images()[1]
    outputs = keras.models.load_model(folder / "pruned.keras").predict(x_test, verbose=0)
    expected = f"accuracy {(outputs.argmax(-1) == y_test).mean():.2%}"
    lines = [line for line in printed.decode().splitlines() if line.startswith("similarity, multiworker")]
    assert len(lines) == 2 and all(line.endswith(expected) for line in lines)


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


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute needs the TensorFlow backend")
def test_mirrored_devices_and_two_workers_prune_as_one_device_does(tmp_path):
    script = [sys.executable, "-W", "ignore", str(ROOT / "examples" / "distributed_training.py"), *SMALL]
    options = ["--strategy=multiworker", "--epochs=3", f"--output={tmp_path / 'workers'}"]
    train(tmp_path, "mirrored,single,mirrored-relevance,single-relevance", "--epochs=3")
    workers = subprocess.run([*script, *options], env=environment(), check=True, timeout=600, stdout=subprocess.PIPE)
    assert_evaluated(tmp_path / "workers", workers.stdout)
    assert_alike(tmp_path / "single", tmp_path / "mirrored")
    assert_alike(tmp_path / "single-relevance", tmp_path / "mirrored-relevance")
    assert_alike(tmp_path / "single", tmp_path / "workers")
    assert_alike(tmp_path / "workers", tmp_path / "workers", "_1")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")
def test_data_parallel_devices_on_jax_prune_as_one_does(tmp_path):
    devices = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    train(tmp_path, "single,data_parallel", "--epochs=2", **devices)
    assert_alike(tmp_path / "single", tmp_path / "data_parallel")
