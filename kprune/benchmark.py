"""How fast TFLite files really run on this machine's CPU."""

import dataclasses
import time

import numpy as np

from kprune.errors import OptionError
from kprune.export._litert import open_tflite
from kprune.export._samples import gather_samples, random_samples


@dataclasses.dataclass(frozen=True)
class TFLiteTiming:
    """How long one run of a TFLite file takes.

    Attributes:
      path: the file.
      median_ms: the median over all timed runs, in milliseconds.
      p10_ms: a tenth of the runs were faster.
      p90_ms: a tenth of the runs were slower.
      threads: CPU threads that each run could use.
      runs: the number of timed runs.
      samples_ms: the time of each run, in order.
    """

    path: str
    median_ms: float
    p10_ms: float
    p90_ms: float
    threads: int
    runs: int
    samples_ms: tuple[float, ...] = dataclasses.field(repr=False)

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return (
            f"{self.path}: median {self.median_ms:.3g} ms, 10 % below {self.p10_ms:.3g} ms, "
            f"10 % above {self.p90_ms:.3g} ms ({self.runs} runs, {threads})"
        )


def benchmark_tflite(*paths, threads: int = 1, warmup: int = 10, runs: int = 100, seed: int = 0):
    """Times TFLite files on random inputs, one sample at a time (or the batch that the file was made for).

    Several files take turns run by run, so that whatever else the machine does slows all of them alike.

    Args:
      *paths: the files.
      threads: CPU threads that one run may use.
      warmup: runs of each file before the first timed one.
      runs: timed runs of each file.
      seed: seed of the random inputs.

    Returns:
      A `TFLiteTiming`; for several files a list of them, in the order of `paths`.

    Raises:
      OptionError: no or a missing file, or `threads`, `warmup` or `runs` out of range.
      ModelError: a file that is no TFLite model.

    Example:
      >>> full, small = kprune.benchmark_tflite("full.tflite", "small.tflite")
      >>> print(f"{full.median_ms / small.median_ms:.2f} times as fast")
    """
    if not paths:
        raise OptionError("benchmark_tflite got no file.", "At least one path.", "Pass the .tflite files to time.")
    for name, value, least in (("warmup", warmup, 0), ("runs", runs, 1)):
        if not isinstance(value, int) or value < least:
            raise OptionError(f"{name} is {value!r}.", f"A whole number from {least}.", f"Pass {name}={least} or more.")
    models = [open_tflite(path, threads) for path in paths]
    for model in models:
        model.feed(random_samples(model.inputs, model.batch, seed))
    for _ in range(warmup):
        for model in models:
            model.invoke()
    times_ms = np.array([[_time_ms(model) for model in models] for _ in range(runs)])
    timings = [_timing(path, times, threads) for path, times in zip(paths, times_ms.T, strict=True)]
    return timings if len(timings) > 1 else timings[0]


def run_tflite(path, inputs, threads: int = 1):
    """Runs a TFLite file on a batch of inputs.

    Args:
      path: the file.
      inputs: an array, sample axis first; for a file with several inputs a dict of arrays by the names of the file's
        inputs. A file of integers that stand for real numbers takes the real numbers.
      threads: CPU threads that one run may use.

    Returns:
      The output as an array; of several a list, in the order of the model that the file was made from (by name where
      that model returns a dict). Integers that stand for real numbers are given as float32.

    Raises:
      OptionError: there is no such file, or the inputs do not fit it.
      ModelError: the file is no TFLite model.

    Example:
      >>> run_tflite("small.tflite", images).argmax(-1)
    """
    model = open_tflite(path, threads)
    if len(model.inputs) > 1 and not isinstance(inputs, dict):
        raise OptionError(
            f"inputs is a {type(inputs).__name__} for a file with {len(model.inputs)} inputs, which have no order.",
            "A dict of arrays.",
            f"Pass one array for each of {[spec.name for spec in model.inputs]}.",
        )
    outputs = list(model.run(gather_samples(inputs, model.inputs, "inputs")).values())
    return outputs if len(outputs) > 1 else outputs[0]


def _time_ms(model) -> float:
    start = time.perf_counter_ns()
    model.invoke()
    return (time.perf_counter_ns() - start) / 1e6


def _timing(path, times_ms: np.ndarray, threads: int) -> TFLiteTiming:
    p10, median, p90 = (float(value) for value in np.percentile(times_ms, [10, 50, 90]))
    return TFLiteTiming(str(path), median, p10, p90, threads, len(times_ms), tuple(times_ms.tolist()))
