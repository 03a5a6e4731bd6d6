"""Stop-watches: how many milliseconds one run of a model file takes, on this machine or by a command on another."""

import math
import pathlib
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kprune.deploy.runtimes.open import open_file
from kprune.deploy.runtimes.samples import random_samples
from kprune.utils.checks import check_amount, check_whole, is_number
from kprune.utils.errors import ModelError, OptionError

WARMUP = 10
MORE_REPEATS = 3  # times as many timings where the first ones lie on both sides of the target
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
PLACE = "{path}"


@dataclass(frozen=True)
class Stopwatch:
    """Times a file on this machine: the median over runs of one sample.

    Args:
      threads: CPU threads that one run may use.
      runs: timed runs.

    Example:
      >>> kprune.Stopwatch(threads=2)("small.tflite")
      0.412
    """

    threads: int = 1
    runs: int = 100

    def __post_init__(self):
        check_whole("threads", self.threads, 1)
        check_whole("runs", self.runs, 1, example=100)

    def __call__(self, path) -> float:
        """The milliseconds of one run of a TFLite file, an ONNX file or a SavedModel.

        Raises:
          OptionError: there is no such file.
          ModelError: it cannot be run here.
        """
        model = open_file(path, self.threads)
        model.feed(random_samples(model.inputs, model.batch))
        return median_ms(model.invoke, WARMUP, self.runs)


@dataclass(frozen=True)
class CommandStopwatch:
    """Times a file by a command, on another device for one: the last number that it prints is milliseconds.
    tools/jetson_benchmark.py and `kprune benchmark` print nothing else with `--median`.

    Args:
      command: run by the shell, `{path}` in it replaced by the file's path; where it has none, the path comes last.
      timeout: seconds after which it counts as failed, or None.

    Raises:
      OptionError: the command is no text, or the timeout no number above zero.

    Example:
      >>> command = "scp {path} jetson:m.tflite && ssh jetson python3 jetson_benchmark.py m.tflite --median"
      >>> ms = kprune.CommandStopwatch(command)("a.tflite")
    """

    command: str
    timeout: float | None = None

    def __post_init__(self):
        if not isinstance(self.command, str) or not self.command.strip():
            raise OptionError(
                f"The command is {self.command!r}.",
                "A shell command that prints milliseconds.",
                "Pass 'ssh device ...'.",
            )
        if self.timeout is not None:
            check_amount("timeout", self.timeout)

    def __call__(self, path) -> float:
        """Runs the command.

        Raises:
          ModelError: it fails, takes too long, or its last line holds no number above 0.
        """
        file = shlex.quote(str(path))
        line = self.command.replace(PLACE, file) if PLACE in self.command else f"{self.command} {file}"
        try:
            done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=self.timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise self.failure(line, f"took more than {self.timeout} seconds") from error
        if done.returncode:
            raise self.failure(line, f"ended with exit code {done.returncode}: {last_line(done.stderr)}")
        printed = NUMBER.findall(done.stdout)
        if not printed:
            raise self.failure(line, f"printed no number: {last_line(done.stdout)}")
        if not 0 < float(printed[-1]) < math.inf:
            raise self.failure(line, f"printed {printed[-1]} as its last number")
        return float(printed[-1])

    def failure(self, line: str, what: str) -> ModelError:
        return ModelError(
            f"The stop-watch `{line}` {what}.",
            "A command that ends with exit code 0 and prints the milliseconds of one run last.",
            "Run it by hand, and mend it.",
        )


def time_repeatedly(measure: Callable, target_ms: float, repeats: int, path) -> tuple[float, ...]:
    """The milliseconds of a file, several times; more often where they do not agree whether it meets the target.

    Args:
      measure: called with the path, gives milliseconds.
      target_ms: the target.
      repeats: how often.
      path: the file.

    Raises:
      OptionError: `measure` gives no number above 0.
    """
    samples: list[float] = []
    while len(samples) < repeats or (
        len(samples) < MORE_REPEATS * repeats and min(samples) <= target_ms < max(samples)
    ):
        samples.append(milliseconds(measure, path))
    return tuple(samples)


def milliseconds(measure: Callable, path) -> float:
    """What a user's stop-watch says of a file.

    Raises:
      OptionError: it gives no number above 0.
    """
    ms = measure(path)
    if not is_number(ms) or not 0 < ms < math.inf:
        raise OptionError(
            f"measure gave {ms!r} for {pathlib.Path(path).name}.", "Milliseconds above 0.", "Return a float."
        )
    return float(ms)


def last_line(text: str) -> str:
    """The end of what a command wrote, in one line."""
    return (text.strip().splitlines() or ["it wrote nothing"])[-1][:200].rstrip(" .")


def median_ms(invoke, warmup: int, runs: int, least_ms: float = 0.0) -> float:
    """The median milliseconds of a call.

    Args:
      invoke: the call.
      warmup: calls before the first timed one.
      runs: timed calls; more where they take less than `least_ms` together.
      least_ms: how long all of them last at least.
    """
    for _ in range(warmup):
        invoke()
    times, begin = [], time.perf_counter_ns()
    while len(times) < runs or time.perf_counter_ns() - begin < least_ms * 1e6:
        start = time.perf_counter_ns()
        invoke()
        times.append(time.perf_counter_ns() - start)
    return float(np.median(times)) / 1e6
