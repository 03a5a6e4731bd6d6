"""Files of every kind opened for running: what the runtimes have in common."""

import contextlib
import logging
import os
import pathlib
import sys
import warnings

from kprune.errors import ModelError, OptionError
from kprune.export._samples import InputSpec, Samples, map_batches
from kprune.options import check_whole

SIGNATURE = "serving_default"


class Runtime:
    """An open file. Subclasses set the attributes and say how to `feed`, `invoke` and `fetch`.

    Attributes:
      inputs: what the file takes.
      outputs: the names of what it gives, in the order of the model that it was made from.
      batch: samples that one run takes; 1 where the file takes any number.
    """

    inputs: list[InputSpec]
    outputs: list[str]
    batch: int = 1

    def feed(self, samples: Samples) -> None:
        """Sets the inputs of the next run."""
        raise NotImplementedError

    def invoke(self) -> None:
        """Runs the file once on the inputs that were fed; this alone is timed."""
        raise NotImplementedError

    def fetch(self) -> Samples:
        """The outputs of the last run, by name."""
        raise NotImplementedError

    def run(self, samples: Samples) -> Samples:
        """Runs the file on all samples, `batch` at a time, and gives the outputs of all of them."""
        return map_batches(self._run_once, samples, self.batch)

    def _run_once(self, samples: Samples) -> Samples:
        self.feed(samples)
        self.invoke()
        return self.fetch()


def open_file(path, threads: int = 1) -> Runtime:
    """Opens a TFLite file, an ONNX file or the folder of a SavedModel.

    Args:
      path: the file or folder.
      threads: CPU threads that one run may use. TensorFlow decides that for the whole process, when it starts, so a
        SavedModel runs with what the process has.

    Raises:
      OptionError: there is no such file, or `threads` is below 1.
      ModelError: it is none of these, it is broken, or its runtime is not installed.
    """
    path, kind = pathlib.Path(path), kind_of(path)
    check_whole("threads", threads, 1)
    if kind == "tflite":
        from kprune.export._litert import open_tflite

        return open_tflite(path, threads)
    if kind == "onnx":
        from kprune.export._onnxruntime import open_onnx

        return open_onnx(path, threads)
    from kprune.export._saved_model import open_saved_model

    return open_saved_model(path)


def kind_of(path) -> str:
    """ "tflite", "onnx", "saved_model" or "keras", by the suffix, or for a folder by what is in it.

    Raises:
      OptionError: there is no such file.
      ModelError: it is none of these.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise OptionError(f"There is no file {path}.", "A model file.", "Check the path, or export the model first.")
    kinds = {".tflite": "tflite", ".onnx": "onnx", ".keras": "keras"}
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return "saved_model"
    if path.is_file() and path.suffix in kinds:
        return kinds[path.suffix]
    raise ModelError(
        f"{path} is no model that can be run.",
        "A .tflite, .onnx or .keras file, or a folder with saved_model.pb.",
        "Export the model with kprune.export_tflite, export_onnx or export_saved_model.",
    )


@contextlib.contextmanager
def quiet():
    """Keeps warnings, INFO logs and what native libraries write to stderr off the screen. Errors still raise."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow", "tf2onnx")]
    levels = [logger.level for logger in loggers]
    if sys.stderr is not None:
        sys.stderr.flush()
    stderr, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(sink)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
