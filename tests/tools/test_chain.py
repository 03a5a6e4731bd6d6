"""From a trained network to its report by shell, as the documentation of the tools says."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import kprune
from digits_data import build_digits_resnet, load_digits_images, train_digits

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Pruning with data and the export compute with TensorFlow; the others start faster on NumPy.
CHAIN = """
set -euo pipefail
"$PYTHON" "$TOOLS/prune.py" --model=digits.keras --target_flops=0.4 --criterion=l1 --repair_data=images.npy \
    --output=pruned
"$PYTHON" "$TOOLS/export_tflite.py" --model=pruned/model.keras --output=pruned/small.tflite \
    --representative_data=images.npy --record=pruned/small.json
export KERAS_BACKEND=numpy
"$PYTHON" "$TOOLS/benchmark.py" pruned/small.tflite --runs=20 --output=pruned/timings.json
"$PYTHON" -m kprune report --folder=pruned --title="Digits"
"""


@pytest.mark.slow
def test_prune_export_benchmark_report(tmp_path):
    (x, y), (x_test, y_test) = load_digits_images()
    model = train_digits(build_digits_resnet(), x, y, epochs=4)
    model.save(tmp_path / "digits.keras")
    np.save(tmp_path / "images.npy", x[:128])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "TOOLS": str(ROOT / "tools")}
    done = subprocess.run(["bash", "-c", CHAIN], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "pruned"
    report = kprune.Report.load(folder / "report.json")
    assert report.plan.flops[1] <= 0.6 * report.plan.flops[0]
    assert report.exports[0].size_bytes == (folder / "small.tflite").stat().st_size
    assert report.timings[0].median_ms > 0 and len(json.loads((folder / "timings.json").read_text())["models"]) == 1
    page = (folder / "report.html").read_text()
    assert all(part in page for part in ("<h1>Digits</h1>", "small.tflite", "stage3_1_conv", "data:image/svg+xml"))
    logits = kprune.run_tflite(folder / "small.tflite", x_test)
    assert (logits.argmax(-1) == y_test).mean() > 0.8
