"""`kprune prune`: to a share, within an accuracy, to milliseconds."""

import json

import keras
import numpy as np
import pytest

import kprune


def test_it_writes_a_smaller_model_the_plan_and_a_report_and_replays_the_plan(command, folder):
    code, printed, error = command("prune", "model.keras", "--target_flops=0.4", "--exclude=stem", "--output=out")
    assert code == 0 and "Written to out: model.keras" in printed, error
    plan = json.loads((folder / "out" / "plan.json").read_text())
    assert plan["flops"][1] <= 0.6 * plan["flops"][0]
    assert f"{plan['params'][1]:,}" in (folder / "out" / "report.md").read_text()
    small = keras.models.load_model(folder / "out" / "model.keras")
    assert small.count_params() == plan["params"][1]
    assert command("prune", "--model=model.keras", "--plan=out/plan.json", "--output=again")[0] == 0
    assert keras.models.load_model(folder / "again" / "model.keras").count_params() == small.count_params()


def test_labels_beside_the_images_reach_a_criterion_that_wants_them(command, folder):
    given = ["--target_flops=0.4", "--data=data.npz", "--criterion=relevance", "--output=labelled"]
    code, _, error = command("prune", "model.keras", *given)
    assert code == 0, error
    model, data = keras.models.load_model(folder / "model.keras"), np.load(folder / "data.npz")
    plan = kprune.plan_pruning(model, 0.4, criterion="relevance", data=(data["x"], data["y"]))
    assert kprune.Plan.load(folder / "labelled" / "plan.json").layers == plan.layers


def test_it_removes_what_the_accuracy_on_the_data_allows(command, folder):
    x, y = (np.load(folder / "data.npz")[name] for name in ("x", "y"))
    search = ["--eval_data=data.npz", "--criterion=l1", "--tolerance=0.1", "--data=images.npy"]
    code, _, error = command("prune", "model.keras", *search, "--max_accuracy_drop=0.3", "--output=accurate")
    assert code == 0, error
    small = keras.models.load_model(folder / "accurate" / "model.keras")
    accuracy = (small.predict(x, verbose=0).argmax(-1) == y).mean()
    plan = json.loads((folder / "accurate" / "plan.json").read_text())
    assert accuracy >= 0.7 and plan["flops"][1] < plan["flops"][0]
    report = (folder / "accurate" / "report.md").read_text()
    assert "100.00%" in report and f"{accuracy:.2%}" in report


def test_a_search_goes_on_from_its_directory(command, folder):
    search = ["--eval_data=data.npz", "--criterion=l1", "--tolerance=0.2", "--directory=search"]

    def tried(*arguments):
        code, printed, error = command("prune", "model.keras", "--max_accuracy_drop=0.5", *search, *arguments)
        assert code == 0, error
        return printed.count(" removed: ")

    assert tried("--output=first") > 1 and tried("--output=second") == 0
    assert (folder / "first" / "plan.json").read_text() == (folder / "second" / "plan.json").read_text()


def test_prune_meets_milliseconds_that_a_command_tells_and_leaves_the_file(command, folder):
    """The command stands for a device that takes a millisecond per byte."""
    whole = kprune.export_tflite(keras.models.load_model(folder / "model.keras"), folder / "whole.tflite").size_bytes
    arguments = ["model.keras", "--criterion=l1", "--measure_command=stat -c %s"]
    code, printed, errors = command("prune", *arguments, f"--target_ms={whole - 500}", "--round_to=2", "--output=met")
    assert code == 0, errors
    assert (folder / "met" / "model.tflite").stat().st_size <= whole - 500 and "fast enough" in printed
    plan = kprune.Plan.load(folder / "met" / "plan.json")
    assert keras.models.load_model(folder / "met" / "model.keras").count_params() == plan.params[1]
    assert all(len(entry.keep) % 2 == 0 or len(entry.keep) == entry.filters for entry in plan.layers)
    code, _, errors = command("prune", *arguments, "--target_ms=9", "--output=missed")
    assert code == 2 and "target_ms=9 cannot be reached" in errors
    assert not (folder / "missed" / "model.tflite").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["missing.keras", "--target_flops=0.5"], "no model file"),
        (["model.keras", "--target_flops=7"], "between 0 and 1"),
        (["model.keras"], "target_flops"),
        (["--target_flops=0.5"], "--model is missing"),
        (["model.keras", "--target_flops=0.5", "--tarjet=3"], "tarjet"),
        (["model.keras", "--max_accuracy_drop=0.1"], "needs --eval_data"),
        (["model.keras", "--target_flops=0.5", "--directory=out"], "--directory is for --max_accuracy_drop"),
        (["model.keras", "--target_flops=0.5", "--criterion=l1", "--alpha=2"], "--alpha is for"),
        (["model.keras", "--target_flops=0.5", "--measure_command=true"], "--measure_command is for --target_ms"),
        (["model.keras", "--target_flops=0.5", "--round_to=avx"], "round_to is 'avx'"),
        (["model.keras", "--target_flops=0.5", "--eval_data=wrong.npz"], "'x'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(mistake, folder, arguments, message):
    np.savez(folder / "wrong.npz", images=np.zeros(3))
    assert message in mistake("prune", *arguments)
    assert not (folder / "pruned").exists()
