"""One model in a process of its own, which runs it when it is told to.

A process of its own lets each runtime have its own number of threads, and its memory be told apart. Parent and worker
speak in lines of JSON: `Worker` is the parent's side, `main` the other.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

from kprune.deploy.runtimes.base import Runtime
from kprune.deploy.runtimes.open import kind_of, open_file
from kprune.deploy.runtimes.samples import InputSpec, Samples
from kprune.utils.errors import KpruneError, ModelError

# What the runtimes read when they start; NPROC is XLA's.
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "NPROC")


class Worker:
    """A model that waits in a process of its own. A context manager: leaving it ends the process.

    Attributes:
      path: the file or folder of the model.
      kind: "tflite", "onnx", "saved_model" or "keras".
      inputs: what it takes.
      batch: samples that one run takes; 1 where any number.

    Raises:
      KpruneError: what `open_file` raises, from `wait`.
    """

    def __init__(self, path, threads: int, backend: str):
        self.path, self.kind = pathlib.Path(path), kind_of(path)
        environment = os.environ | {name: str(threads) for name in THREAD_VARIABLES}
        environment |= {"TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        # Only a .keras file needs the user's backend; NumPy starts fastest, where SciPy is there for it.
        by_numpy = self.kind != "keras" and importlib.util.find_spec("scipy") is not None
        environment["KERAS_BACKEND"] = "numpy" if by_numpy else backend
        environment["PYTHONPATH"] = os.pathsep.join(part or os.getcwd() for part in sys.path)
        self._errors = tempfile.TemporaryFile(mode="w+")
        command = [sys.executable, "-m", "kprune.deploy.timing.worker", str(self.path.resolve()), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment, text=True
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def wait(self) -> None:
        """Waits until the model is open."""
        answer = self._read()
        self.inputs = [InputSpec(name, tuple(shape), dtype) for name, shape, dtype in answer["inputs"]]
        self.batch = answer["batch"]

    def feed(self, samples: Samples) -> None:
        """Sets the inputs of all runs to come."""
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "inputs.npz"
            np.savez(file, **{f"input_{i}": samples[spec.name] for i, spec in enumerate(self.inputs)})
            self._ask("feed", str(file))

    def time_ms(self) -> float:
        """Runs the model once; milliseconds, as the worker itself measures them."""
        return self._ask("run")["ms"]

    def memory_bytes(self) -> int | None:
        """By how much opening and running the model has raised the process's memory at its peak; None if unknown."""
        return self._ask("memory")["bytes"]

    def _ask(self, command: str, argument: str = "") -> dict:
        try:
            self._process.stdin.write(json.dumps([command, argument]) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # `_read` tells why
        return self._read()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            what, expected, mend = answer["error"]
            raise ModelError(what, expected, mend)
        return answer

    def _last_words(self) -> tuple:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or [f"exit code {code}"]
        return (
            f"The process that runs {self.path} ended: {lines[-1]}.",
            "A model that the installed runtime can run.",
            "Run it by itself to see the whole message.",
        )


def main(path: str, threads: str) -> None:
    """The worker: opens the model, then obeys one line after another until its input ends."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints must not reach the parent

    def answer(**facts) -> None:
        print(json.dumps(facts), file=channel, flush=True)

    try:
        _load_runtime(path)
        before = _reset_peak()
        model = _open(path, int(threads))
        answer(inputs=[[s.name, s.shape, s.dtype] for s in model.inputs], batch=model.batch)
        for line in sys.stdin:
            answer(**_obey(model, before, *json.loads(line)))
    except KpruneError as error:
        answer(error=(error.what, error.expected, error.fix))
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        answer(error=(f"{path} cannot be run: {first}", "Inputs and batch that fit it.", "Export it again to fit."))


def _obey(model: Runtime, before: int | None, command: str, argument: str) -> dict:
    if command == "feed":
        with np.load(argument) as file:
            model.feed({spec.name: file[f"input_{index}"] for index, spec in enumerate(model.inputs)})
        return {}
    if command == "run":
        start = time.perf_counter_ns()
        model.invoke()
        return {"ms": (time.perf_counter_ns() - start) / 1e6}
    return {"bytes": None if before is None else max(0, _memory("VmHWM") - before)}


def _load_runtime(path: str) -> None:
    """Imports what the model needs, so that its memory is not counted as the model's."""
    kind = kind_of(path)
    if kind == "saved_model":
        with contextlib.suppress(ImportError):  # opening the model says what is missing
            import tensorflow as tf

            tf.constant(0.0) + 1.0
    if kind == "keras":
        import keras

        keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).predict_on_batch(np.zeros((1, 1)))


def _open(path: str, threads: int) -> Runtime:
    if kind_of(path) == "keras":
        from kprune.deploy.runtimes.keras_model import open_keras

        return open_keras(path)
    return open_file(path, threads)


def _reset_peak() -> int | None:
    """The process's memory now, in bytes, its peak forgotten; None where the system does not tell."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        return _memory("VmRSS")
    except OSError:
        return None


def _memory(field: str) -> int:
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", status)[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
