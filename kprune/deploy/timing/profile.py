"""The table of layer times of a model, measured here: one file per layer and width, timed by itself."""

import dataclasses
import functools
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterable

import numpy as np

from kprune.cost import Latency, LatencyTable
from kprune.cost.latency_table import Grid
from kprune.cost.timed_calls import TimedCall, priced_calls
from kprune.deploy.export import export_onnx, export_tflite
from kprune.deploy.runtimes.open import open_file
from kprune.deploy.runtimes.samples import random_samples
from kprune.deploy.timing import single_layer_onnx, single_layer_tflite
from kprune.deploy.timing.stopwatch import Stopwatch, median_ms, milliseconds
from kprune.graph import Graph, trace
from kprune.rules import OperatorConfig
from kprune.utils.checks import check_whole
from kprune.utils.errors import OptionError
from kprune.utils.machine import machine_facts
from kprune.utils.progress import Progress

RUNTIMES = {"litert": ("tflite", single_layer_tflite.one_layer), "onnxruntime": ("onnx", single_layer_onnx.one_layer)}
WARMUP, FEWEST_RUNS, LEAST_MS = 3, 5, 4.0  # of one timing: runs before it, runs in it, and how long it lasts at least
FINEST_STEP, STEPS = 8, 8  # widths lie around the multiples of a step, at most about so many of them
EMPTY = OperatorConfig("mean", (1, 1))
CALIBRATION = 8  # random samples for an 8-bit file whose accuracy nobody looks at


def profile_latency(
    model,
    *,
    runtime: str = "litert",
    quantize: str | None = None,
    threads: int = 1,
    sweeps: int = 4,
    measure: Callable | None = None,
    verbose=None,
) -> LatencyTable:
    """Times every kind of layer of a model over its widths, and the whole model, on this device or, by a command, on
    another.

    Each kind of layer (operation, kernel, stride and map size) is timed by itself in a small file, at some five numbers
    of input channels and at output channels around the multiples of 8 (of more in wide layers), where kernels step.
    A CIFAR ResNet takes a minute. Nothing else should run meanwhile.

    Args:
      model: a built functional or Sequential `keras.Model` with inputs of a fixed size; only its shapes matter.
      runtime: "litert" or "onnxruntime".
      quantize: None for float32, or "int8" (LiteRT).
      threads: CPU threads that one run may use.
      sweeps: how often everything is measured; the fastest counts, for other work only ever slows a run.
      measure: called with the path of a TFLite or ONNX file, gives milliseconds; `kprune.CommandStopwatch("ssh ...")`
        times on another device, hundreds of small files, and one sweep may be enough. None: here, in this process;
        `threads` is for this alone.
      verbose: whether to show progress; None: as `keras.config` has it.

    Returns:
      A `LatencyTable`, its `check` with the measured and the predicted milliseconds of the whole model.

    Raises:
      OptionError: an option out of range, or `measure` gives no number above 0.
      ModelError: the model has no graph or no layer that can be timed, or the runtime is not installed.

    Example:
      >>> table = kprune.profile_latency(model, quantize="int8")
      >>> table.save("table.json")
    """
    check_options(runtime, quantize, threads, sweeps, measure)
    graph = trace(model)
    calls = priced_calls(graph)
    points = [
        (kind, width_in, width_out)
        for kind, ins, outs in knots(calls)
        for width_in, width_out in itertools.product(ins, outs)
    ]
    watch = functools.partial(time_here, threads) if measure is None else functools.partial(milliseconds, measure)
    best = fastest(functools.partial(time_layer, runtime, quantize, watch), [(EMPTY, 1, 1), *points], sweeps, verbose)
    overhead, best = best[0], iter(best[1:] - best[0])
    grids = [
        Grid(kind, ins, outs, np.maximum([[next(best) for _ in outs] for _ in ins], 0.0))
        for kind, ins, outs in knots(calls)
    ]
    machine = machine_facts() if measure is None else {"measured_by": str(getattr(measure, "command", measure))}
    table = LatencyTable(tuple(grids), float(overhead), runtime, quantize, threads, machine)
    return check_table(table, model, graph, measure or Stopwatch(threads), sweeps)


def fastest(watch: Callable, points: list[tuple], sweeps: int, verbose) -> np.ndarray:
    """The fewest milliseconds at each point over sweeps that lie apart in time, so that a slow spell of the machine
    does not last through all of them.
    """
    progress, best = Progress(sweeps * len(points), "layer", verbose), np.full(len(points), np.inf)
    for done, index in enumerate(itertools.chain.from_iterable([range(len(points))] * sweeps)):
        best[index] = min(best[index], watch(*points[index]))
        progress.show(done + 1)
    progress.finish(sweeps * len(points))
    return best


def check_options(runtime, quantize, threads, sweeps, measure):
    """Refuses what cannot be measured.

    Raises:
      OptionError: see `profile_latency`.
    """
    if runtime not in RUNTIMES:
        raise OptionError(f"runtime is {runtime!r}.", f"One of {', '.join(RUNTIMES)}.", 'Pass runtime="litert".')
    if quantize not in (None, "int8") or (quantize and runtime != "litert"):
        raise OptionError(
            f"quantize is {quantize!r} with runtime={runtime!r}.", "None, or 'int8' with 'litert'.", "Leave it out."
        )
    check_whole("threads", threads, 1)
    if measure is not None and not callable(measure):
        raise OptionError(
            f"measure is {measure!r}.", "A function, or None.", 'Pass kprune.CommandStopwatch("ssh ...").'
        )
    check_whole("sweeps", sweeps, 1, example=4)


def knots(calls: Iterable[TimedCall]) -> list[tuple[OperatorConfig, tuple[int, ...], tuple[int, ...]]]:
    """Each kind once, with the widths in and out at which it is timed, up to the widest of its layers."""
    most: dict[OperatorConfig, tuple[int, int]] = {}
    for call in calls:
        before = most.get(call.kind, (1, 1))
        most[call.kind] = max(before[0], len(call.sets_in)), max(before[1], len(call.sets_out))
    return [(kind, widths_in(most_in), widths_out(most_out)) for kind, (most_in, most_out) in most.items()]


def widths_in(most: int) -> tuple[int, ...]:
    """Quarters of the full width, in multiples of 4 where there are."""
    quarters = [round(most * share / 4) if most < 16 else round(most * share / 16) * 4 for share in (1, 2, 3)]
    return tuple(sorted({1, most} | {q for q in quarters if 0 < q < most}))


def widths_out(most: int) -> tuple[int, ...]:
    """Both sides of the multiples of a step, which is 8 or, in wide layers, a larger power of two."""
    step = max(FINEST_STEP, 2 ** int(np.ceil(np.log2(max(most, 1) / STEPS))))
    powers = FINEST_STEP * 2 ** np.arange(max(int(np.log2(max(most, FINEST_STEP) / FINEST_STEP)), 0) + 1)
    marks = np.union1d(np.arange(step, most + 1, step), powers)
    around = np.concatenate([[1, FINEST_STEP // 2, most], marks - 1, marks, marks + 1])
    return tuple(int(width) for width in np.unique(around[around <= most]))


def time_layer(
    runtime: str, quantize: str | None, watch: Callable, kind: OperatorConfig, width_in: int, width_out: int
):
    """Milliseconds of one run of one layer."""
    suffix, write = RUNTIMES[runtime]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"layer.{suffix}"
        path.write_bytes(write(kind, width_in, width_out, quantize))
        return watch(path)


def time_here(threads: int, path) -> float:
    """Milliseconds of one run of a small file: the median of some runs."""
    model = open_file(path, threads)
    model.feed(random_samples(model.inputs, model.batch))
    return median_ms(model.invoke, WARMUP, FEWEST_RUNS, LEAST_MS)


def check_table(table: LatencyTable, model, graph: Graph, watch: Callable, sweeps: int) -> LatencyTable:
    """The table with the time of the whole model beside what it predicts."""
    predicted = Latency(graph, table).total(np.ones(len(graph.sets), dtype=bool))
    measured = time_whole(model, table, watch, sweeps)
    check = {"model": model.name, "measured_ms": measured, "predicted_ms": predicted}
    return dataclasses.replace(table, check=check)


def time_whole(model, table: LatencyTable, watch: Callable, sweeps: int) -> float:
    """Milliseconds of one run of a model exported as the table was measured, the fastest of some timings."""
    suffix, _ = RUNTIMES[table.runtime]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"whole.{suffix}"
        if suffix == "onnx":
            export_onnx(model, path, batch_size=1)
        else:
            data = [np.random.default_rng(0).uniform(0, 1, (CALIBRATION, *x.shape[1:])) for x in model.inputs]
            data = [x.astype(np.float32) for x in data]
            calibration = {"representative_data": data if len(data) > 1 else data[0]} if table.quantize else {}
            export_tflite(model, path, quantize=table.quantize, batch_size=1, **calibration)
        return min(milliseconds(watch, path) for _ in range(sweeps))
