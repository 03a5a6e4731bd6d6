"""The tools with all that they do, in this process: each script runs as `__main__` with its own arguments."""

import importlib
import json
import math
import pathlib

import keras
import numpy as np
import pytest
from models import build, residual

import kprune

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch, capsys, folder, run_script):
    """Runs a tool in the folder; gives its exit code, output and errors."""
    monkeypatch.chdir(folder)

    def run(name, *arguments):
        with pytest.raises(SystemExit) as done:
            run_script(name, *arguments)
        printed = capsys.readouterr()
        return done.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and images for it."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("tools")
    model = build(residual)
    model.save(folder / "net.keras")
    np.save(folder / "images.npy", np.random.default_rng(0).random((5, *model.input_shape[1:]), dtype="float32"))
    return folder


SCRIPTS = {
    "prune": "prune",
    "export_tflite": "export",
    "export_onnx": "export",
    "export_saved_model": "export",
    "benchmark": "benchmark",
    "profile_layers": "profile",
    "plot": "plot",
    "report": "report",
}


@pytest.mark.parametrize("script, name", SCRIPTS.items())
def test_scripts_of_a_checkout_are_commands(tool, script, name):
    code, printed, _ = tool(script, "--help")
    assert code == 0 and printed.startswith(f"usage: kprune {name} ")


def test_a_script_takes_the_flags_of_its_command_and_has_a_format_of_its_own(tool):
    code, _, error = tool("prune", "--model=net.keras", "--target_flops=7")
    assert code == 2 and "between 0 and 1" in error and error.startswith("kprune prune: ")
    code, _, error = tool("export_onnx", "--model=net.keras", "--quantize=int8")
    assert code == 2 and "not for onnx" in error
    code, _, error = tool("export_saved_model", "--model=net.keras", "--opset=13")
    assert code == 2 and "not for saved_model" in error


def test_the_page_of_the_command_line_is_what_help_shows(run_script):
    """Else: python tools/cli_page.py"""
    page = run_script("cli_page", run_name="cli_page")["page"]()
    assert (TOOLS.parent / "docs" / "cli.md").read_text(encoding="utf-8") == page


def test_lists_of_a_config_fill_flags_that_are_given_several_times(tool, folder):
    (folder / "wrong_runtime.json").write_text('{"runtimes": ["litert", "no-runtime"]}')
    code, _, errors = tool("measure_alignment", "--config=wrong_runtime.json")
    assert code == 2 and "runtimes=no-runtime: value should be one of" in errors


def test_the_alignment_of_kernels_is_measured(tool):
    arguments = ["--runtimes=litert-int8", "--widths=3,4", "--size=4", "--sweeps=1"]
    code, printed, errors = tool("measure_alignment", *arguments)
    assert code == 0, errors
    assert printed.count("| 3 |") == 2 and "litert-int8 3x3" in printed


def test_a_tool_to_compare_with_that_cannot_run_has_its_reason_in_its_row(tool, folder, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    code, _, error = tool("benchmark_peers", "--peers=torch-pruning", "--cache=peers", "--output=peers.md")
    assert code == 0, error
    row = (folder / "peers.md").read_text().split("Torch-Pruning", 1)[1].splitlines()[0]
    assert "not run: pip failed: ERROR: No matching distribution" in row
    assert "pip failed" in json.loads((folder / "peers.json").read_text())["results"]["torch-pruning"]["reason"]
    code, _, error = tool("benchmark_peers", "--peers=nobody")
    assert code == 2 and "nobody" in error and len(error.splitlines()) == 1


def test_costs_beside_other_tools_are_counted_as_kprune_counts_them(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS / "peers"))
    measuring = importlib.import_module("measuring")
    model = keras.saving.load_model(folder / "net.keras")
    cost = kprune.model_cost(model)
    assert measuring.keras_cost(model) == {"flops": cost.flops, "params": cost.params}
    with measuring.Stopwatch() as watch:
        np.ones(2**22).sum()  # 32 MiB
    assert watch.seconds > 0 and watch.peak_bytes is None or watch.peak_bytes > 2**24


SCALE = ["--width=4", "--depth=2", "--doublings=1", "--repeats=1", "--output=scaling.json"]


def test_scale_is_measured_once_fitted_and_drawn(tool, folder):
    code, printed, _ = tool("benchmark_scale", *SCALE, "--criteria=similarity,l1", "--models=")
    series = json.loads((folder / "scaling.json").read_text())["series"]
    assert code == 0 and "4 filters x   8 layers" in printed
    shapes = {(one["criterion"], one["doubled"]): [(p["width"], p["depth"]) for p in one["points"]] for one in series}
    expected = {"width": [(4, 8), (8, 8)], "depth": [(32, 2), (32, 4)]}
    assert shapes == {(c, d): expected[d] for c in ("similarity", "l1") for d in expected}
    for one in series:
        (a, b), slope = one["points"], one["seconds_exponent"]
        assert min(a["seconds"], a["bytes"], b["seconds"], b["bytes"]) > 0
        assert slope == pytest.approx(math.log(b["seconds"] / a["seconds"]) / math.log(b["weights"] / a["weights"]))

    (folder / "images").mkdir()
    (folder / "docs/results").mkdir(parents=True)
    written = ["--plot=images/scaling.png", "--page=docs/results/scaling.md"]
    code, printed, _ = tool("benchmark_scale", *SCALE, "--criteria=l1", "--models=MobileNet", "--size=32", *written)
    results = json.loads((folder / "scaling.json").read_text())
    assert code == 0 and "filters x" not in printed and results["series"] == series  # what is known is kept
    assert (folder / "images/scaling.png").stat().st_size > 10_000
    page = (folder / "docs/results/scaling.md").read_text()
    assert "](../../images/scaling.png)" in page and "| similarity | width | 4 x 8 to 8 x 8 |" in page
    (row,) = results["stages"]
    assert sum(row["stages"].values()) == pytest.approx(row["seconds"])
    assert all(row["stages"][name] > 0 for name in ("trace", "scores", "selection", "surgery", "rest"))
