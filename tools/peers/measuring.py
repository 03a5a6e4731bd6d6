"""What the workers of tools/benchmark_peers.py share: time, memory, and one way to count; needs NumPy alone."""

import contextlib
import json
import pathlib
import re
import time

import numpy as np


class Stopwatch:
    """Seconds, and the memory that a `with` block needed at its height beyond what was in use before it.

    Attributes:
      seconds: wall clock.
      peak_bytes: None where the system does not tell (it is read from Linux' /proc).
    """

    def __enter__(self):
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # the height begins anew
        self._before, self._start = _status("VmRSS"), time.perf_counter()
        return self

    def __exit__(self, *error):
        self.seconds = time.perf_counter() - self._start
        height = _status("VmHWM")
        self.peak_bytes = None if height is None else max(0, height - self._before)


def _status(name: str) -> int | None:
    with contextlib.suppress(OSError):
        found = re.search(rf"{name}:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else None
    return None


def keras_cost(model) -> dict:
    """Multiply-accumulates and parameters of a functional Keras 2 or 3 model of ordinary convs and dense layers."""
    flops = 0
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            flops += int(np.prod(kernel.shape)) * int(np.prod(layer.output.shape[1:-1]))
    return {"flops": flops, "params": int(model.count_params())}


def keras_widths(model) -> list[int]:
    """The filters of each conv and dense layer, in order."""
    return [int(layer.kernel.shape[-1]) for layer in model.layers if getattr(layer, "kernel", None) is not None]


def narrowed(before: list[int], after: list[int]) -> int:
    """How many layers lost filters."""
    return sum(new < old for old, new in zip(before, after, strict=True))


def answer(**facts) -> None:
    """Hands the facts to the tool, which reads the last line."""
    print(json.dumps(facts))
