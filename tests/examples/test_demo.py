"""The examples run from end to end, on less data."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(script, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", str(ROOT / "examples" / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_digits_demo(tmp_path):
    printed = run(
        "digits_demo.py", f"--output={tmp_path}", "--timing_runs=20", "--training_epochs=5", "--pruning_epochs=9"
    )
    rows = {row["name"]: row for row in json.loads((tmp_path / "report.json").read_text())["rows"]}
    assert len(rows) == 4 and all(name in printed for name in rows)
    assert rows["after, float32"]["flops"] <= 0.5 * rows["before, float32"]["flops"]
    assert rows["after, float32"]["size_bytes"] < rows["before, float32"]["size_bytes"]
    assert rows["after, float32"]["accuracy"] > 0.9 and rows["after, int8"]["accuracy"] > 0.9
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert "Files, against the model" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "report.md").is_file() and (tmp_path / "plan.json").is_file()


@pytest.mark.slow
def test_cifar10_resnet(tmp_path, shared):
    arguments = ["--epochs=1", "--train_images=512", "--test_images=500", "--recalibrate=256", f"--output={tmp_path}"]
    weights, data = shared / "models" / "resnet20_cifar10_jpeg.npz", shared / "data" / "cifar10_jpeg.npz"
    run("cifar10_resnet.py", f"--weights={weights}", f"--data_dir={data}", *arguments)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["flops"][1] <= 0.5 * result["flops"][0]
    assert 0.86 < result["accuracy_before"] and 0.1 < result["accuracy_fine_tuned"]
    assert result["tflite"]["pruned"]["bytes"] < result["tflite"]["original"]["bytes"]
