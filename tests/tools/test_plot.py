"""The drawing script as a user runs it."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from models import build, residual

import kprune

ROOT = pathlib.Path(__file__).resolve().parents[2]


TOOLS = ROOT / "tools"
# Runs the tool with each list of arguments in turn, in one process, and tells what came of each.
DRIVER = """
import contextlib, json, sys
sys.path.insert(0, sys.argv[1])
import plot
from absl.testing import flagsaver
outcomes = []
for arguments in json.loads(sys.argv[2]):
    try:
        with flagsaver.flagsaver(), contextlib.redirect_stdout(sys.stderr):
            plot.main(plot.FLAGS(["plot.py", *arguments]))
        outcomes.append(None)
    except (plot.flags.Error, ValueError) as error:
        outcomes.append(f"{type(error).__name__}: {error}")
print(json.dumps(outcomes))
"""


def run(folder, *command):
    """Runs Python on the backend that starts fastest."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "numpy"}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a plan, images, a record and runs."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("plot")
    model = build(residual)
    model.save(folder / "model.keras")
    kprune.plan_pruning(model, 0.3).save(folder / "plan.json")
    np.save(folder / "images.npy", np.random.default_rng(0).random((4, 8, 8, 3), dtype="float32"))
    history = {"pruned_flops": [0.1, 0.3], "rates": [{"stem": 0.1}, {"stem": 0.3}], "val_accuracy": [0.8, None]}
    (folder / "record.json").write_text(json.dumps({"schema": 1, "history": history}))
    runs = [{"rule": "l1", "pruned_flops": 0.5, "accuracy": 0.1 * seed} for seed in range(3)]
    (folder / "runs.jsonl").write_text("\n".join(map(json.dumps, runs)) + "\n\n")
    (folder / "broken.jsonl").write_text("{}\n{")
    return folder


PICTURES = {
    "filters": ["--model=model.keras", "--plan=plan.json", "--images=images.npy", "--metric=cosine"],
    "rates": ["--model=model.keras", "--layers=stem", "--alphas=0.5,1", "--noguard"],
    "overlap": ["--model=model.keras", "--criteria=similarity,l1,hrank", "--target_flops=0.3", "--images=images.npy"],
    "tradeoff": ["--records=runs.jsonl", "--method=rule", "--before=0.5", "--where=pruned_flops=0.5"],
    "rounds": ["--history=record.json"],
}
MISTAKES = [
    (["--picture=rounds", "--history=record.json", "--alpha=2"], "--alpha is not for --picture=rounds"),
    (["--picture=tradeoff", "--records=broken.jsonl"], "line 2 of broken.jsonl is not JSON"),
    (["--picture=tradeoff", "--records=images.npy"], "line 1 of images.npy is not JSON"),
    (["--picture=tradeoff", "--records=runs.jsonl", "--where=rule=l7"], "no run has this value"),
    (["--picture=rounds", "--history=runs.jsonl"], "runs.jsonl is not JSON"),
    (["--picture=overlap", "--plans=plan.json", "--model=model.keras", "--criteria=l1"], "either --plans"),
    (["--picture=overlap", "--model=model.keras", "--criteria=l1", "--labels=x.npy"], "--labels wants --images"),
    (["--picture=overlap", "--plans=a=plan.json"], "There are 1 plans"),
    (["--picture=rates", "--model=model.keras", "--alphas=much"], "could not convert"),
]


def test_pictures_are_written_and_mistakes_are_named(folder):
    drawn = [[f"--picture={name}", *rest, f"--output={name}.svg"] for name, rest in PICTURES.items()]
    refused = [[*arguments, "--output=none.svg"] for arguments, _ in MISTAKES]
    done = run(folder, "-c", DRIVER, str(TOOLS), json.dumps(drawn + refused))
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert outcomes[: len(drawn)] == [None] * len(drawn)
    assert all("<svg" in (folder / f"{name}.svg").read_text() for name in PICTURES)
    for outcome, (_, message) in zip(outcomes[len(drawn) :], MISTAKES, strict=True):
        assert message in outcome
    assert not (folder / "none.svg").exists()


def test_a_mistake_is_one_line_and_exit_code_2(folder):
    done = run(folder, str(TOOLS / "plot.py"), "--picture=distances", "--output=picture.png")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.strip() == "plot.py: --picture=distances wants --model"
