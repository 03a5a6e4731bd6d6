"""How fast models really run on this machine: TFLite, ONNX, SavedModel and Keras, in turn on one input."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Callable

import keras
import numpy as np

from kprune.deploy.export.source import argument_names
from kprune.deploy.runtimes.litert import open_tflite
from kprune.deploy.runtimes.samples import gather_samples, random_samples
from kprune.deploy.timing.results import Benchmark, Timing
from kprune.deploy.timing.worker import Worker
from kprune.utils.checks import check_whole
from kprune.utils.errors import OptionError
from kprune.utils.machine import machine_facts


def benchmark(
    *models, data=None, batch_size: int = 1, threads: int = 1, warmup: int = 10, runs: int = 100, seed: int = 0
) -> Benchmark:
    """Times models of any kind on one input: TFLite and ONNX files, SavedModels, Keras models in files or in memory.

    Each model runs in a process of its own, which is given the threads and whose memory is measured. They take turns
    run by run, so that whatever else the machine does slows all of them alike; a model's process sleeps while others
    run. The time is that of one run inside the process: for Keras models of `predict_on_batch` on the backend of this
    process, for SavedModels with their outputs as NumPy arrays.

    Args:
      *models: paths, or Keras models.
      data: inputs, of which the first `batch_size` samples are used; default: random ones. An array, or for several
        inputs a dict by the names of the first model's inputs.
      batch_size: samples per run.
      threads: CPU threads that one run may use.
      warmup: runs of each model before the first timed one.
      runs: timed runs of each model.
      seed: seed of the random inputs.

    Returns:
      The timings, with ratios that carry their spread; printing it gives a table.

    Raises:
      OptionError: no model, models with unlike inputs, a missing file, or a number out of range.
      ModelError: a model that cannot be run.

    Example:
      >>> print(kprune.benchmark("full.tflite", "small.tflite", "small.onnx", small))
    """
    if not models:
        raise OptionError("benchmark got no model.", "At least one.", "Pass paths or Keras models.")
    for name, value, least in (
        ("warmup", warmup, 0),
        ("runs", runs, 1),
        ("batch_size", batch_size, 1),
        ("threads", threads, 1),
        ("seed", seed, 0),
    ):
        check_whole(name, value, least)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        backend = keras.backend.backend()
        named = [_on_disk(model, folder / str(index)) for index, model in enumerate(models)]
        workers = [stack.enter_context(Worker(path, threads, backend)) for _, path in named]
        for worker in workers:
            worker.wait()
        _feed(workers, data, batch_size, seed)
        times_ms = take_turns([worker.time_ms for worker in workers], warmup, runs)
        timings = [
            dataclasses.replace(
                Timing.of(name, times, threads),
                kind=worker.kind,
                size_bytes=_size(path),
                memory_bytes=worker.memory_bytes(),
            )
            for (name, path), worker, times in zip(named, workers, times_ms.T, strict=True)
        ]
    return Benchmark(tuple(timings), machine_facts())


def benchmark_tflite(*paths, threads: int = 1, warmup: int = 10, runs: int = 100, seed: int = 0):
    """Times TFLite files in this process, one sample at a time (or the batch that the file was made for).

    Files may have different inputs, each gets random ones. Several files take turns run by run, so that whatever else
    the machine does slows all of them alike. `benchmark` also measures memory and runs other kinds of models.

    Args:
      *paths: the files.
      threads: CPU threads that one run may use.
      warmup: runs of each file before the first timed one.
      runs: timed runs of each file.
      seed: seed of the random inputs.

    Returns:
      A `Timing`; for several files a list of them, in the order of `paths`.

    Raises:
      OptionError: no or a missing file, or `threads`, `warmup` or `runs` out of range.
      ModelError: a file that is no TFLite model.

    Example:
      >>> print(*kprune.benchmark_tflite("full.tflite", "small.tflite"), sep="\\n")
    """
    if not paths:
        raise OptionError("benchmark_tflite got no file.", "At least one path.", "Pass the .tflite files to time.")
    for name, value, least in (("warmup", warmup, 0), ("runs", runs, 1), ("seed", seed, 0)):
        check_whole(name, value, least)
    models = [open_tflite(path, threads) for path in paths]
    for model in models:
        model.feed(random_samples(model.inputs, model.batch, seed))
    times_ms = take_turns([lambda model=model: _time_ms(model) for model in models], warmup, runs)
    timings = [Timing.of(path, times, threads) for path, times in zip(paths, times_ms.T, strict=True)]
    return timings if len(timings) > 1 else timings[0]


def run_tflite(path, inputs, threads: int = 1, signature: str | None = None):
    """Runs a TFLite file on a batch of inputs.

    Args:
      path: the file.
      inputs: an array, sample axis first; for a file with several inputs a dict of arrays by the names of the file's
        inputs. A file of integers that stand for real numbers takes the real numbers.
      threads: CPU threads that one run may use.
      signature: which of several signatures to run; default: "serving_default".

    Returns:
      The output as an array; of several a list, in the order of the model that the file was made from (by name where
      that model returns a dict). Integers that stand for real numbers are given as float32.

    Raises:
      OptionError: there is no such file or signature, or the inputs do not fit it.
      ModelError: the file is no TFLite model.

    Example:
      >>> run_tflite("small.tflite", images).argmax(-1)
    """
    model = open_tflite(path, threads, signature)
    if len(model.inputs) > 1 and not isinstance(inputs, dict):
        raise OptionError(
            f"inputs is a {type(inputs).__name__} for a file with {len(model.inputs)} inputs, which have no order.",
            "A dict of arrays.",
            f"Pass one array for each of {[spec.name for spec in model.inputs]}.",
        )
    outputs = list(model.run(gather_samples(inputs, model.inputs, "inputs")).values())
    return outputs if len(outputs) > 1 else outputs[0]


def take_turns(stop_watches: list[Callable[[], float]], warmup: int, runs: int) -> np.ndarray:
    """Milliseconds `[runs, models]`: each round runs every model once, after `warmup` rounds that do not count."""
    times_ms = [[time_ms() for time_ms in stop_watches] for _ in range(warmup + runs)]
    return np.array(times_ms[warmup:])


def _on_disk(model, folder: pathlib.Path) -> tuple:
    """The name and the path of a model; one in memory is saved."""
    if not isinstance(model, keras.Model):
        if not isinstance(model, (str, os.PathLike)):
            raise OptionError(
                f"A {type(model).__name__} was given to be timed.", "A Keras model, or the path of one.", "Pass a path."
            )
        return str(model), pathlib.Path(model)
    folder.mkdir()
    model.save(folder / "model.keras")
    return f"{model.name} (Keras, {keras.backend.backend()})", folder / "model.keras"


def _feed(workers: list[Worker], data, batch_size: int, seed: int) -> None:
    """Gives all models the same inputs, by name where there are several."""
    first = workers[0].inputs
    for worker in workers:
        _check_alike(worker, workers[0], batch_size)
    samples = random_samples(first, batch_size, seed) if data is None else gather_samples(data, first, "data")
    count = len(next(iter(samples.values())))
    if count < batch_size:
        raise OptionError(f"data holds {count} samples.", f"batch_size={batch_size}.", "Pass more, or a smaller batch.")
    arrays = {name: samples[spec.name][:batch_size] for name, spec in _in_files(workers[0]).items()}
    for worker in workers:
        worker.feed({spec.name: arrays[name] for name, spec in _in_files(worker).items()})


def _in_files(worker: Worker) -> dict:
    """The inputs by the names that files have for them; a lone one by none."""
    names = argument_names(worker.inputs)
    return {"" if len(worker.inputs) == 1 else names[spec.name]: spec for spec in worker.inputs}


def _check_alike(worker: Worker, reference: Worker, batch_size: int) -> None:
    shapes, expected = ({name: spec.shape for name, spec in _in_files(one).items()} for one in (worker, reference))
    if shapes != expected:
        raise OptionError(
            f"{worker.path.name} takes {worker.inputs}, {reference.path.name} takes {reference.inputs}.",
            "Models with the same inputs.",
            "Time models with other inputs by a call of their own.",
        )
    if worker.batch not in (1, batch_size):
        raise OptionError(
            f"{worker.path.name} takes {worker.batch} samples per run.",
            f"batch_size={batch_size}.",
            f"Pass batch_size={worker.batch}, or export it with batch_size={batch_size}.",
        )


def _size(path: pathlib.Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _time_ms(model) -> float:
    start = time.perf_counter_ns()
    model.invoke()
    return (time.perf_counter_ns() - start) / 1e6
