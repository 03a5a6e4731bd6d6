"""`kprune benchmark`: files in turn, from the flag and without it."""

import json

import pytest


@pytest.fixture
def files(command, folder):
    pytest.importorskip("ai_edge_litert")
    if not (folder / "net.tflite").exists():
        assert command("export", "model.keras", "--output=net.tflite")[0] == 0
    return "net.tflite", "--files=net.tflite"


@pytest.mark.tensorflow
def test_benchmark_writes_the_times_of_every_file(command, folder, files):
    code, printed, error = command("benchmark", *files, "--runs=7", "--output=times.json")
    assert code == 0, error
    assert len(printed.splitlines()) == 4 and "median of 7 runs" in printed
    timings = json.loads((folder / "times.json").read_text())["models"]
    assert [(timing["path"], len(timing["samples_ms"])) for timing in timings] == [("net.tflite", 7)] * 2


@pytest.mark.tensorflow
def test_a_saved_config_times_the_same_files_and_the_median_stands_alone(command, folder, files):
    code, printed, error = command("benchmark", files[0], "--runs=3", "--median", "--save_config=times_config.json")
    assert code == 0 and float(printed) > 0, error
    config = json.loads((folder / "times_config.json").read_text())
    assert config == {"files": ["net.tflite"], "runs": 3, "median": True}
    code, printed, error = command("benchmark", "--config=times_config.json")
    assert code == 0 and float(printed) > 0, error


def test_a_file_that_cannot_be_used_is_one_line(mistake, folder):
    (folder / "broken.tflite").write_text("broken")
    assert "broken.tflite could not be opened" in mistake("benchmark", "broken.tflite")
    assert "no file missing.tflite" in mistake("benchmark", "missing.tflite")
