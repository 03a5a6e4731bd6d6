"""Opens and runs TFLite files with the runtime that is installed."""

import pathlib
import re

import numpy as np

from kprune.deploy.runtimes.base import SIGNATURE, Runtime, quiet
from kprune.deploy.runtimes.samples import InputSpec, Samples
from kprune.utils.checks import check_whole
from kprune.utils.errors import MissingPackageError, ModelError, OptionError


class LiteModel(Runtime):
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


class SignatureModel(Runtime):
    """One signature of a TFLite file that has several. Attributes as those of `LiteModel`."""

    def __init__(self, interpreter, key: str):
        self._interpreter = interpreter  # the runner does not keep it alive
        self._runner, self._fed, self._results = interpreter.get_signature_runner(key), {}, {}
        self._ins, outs = self._runner.get_input_details(), self._runner.get_output_details()
        self._outs = {name: outs[name] for name in sorted(outs, key=_output_order)}
        self.inputs = [_input_spec(name, detail) for name, detail in self._ins.items()]
        self.outputs = list(self._outs)
        self.batch = max([1, *(int(detail["shape_signature"][0]) for detail in self._ins.values())])

    def feed(self, samples: Samples) -> None:
        self._fed = {name: _quantized(samples[name], detail) for name, detail in self._ins.items()}

    def invoke(self) -> None:
        self._results = self._runner(**self._fed)

    def fetch(self) -> Samples:
        return {name: _dequantized(self._results[name], detail) for name, detail in self._outs.items()}


def open_tflite(path, threads: int = 1, signature: str | None = None) -> Runtime:
    """Opens a TFLite file, ready to run.

    Args:
      path: the file.
      threads: CPU threads that one run may use.
      signature: which of several signatures to run. Default: "serving_default", or the only one.

    Returns:
      The open file.

    Raises:
      OptionError: there is no such file or signature, or `threads` is below 1.
      ModelError: the file is no TFLite model, or holds operations that the runtime does not know; or no runtime is
        installed.
    """
    path = pathlib.Path(path)
    check_whole("threads", threads, 1)
    if not path.is_file():
        raise OptionError(f"There is no file {path}.", "A .tflite file.", "Check the path, or export the model first.")
    runtime = _interpreter_class()
    try:
        with quiet():
            interpreter = runtime(model_path=str(path), num_threads=threads)
            keys = list(interpreter.get_signature_list())
            if signature in (None, *keys):
                return _open(interpreter, keys, signature)
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path} could not be opened: {' '.join(str(error).split()).rstrip('.')}.",
            "A whole TFLite file of built-in operations.",
            "Export the model again with kprune.export_tflite.",
        ) from error
    raise OptionError(f"{path} has no signature {signature!r}.", f"One of {keys}.", "Name one of these.")


def _open(interpreter, keys: list[str], signature: str | None) -> Runtime:
    if len(keys) > 1:
        return SignatureModel(interpreter, signature or (SIGNATURE if SIGNATURE in keys else keys[0]))
    model = LiteModel(interpreter)
    if not any(None in spec.shape for spec in model.inputs):
        interpreter.allocate_tensors()
    return model


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
        raise MissingPackageError(
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
