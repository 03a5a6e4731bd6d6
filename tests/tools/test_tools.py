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
import kprune.__main__ as command

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


def test_export_onnx_writes_a_checked_file_and_its_record(tool, folder):
    pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    code, printed, _ = tool(
        "export_onnx", "--model=net.keras", "--output=net.onnx", "--check_data=images.npy", "--record=onnx.json"
    )
    record = json.loads((folder / "onnx.json").read_text())["export"]
    assert code == 0 and "5 samples" in printed
    assert record["size_bytes"] == (folder / "net.onnx").stat().st_size and record["error"] < 1e-4
    code, _, error = tool("export_onnx", "--model=net.keras", "--output=net.onnx", "--nooverwrite")
    assert code == 2 and "already there" in error and len(error.splitlines()) == 1


def test_export_tflite_tells_the_arena_of_a_microcontroller(tool, folder):
    pytest.importorskip("tflite_micro")
    given = ["--model=net.keras", "--output=net.tflite", "--batch_size=1", "--micro_memory", "--record=micro.json"]
    code, printed, _ = tool("export_tflite", *given)
    assert code == 0 and "kB of arena under TFLite Micro" in printed
    arena = json.loads((folder / "micro.json").read_text())["export"]["arena_bytes"]
    assert arena == kprune.micro_memory(folder / "net.tflite").arena_bytes


def test_export_saved_model_writes_a_checked_folder(tool, folder):
    code, printed, _ = tool("export_saved_model", "--model=net.keras", "--output=saved", "--check_data=images.npy")
    assert code == 0 and "5 samples" in printed and (folder / "saved" / "saved_model.pb").is_file()
    code, _, error = tool("export_saved_model", "--model=net.keras", "--output=trt", "--tftrt=FP8")
    assert code == 2 and "FP16" in error and not (folder / "trt").exists()


def test_a_saved_config_gives_the_same_run_and_flags_beside_it_win(tool, folder):
    given = ["--model=net.keras", "--target_flops=0.3", "--exclude=stem,st*", "--criterion=l1", "--nostrict"]
    assert tool("prune", *given, "--output=first", "--save_config=run.json")[0] == 0
    config = json.loads((folder / "run.json").read_text())
    assert config["exclude"] == ["stem", "st*"] and config["strict"] is False and "alpha" not in config
    assert tool("prune", "--config=run.json", "--output=second")[0] == 0
    plans = [kprune.Plan.load(folder / name / "plan.json") for name in ("first", "second")]
    assert plans[0] == plans[1] and plans[0].target == {"flops": 0.3}
    facts = kprune.Report.load(folder / "second" / "report.json").facts
    assert facts["settings"]["output"] == "second" and facts["settings"]["target_flops"] == 0.3


@pytest.mark.parametrize(
    "content, words", [('{"modle": 1}', "has modle"), ("[1]", "JSON list"), ("{", "cannot be read as JSON")]
)
def test_a_wrong_config_is_one_line(tool, folder, content, words):
    (folder / "wrong.json").write_text(content)
    code, _, error = tool("export_onnx", "--config=wrong.json")
    assert code == 2 and words in error and len(error.splitlines()) == 1


def test_the_report_gathers_what_has_joined_the_folder(tool, folder):
    assert tool("prune", "--model=net.keras", "--target_flops=0.3", "--criterion=l1", "--output=run")[0] == 0
    export = kprune.deploy.Export(pathlib.Path("run/small.tflite"), "float32 TFLite file", 4096, 1e-6, None, 16)
    (folder / "run" / "small.json").write_text(json.dumps({"export": export.to_json()}))
    timing = kprune.deploy.Timing.of("small.tflite", np.array([1.0, 2.0, 3.0]), 1)
    (folder / "run" / "times.json").write_text(json.dumps(kprune.deploy.Benchmark((timing,), {"cores": 2}).to_json()))
    twice = kprune.deploy.Timing.of("small.tflite", np.array([0.5, 0.6, 0.7]), 2)
    (folder / "run" / "times_2.json").write_text(json.dumps(kprune.deploy.Benchmark((twice,), {"cores": 2}).to_json()))
    code, printed, _ = tool("report", "--folder=run", "--title=Mine")
    assert code == 0 and "small.json, times.json, times_2.json" in printed
    page, text = ((folder / "run" / f"report.{suffix}").read_text() for suffix in ("html", "md"))
    assert "<h1>Mine</h1>" in page and "small.tflite" in page and "1.200-2.800" in page and "0.520-0.680" in page
    assert "threads: 1" in text and "threads: 2" in text
    report = kprune.Report.load(folder / "run" / "report.json")
    assert [one[0].threads for one in report.benchmarks] == [1, 2] and report.facts["seed"] == 0
    for name in ("one", "other"):
        (folder / "run" / f"{name}.json").write_text(json.dumps({"schema": 1, "history": {}}))
    code, _, errors = tool("report", "--folder=run")
    assert code == 2 and "other.json is a second history" in errors
    assert tool("report", "--folder=nowhere")[0] == 2


def test_prune_meets_milliseconds_that_a_command_tells_and_leaves_the_file(tool, folder):
    """The command stands for a device that takes a millisecond per byte."""
    whole = kprune.export_tflite(keras.models.load_model(folder / "net.keras"), folder / "net.tflite").size_bytes
    arguments = ["--model=net.keras", "--criterion=l1", "--measure_command=stat -c %s"]
    code, printed, errors = tool("prune", *arguments, f"--target_ms={whole - 500}", "--round_to=2", "--output=met")
    assert code == 0, errors
    assert (folder / "met" / "model.tflite").stat().st_size <= whole - 500 and "fast enough" in printed
    plan = kprune.Plan.load(folder / "met" / "plan.json")
    assert keras.models.load_model(folder / "met" / "model.keras").count_params() == plan.params[1]
    assert all(len(entry.keep) % 2 == 0 or len(entry.keep) == entry.filters for entry in plan.layers)
    code, _, errors = tool("prune", *arguments, "--target_ms=9", "--output=missed")
    assert code == 2 and "target_ms=9 cannot be reached" in errors
    assert not (folder / "missed" / "model.tflite").exists()


def test_a_profile_begins_only_where_its_file_can_be_written(tool, folder):
    code, _, errors = tool("profile_layers", "--model=net.keras", "--output=no/table.json")
    assert code == 2 and "no of table.json does not exist" in errors


def test_a_profile_by_a_command_holds_what_it_says(tool, folder):
    given = ["--model=net.keras", "--output=sizes.json", "--sweeps=1", "--measure_command=stat -c %s"]
    assert tool("profile_layers", *given)[0] == 0
    table = kprune.LatencyTable.load(folder / "sizes.json")
    assert table.machine == {"measured_by": "stat -c %s"} and table.check["measured_ms"] > 1000
    assert tool("profile_layers", *given, "--threads=2")[0] == 2


def test_lists_of_a_config_fill_flags_that_are_given_several_times(tool, folder):
    (folder / "wrong_runtime.json").write_text('{"runtimes": ["litert", "no-runtime"]}')
    code, _, errors = tool("measure_alignment", "--config=wrong_runtime.json")
    assert code == 2 and "runtimes=no-runtime: value should be one of" in errors


def test_a_profile_of_the_layers_is_what_plans_go_by(tool, folder):
    code, printed, errors = tool("profile_layers", "--model=net.keras", "--output=table.json", "--sweeps=1")
    assert code == 0, errors
    table = kprune.LatencyTable.load(folder / "table.json")
    assert f"{len(table.grids)} kinds of layers" in printed and table.quantize is None
    flags = ["--model=net.keras", "--latency_table=table.json"]
    code, _, errors = tool("prune", *flags, "--target_latency=0.1", "--output=timed")
    assert code == 0, errors
    before, after = kprune.Plan.load(folder / "timed" / "plan.json").latency
    assert after <= 0.9 * before and before == pytest.approx(
        table.predict(keras.models.load_model(folder / "net.keras"))
    )


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


def test_the_command_lists_every_tool_and_refuses_others(capsys):
    assert command.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(path.stem in printed for path in TOOLS.glob("[!_]*.py")) and "_cli" not in printed
    assert command.main(["prnue"]) == 2 and "no tool 'prnue'" in capsys.readouterr().err


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
