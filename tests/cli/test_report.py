"""`kprune report`: what has joined the folder since."""

import json
import pathlib

import numpy as np

import kprune


def test_the_report_gathers_what_has_joined_the_folder(command, mistake, folder):
    assert command("prune", "model.keras", "--target_flops=0.3", "--criterion=l1", "--output=run")[0] == 0
    export = kprune.deploy.Export(pathlib.Path("run/small.tflite"), "float32 TFLite file", 4096, 1e-6, None, 16)
    (folder / "run" / "small.json").write_text(json.dumps({"export": export.to_json()}))
    timing = kprune.deploy.Timing.of("small.tflite", np.array([1.0, 2.0, 3.0]), 1)
    (folder / "run" / "times.json").write_text(json.dumps(kprune.deploy.Benchmark((timing,), {"cores": 2}).to_json()))
    twice = kprune.deploy.Timing.of("small.tflite", np.array([0.5, 0.6, 0.7]), 2)
    (folder / "run" / "times_2.json").write_text(json.dumps(kprune.deploy.Benchmark((twice,), {"cores": 2}).to_json()))
    code, printed, _ = command("report", "run", "--title=Mine")
    assert code == 0 and "small.json, times.json, times_2.json" in printed
    page, text = ((folder / "run" / f"report.{suffix}").read_text() for suffix in ("html", "md"))
    assert "<h1>Mine</h1>" in page and "small.tflite" in page and "1.200-2.800" in page and "0.520-0.680" in page
    assert "threads: 1" in text and "threads: 2" in text
    report = kprune.Report.load(folder / "run" / "report.json")
    assert [one[0].threads for one in report.benchmarks] == [1, 2] and report.facts["seed"] == 0
    for name in ("one", "other"):
        (folder / "run" / f"{name}.json").write_text(json.dumps({"schema": 1, "history": {}}))
    assert "other.json is a second history" in mistake("report", "run")
    assert "nowhere" in mistake("report", "--folder=nowhere")
