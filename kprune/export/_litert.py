"""Opens and runs TFLite files with the runtime that is installed."""

import contextlib
import logging
import os
import pathlib
import re
import sys
import warnings

import numpy as np

from kprune.errors import ModelError, OptionError
from kprune.export._samples import InputSpec, Samples, map_batches


@contextlib.contextmanager
def quiet():
    """Keeps warnings, INFO logs and what native libraries write to stderr off the screen. Errors still raise."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
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


class LiteModel:
    """An open TFLite file. Tensors go by the names of the file's signature.

    Attributes:
      inputs: what the file takes; integers that stand for real numbers are given as float32.
      outputs: the names of what it gives, in the order of the model that it was made from (`output_0`, `output_1`, ...)
        or, where the model names its outputs, by name.
      batch: samples that one run takes.
    """

    def __init__(self, interpreter):
        self._interpreter, self._shapes = interpreter, None
        self._ins, outs = _signature(interpreter)
        self._outs = {name: outs[name] for name in sorted(outs, key=_output_order)}
        self.inputs = [_input_spec(name, detail) for name, detail in self._ins.items()]
        self.outputs = list(self._outs)
        sizes = {int(detail["shape_signature"][0]) for detail in self._ins.values() if len(detail["shape"])}
        self.batch = max(1, *sizes) if sizes else 1

    def feed(self, samples: Samples) -> None:
        """Sets the inputs of the next run, and resizes the file's tensors where they have another shape."""
        shapes = {name: samples[name].shape for name in self._ins}
        if shapes != self._shapes:
            for name, detail in self._ins.items():
                self._interpreter.resize_tensor_input(detail["index"], shapes[name])
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, detail in self._ins.items():
            self._interpreter.set_tensor(detail["index"], _quantized(samples[name], detail))

    def invoke(self) -> None:
        """Runs the file once on the inputs that were fed."""
        self._interpreter.invoke()

    def fetch(self) -> Samples:
        """The outputs of the last run, by name; integers that stand for real numbers are given as float32."""
        get = self._interpreter.get_tensor
        return {name: _dequantized(get(detail["index"]), detail) for name, detail in self._outs.items()}

    def run(self, samples: Samples) -> Samples:
        """Runs the file on all samples, `batch` at a time, and gives the outputs of all of them."""
        return map_batches(self._run_once, samples, self.batch)

    def _run_once(self, samples: Samples) -> Samples:
        self.feed(samples)
        self.invoke()
        return self.fetch()


def open_tflite(path, threads: int = 1) -> LiteModel:
    """Opens a TFLite file, ready to run.

    Args:
      path: the file.
      threads: CPU threads that one run may use.

    Returns:
      The open file.

    Raises:
      OptionError: there is no such file, or `threads` is below 1.
      ModelError: the file is no TFLite model, or holds operations that the runtime does not know.
    """
    path = pathlib.Path(path)
    if not isinstance(threads, int) or threads < 1:
        raise OptionError(f"threads is {threads!r}.", "A whole number from 1.", "Pass threads=1.")
    if not path.is_file():
        raise OptionError(f"There is no file {path}.", "A .tflite file.", "Check the path, or export the model first.")
    try:
        with quiet():
            interpreter = _interpreter_class()(model_path=str(path), num_threads=threads)
            model = LiteModel(interpreter)
            if not any(None in spec.shape for spec in model.inputs):
                interpreter.allocate_tensors()
            return model
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path} could not be opened: {' '.join(str(error).split()).rstrip('.')}.",
            "A whole TFLite file of built-in operations.",
            "Export the model again with kprune.export_tflite.",
        ) from error


def _interpreter_class():
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    except ImportError:
        pass
    try:
        import tensorflow as tf

        return tf.lite.Interpreter
    except ImportError as error:
        raise ModelError(
            "No runtime for TFLite files is installed.",
            "The package ai-edge-litert, or TensorFlow.",
            "pip install ai-edge-litert",
        ) from error


def _signature(interpreter) -> tuple[dict, dict]:
    """Details of the inputs and outputs by signature name, or by tensor name in a file without a signature."""
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        named = runner.get_input_details(), runner.get_output_details()
        if {detail["index"] for detail in named[0].values()} == {detail["index"] for detail in ins}:
            return dict(named[0]), dict(named[1])
    return {detail["name"]: detail for detail in ins}, {detail["name"]: detail for detail in outs}


def _output_order(name: str) -> tuple:
    number = re.fullmatch(r"output_(\d+)", name)
    return (0, int(number[1]), "") if number else (1, 0, name)


def _input_spec(name: str, detail: dict) -> InputSpec:
    shape = tuple(None if size < 0 else int(size) for size in detail["shape_signature"][1:])
    return InputSpec(name, shape, "float32" if detail["quantization"][0] else np.dtype(detail["dtype"]).name)


def _quantized(array: np.ndarray, detail: dict) -> np.ndarray:
    scale, zero = detail["quantization"]
    if not scale:
        return array.astype(detail["dtype"])
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.round(array / scale) + zero, limits.min, limits.max).astype(detail["dtype"])


def _dequantized(array: np.ndarray, detail: dict) -> np.ndarray:
    scale, zero = detail["quantization"]
    return (array.astype("float32") - zero) * np.float32(scale) if scale else array
