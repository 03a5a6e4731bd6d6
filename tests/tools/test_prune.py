"""The pruning script as a user runs it."""

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


def prune(folder, *arguments):
    command = [sys.executable, str(ROOT / "tools" / "prune.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path):
    build(residual).save(tmp_path / "model.keras")
    return tmp_path


@pytest.fixture
def data(folder):
    """Images in data.npz, labelled as the network itself says, so that it has no errors; returned without labels."""
    model = keras.models.load_model(folder / "model.keras")
    x = np.random.default_rng(0).normal(size=(400, *model.input_shape[1:])).astype("float32")
    np.savez(folder / "data.npz", x=x, y=model.predict(x, verbose=0).argmax(-1))
    return x


def test_it_writes_a_smaller_model_the_plan_and_a_report_and_replays_the_plan(folder):
    done = prune(folder, "--model=model.keras", "--target_flops=0.4", "--exclude=stem", "--output=out")
    assert done.returncode == 0, done.stderr
    plan = json.loads((folder / "out" / "plan.json").read_text())
    assert plan["flops"][1] <= 0.6 * plan["flops"][0]
    assert f"{plan['params'][1]:,}" in (folder / "out" / "report.md").read_text()
    small = keras.models.load_model(folder / "out" / "model.keras")
    assert small.count_params() == plan["params"][1]
    again = prune(folder, "--model=model.keras", "--plan=out/plan.json", "--output=again")
    assert again.returncode == 0
    assert keras.models.load_model(folder / "again" / "model.keras").count_params() == small.count_params()


def test_labels_beside_the_images_reach_a_criterion_that_wants_them(folder, data, run_script, monkeypatch):
    monkeypatch.chdir(folder)
    flags = [
        "--model=model.keras",
        "--target_flops=0.4",
        "--repair_data=data.npz",
        "--criterion=relevance",
        "--output=out",
    ]
    with pytest.raises(SystemExit) as done:
        run_script("prune", *flags)
    assert not done.value.code
    model = keras.models.load_model("model.keras")
    plan = kprune.plan_pruning(model, 0.4, criterion="relevance", data=(data, np.load("data.npz")["y"]))
    assert kprune.Plan.load("out/plan.json").layers == plan.layers


def test_it_removes_what_the_accuracy_on_the_data_allows(folder, data):
    x, y = data, np.load(folder / "data.npz")["y"]
    np.save(folder / "images.npy", np.random.default_rng(1).normal(size=(64, *x.shape[1:])).astype("float32"))
    search = ["--model=model.keras", "--data=data.npz", "--criterion=l1", "--tolerance=0.1", "--repair_data=images.npy"]
    done = prune(folder, *search, "--max_accuracy_drop=0.3", "--output=out")
    assert done.returncode == 0, done.stderr
    accuracy = (keras.models.load_model(folder / "out" / "model.keras").predict(x, verbose=0).argmax(-1) == y).mean()
    plan = json.loads((folder / "out" / "plan.json").read_text())
    assert accuracy >= 0.7 and plan["flops"][1] < plan["flops"][0]
    report = (folder / "out" / "report.md").read_text()
    assert "100.00%" in report and f"{accuracy:.2%}" in report


def test_a_search_goes_on_from_its_directory_and_refuses_that_of_another_drop_or_other_data(
    folder, data, run_script, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    search = ["--model=model.keras", "--data=data.npz", "--criterion=l1", "--tolerance=0.2", "--directory=search"]

    def tried(*arguments):
        with pytest.raises(SystemExit) as done:
            run_script("prune", *search, *arguments)
        printed = capsys.readouterr()
        return done.value.code or 0, printed.out.count(" removed: "), printed.err

    code, count, _ = tried("--max_accuracy_drop=0.5", "--output=first")
    assert code == 0 and count > 1
    assert tried("--max_accuracy_drop=0.5", "--output=second")[:2] == (0, 0)
    assert (folder / "first" / "plan.json").read_text() == (folder / "second" / "plan.json").read_text()
    code, _, error = tried("--max_accuracy_drop=0.4")
    assert code == 2 and "max_accuracy_drop 0.5, and this one has 0.4" in error
    np.savez(folder / "data.npz", x=data[:200], y=np.load(folder / "data.npz")["y"][:200])
    code, _, error = tried("--max_accuracy_drop=0.5")
    assert code == 2 and "sha256 of data" in error


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model=missing.keras", "--target_flops=0.5"], "no model file"),
        (["--model=model.keras", "--target_flops=7"], "between 0 and 1"),
        (["--model=model.keras"], "target_flops"),
        (["--model=model.keras", "--target_flops=0.5", "--tarjet=3"], "tarjet"),
        (["--model=model.keras", "--max_accuracy_drop=0.1"], "needs --data"),
        (["--model=model.keras", "--target_flops=0.5", "--directory=out"], "--directory is for --max_accuracy_drop"),
        (["--model=model.keras", "--target_flops=0.5", "--criterion=l1", "--alpha=2"], "--alpha is for"),
        (
            ["--model=model.keras", "--target_flops=0.5", "--measure_command=true"],
            "--measure_command is for --target_ms",
        ),
        (["--model=model.keras", "--target_flops=0.5", "--round_to=avx"], "round_to is 'avx'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folder, arguments, message):
    done = prune(folder, *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (folder / "pruned" / "model.keras").exists()


def test_help_names_every_flag(folder):
    done = prune(folder, "--help")
    assert all(f"--{name}" in done.stdout for name in ("model", "target_flops", "criterion", "exclude", "mode", "plan"))
