"""Pruning to milliseconds, with stop-watches that cannot err: what they say is a function of the widths in the file."""

import itertools
import json
import pathlib
import re

import keras
import numpy as np
import pytest
from latency_tables import make_table, network
from models import conv
from training_runs import build

import kprune
from kprune.deploy.timing.stopwatch import time_repeatedly
from kprune.graph import trace

WHOLE = kprune.model_cost(build()).flops


def export(model, path):
    """A file that says what a device would need to know."""
    path.write_text(json.dumps({"flops": kprune.model_cost(model).flops / WHOLE, "params": model.count_params()}))


class Watch:
    """One millisecond per 1 % of the FLOPs, in steps of 5; every file is remembered. `noise` is added in turn."""

    def __init__(self, noise=(0.0,)):
        self.noise, self.seen = noise, []

    def __call__(self, path):
        flops = json.loads(path.read_text())["flops"]
        self.seen.append(flops)
        return 5 * np.ceil(20 * flops - 1e-9) + 1 + self.noise[len(self.seen) % len(self.noise)]


def search(target_ms, measure=None, **options):
    options = {"export": export, "criterion": "l1", "verbose": False, "repeats": 1, **options}
    return kprune.prune_to_latency(build(), target_ms, measure or Watch(), **options)


@pytest.mark.parametrize("target_ms", [90, 61, 40, 25])
def test_the_file_meets_the_target_with_few_networks_and_little_removed(target_ms, tmp_path):
    watch = Watch()
    found = search(target_ms, watch, output=tmp_path / "small.json")
    flops = json.loads((tmp_path / "small.json").read_text())["flops"]
    assert found.path == tmp_path / "small.json" and found.ms == watch(found.path) <= target_ms
    assert flops == pytest.approx(kprune.model_cost(found.model).flops / WHOLE)
    assert flops == pytest.approx(found.plan.flops[1] / WHOLE)
    step = 0.05 * np.floor((target_ms - 1) / 5)  # as many FLOPs would be fast enough
    assert step - 0.08 <= flops <= step + 1e-9
    assert len(watch.seen) <= 10
    assert [path.name for path in tmp_path.iterdir()] == ["small.json"]


def test_a_network_that_is_fast_enough_stays_as_it_is():
    found = search(1000.0)
    assert found.plan.flops == (WHOLE, WHOLE) and len(found.trials) == 1
    assert found.model.count_params() == build().count_params() and found.path is None


def test_a_target_that_no_network_meets_is_an_error_that_names_what_can_be_had():
    reachable = kprune.search_space(build()).reachable_flops
    best = 5 * np.ceil(20 * (1 - reachable) - 1e-9) + 1
    with pytest.raises(kprune.TargetError, match=f"takes {best:.4g} ms; as it is, 101 ms.*at least {best:.4g} ms"):
        search(best - 0.5)
    assert search(best).ms == best


def test_a_saved_model_is_put_in_its_place(tmp_path):
    def write(model, path):
        path.mkdir()
        export(model, path / "saved_model.pb")

    def measure(path):
        return Watch()(path / "saved_model.pb")

    for _ in range(2):  # the second one takes the place of the first
        found = search(61, measure, export=write, output=tmp_path / "small")
        assert found.path == tmp_path / "small" and measure(found.path) == found.ms <= 61
        assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_timings_that_never_agree_are_told_as_what_they_are():
    """Fast enough at first, too slow when timed again, at every width."""
    times = itertools.chain([2.0], itertools.cycle([0.9, 1.05]))
    with pytest.raises(kprune.TargetError, match="No file met target_ms=1 twice in 1[67] timings.*agree.*Fix"):
        search(1.0, lambda path: next(times))


def test_noise_is_timed_more_often_and_the_last_file_once_more():
    watch = Watch(noise=(0.0, 1.5, -1.5, 0.3, -0.2))
    found = search(61.0, watch, repeats=3)
    assert found.ms <= 61 and found.trials[-1].removed == found.trials[-2].removed or len(found.trials) > 2
    assert found.trials[-1].ms == found.ms
    assert any(len(trial.samples_ms) > 3 for trial in found.trials)


def test_a_file_that_is_too_slow_when_timed_again_is_not_given_back():
    """Each file seems fast once: 20 % faster the first time that it is seen."""
    seen = set()

    def measure(path):
        ms = 100 * json.loads(path.read_text())["flops"]
        first = path not in seen
        seen.add(path)
        return ms * 0.8 if first else ms

    found = search(50.0, measure)
    assert kprune.model_cost(found.model).flops / WHOLE <= 0.5 + 1e-9 and found.ms <= 50
    assert any(trial.ms > 50 for trial in found.trials[1:])


def test_timings_that_disagree_with_the_target_are_repeated():
    times = iter([1.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert len(time_repeatedly(lambda path: next(times), 2.0, 3, "file")) == 9
    assert time_repeatedly(lambda path: 1.0, 2.0, 3, "file") == (1.0, 1.0, 1.0)


def test_with_a_table_plans_remove_predicted_milliseconds():
    model = network()
    table = make_table(model)

    def measure(path):
        return json.loads(path.read_text())["ms"]

    def write(small, path):
        path.write_text(json.dumps({"ms": 3 * table.predict(small)}))

    target = 1.6 * table.predict(model)
    found = kprune.prune_to_latency(
        model, target, measure, export=write, latency_table=table, criterion="l1", verbose=False
    )
    assert list(found.plan.target) == ["latency"] and found.ms <= target
    assert 3 * found.plan.latency[1] == pytest.approx(found.ms)


def test_limits_and_repair_reach_every_network():
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    limits = kprune.Limits(round_to=4, exclude="middle")
    found = search(81.0, limits=limits, data=images, criterion="l1")
    plain = kprune.apply_plan(build(), found.plan)
    kept = [len(entry.keep) for entry in found.plan.layers if entry.path != "logits"]
    assert all(count % 4 == 0 for count in kept) and found.plan.layers[1].rate == 0
    assert not np.allclose(plain.get_layer("logits").kernel, found.model.get_layer("logits").kernel)


WRONG = {
    "no number": (dict(target_ms="fast"), "target_ms is 'fast'"),
    "no time": (dict(target_ms=0), "target_ms is 0"),
    "no function": (dict(target_ms=9, measure="ssh jetson"), "measure is 'ssh jetson'"),
    "no export": (dict(target_ms=9, export="onnx"), "export is 'onnx'"),
    "a share of 2": (dict(target_ms=9, tolerance=2), "tolerance is 2"),
    "no repeat": (dict(target_ms=9, repeats=0), "repeats is 0"),
    "a watch that says nothing": (dict(target_ms=9, measure=lambda path: None), "measure gave None for trial0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls_are_refused(case):
    options, message = WRONG[case]
    with pytest.raises(kprune.OptionError, match=message):
        search(**options)


def test_a_command_is_run_with_the_path_and_its_last_number_counts(tmp_path):
    file = tmp_path / "a model's.tflite"
    file.write_text("12.5")
    assert kprune.CommandStopwatch("cat")(file) == 12.5
    assert kprune.CommandStopwatch("cp {path} {path}2 && echo 3 runs, 0 errors: && cat {path}2 && true")(file) == 12.5
    assert kprune.CommandStopwatch("echo median 1.5e-1 ms #")(file) == 0.15


@pytest.mark.parametrize(
    "command, message",
    [
        ("echo no route to host >&2; false", "exit code 1: no route to host"),
        ("true", "printed no number: it wrote nothing"),
        ("echo fast #", "printed no number: fast"),
        ("echo -3 #", "printed -3 as its last number"),
        ("sleep 5 #", "took more than 0.2 seconds"),
    ],
)
def test_a_command_that_fails_is_an_error_that_shows_it(command, message, tmp_path):
    with pytest.raises(kprune.ModelError, match=f"{message}.* Expected: .* Fix: "):
        kprune.CommandStopwatch(command, timeout=0.2)(tmp_path / "model.tflite")


def test_the_stopwatch_of_this_machine_times_files(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    kprune.export_tflite(model, tmp_path / "model.tflite")
    assert 0 < kprune.Stopwatch(runs=5)(tmp_path / "model.tflite") < 10
    with pytest.raises(kprune.OptionError, match="There is no file"):
        kprune.Stopwatch()(tmp_path / "other.tflite")


def test_a_profile_prices_every_layer_that_has_a_kind_and_is_near_the_whole(tmp_path):
    """Near within a factor of five: the test machine is busy. docs/results/alignment.md measured in quiet."""
    pytest.importorskip("ai_edge_litert")
    inputs = keras.Input((16, 16, 3))
    x = y = conv(conv(inputs, 8, "a"), 8, "b")
    x = keras.layers.MaxPooling2D()(keras.layers.Add()([keras.layers.DepthwiseConv2D(3, padding="same")(x), y]))
    x = keras.layers.Multiply()([keras.layers.AveragePooling2D(1)(x), x])
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    table = kprune.profile_latency(model, sweeps=1, verbose=False)
    kinds = [grid.kind.operation for grid in table.grids]
    assert sorted(kinds) == "add average_pool conv dense depthwise max_pool mean multiply".split()
    assert table.predict(model) == pytest.approx(table.check["predicted_ms"])
    assert 1 / 5 < table.check["predicted_ms"] / table.check["measured_ms"] < 5
    assert all((grid.ms >= 0).all() for grid in table.grids) and len(trace(model).calls) > len(kinds)
    with pytest.raises(kprune.OptionError, match="runtime is 'tvm'"):
        kprune.profile_latency(model, runtime="tvm")
    with pytest.raises(kprune.OptionError, match="quantize is 'int8' with runtime='onnxruntime'"):
        kprune.profile_latency(model, runtime="onnxruntime", quantize="int8")


def test_a_profile_by_a_stop_watch_of_the_users_own_holds_what_that_says():
    """One that takes a millisecond per byte of the file."""
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, conv(conv(inputs, 8, "a"), 4, "b"))
    sizes = {}

    def measure(path):
        sizes[path.name] = max(sizes.get(path.name, 0), path.stat().st_size)
        return float(path.stat().st_size)

    table = kprune.profile_latency(model, sweeps=1, measure=measure, verbose=False)
    (grid,) = table.grids  # both are 3x3 convs on maps of one size
    kernels = 4 * 9 * np.outer(grid.widths_in, grid.widths_out) + 4 * np.array(grid.widths_out)  # float32, and biases
    assert np.ptp(grid.ms - kernels) < 64 and table.check["measured_ms"] == sizes["whole.tflite"]
    assert "measure" in table.machine["measured_by"]
    for wrong, words in ((0.0, "measure gave 0.0"), (None, "measure gave None")):
        with pytest.raises(kprune.OptionError, match=words):
            kprune.profile_latency(model, sweeps=1, measure=lambda path, ms=wrong: ms, verbose=False)
    with pytest.raises(kprune.OptionError, match="measure is 'ssh'"):
        kprune.profile_latency(model, measure="ssh")


def test_the_blocks_of_the_page_run(tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    page = pathlib.Path(__file__).resolve().parents[2] / "docs" / "results" / "alignment.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kprune, "Stopwatch", lambda: lambda path: 1e6)  # a busy machine is no reason to fail
    model = build()
    kprune.export_tflite(model, "model.tflite")
    x_train = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    names = {"kprune": kprune, "model": model, "x_train": x_train}
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)
    assert len(blocks) == 2 and (tmp_path / "small.tflite").is_file()
