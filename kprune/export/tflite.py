"""A Keras model as a TFLite file, in float or quantized, checked with the runtime that will run it."""

import contextlib
import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Iterator

import keras
import numpy as np

from kprune.errors import ExportError, ModelError, OptionError
from kprune.export._litert import open_tflite, quiet
from kprune.export._samples import InputSpec, Samples, gather_samples, in_batches, map_batches, random_samples
from kprune.files import write_by_rename

QUANTIZE = (None, "float16", "dynamic", "int8")
FLOAT32_TOLERANCE = 1e-3
RANDOM_SAMPLES = 16


@dataclasses.dataclass(frozen=True)
class TFLiteExport:
    """A TFLite file that was written, and how close it is to its Keras model.

    Attributes:
      path: the file.
      quantize: how its weights are stored: None, "float16", "dynamic" or "int8".
      size_bytes: its size.
      error: the largest absolute difference to the Keras model's output, divided by the largest absolute Keras output;
        of several outputs the worst.
      agreement: the share of samples whose largest output along the last axis is the Keras model's, 0..1; of several
        outputs the worst; None where no output has a last axis longer than 1.
      samples: the number of samples that were compared.
    """

    path: pathlib.Path
    quantize: str | None
    size_bytes: int
    error: float
    agreement: float | None
    samples: int

    def __str__(self) -> str:
        agreement = "" if self.agreement is None else f", same class for {self.agreement:.1%}"
        return (
            f"{self.path}: {self.quantize or 'float32'}, {self.size_bytes / 1000:.1f} kB\n"
            f"against the Keras model on {self.samples} samples: "
            f"largest difference {self.error:.2g} of the largest output{agreement}"
        )


def export_tflite(
    model: keras.Model, path, *, quantize: str | None = None, representative_data=None, check_data=None, overwrite=True
) -> TFLiteExport:
    """Writes a Keras model as a TFLite file and runs the file to check it. The model does not change.

    Args:
      model: a built model with known inputs (functional or sequential), on the TensorFlow backend.
      path: the file to write. It appears whole, and only after the check.
      quantize: None for float32; "float16" halves the file; "dynamic" stores weights in 8 bits and computes what it can
        in 8 bits; "int8" computes in 8 bits throughout. The file takes and gives floats in each.
      representative_data: typical inputs, a few hundred, from which "int8" learns the ranges: an array, for several
        inputs a list, tuple or dict of arrays, or a finite `tf.data.Dataset` or other iterable of batches. Labels in
        `(x, y)` pairs are dropped.
      check_data: the inputs to compare file and model on, in the same forms. Default: `representative_data`, else 16
        random normal inputs.
      overwrite: whether an existing file may be replaced.

    Returns:
      What was written and how close it is to the model.

    Raises:
      OptionError: an unknown `quantize`, no data for "int8", or data that does not fit the model.
      ModelError: a model without known inputs, another backend than TensorFlow, or outputs that are not finite.
      ExportError: the model cannot be converted, `path` cannot be written, or a float32 file differs from the model by
        more than 0.001. Nothing is left behind.

    Example:
      >>> print(kprune.export_tflite(model, "small.tflite", quantize="int8", representative_data=x_train[:200]))
    """
    inputs = _model_inputs(model)
    if quantize not in QUANTIZE:
        raise OptionError(f"quantize is {quantize!r}.", f"One of {QUANTIZE}.", "Pass one of these.")
    calibration = _read(representative_data, inputs, "representative_data")
    if quantize == "int8" and calibration is None:
        raise OptionError(
            'quantize="int8" came without representative_data.',
            "A few hundred typical inputs, from which the ranges are learnt.",
            'Pass representative_data=x_train[:200], or quantize="dynamic", which needs none.',
        )
    check = _read(check_data, inputs, "check_data") or calibration or random_samples(inputs, RANDOM_SAMPLES)
    closeness = []

    def write(temporary: pathlib.Path) -> None:
        with _in_float32(model):
            temporary.write_bytes(_convert(model, inputs, quantize, calibration))
            closeness.extend(_compare(model, temporary, inputs, check, quantize))

    path = write_by_rename(path, write, overwrite)
    count = len(next(iter(check.values())))
    return TFLiteExport(path, quantize, path.stat().st_size, *closeness, count)


def _model_inputs(model: keras.Model) -> list[InputSpec]:
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ModelError(
            f"The Keras backend is {backend}.",
            "The TensorFlow backend, whose converter writes TFLite files.",
            "Save the model as .keras, start Python with KERAS_BACKEND=tensorflow, load it there and export.",
        )
    tensors = getattr(model, "inputs", None)
    if not isinstance(model, keras.Model) or not tensors:
        raise ModelError(
            f"{getattr(model, 'name', type(model).__name__)} has no known inputs.",
            "A functional or sequential Keras model with an input shape.",
            "Build it from keras.Input, or wrap it: keras.Model(x, model(x)).",
        )
    return [InputSpec(tensor.name, tuple(tensor.shape[1:]), tensor.dtype) for tensor in tensors]


def _read(data, inputs: list[InputSpec], option: str) -> Samples | None:
    return None if data is None else gather_samples(data, inputs, option)


@contextlib.contextmanager
def _in_float32(model: keras.Model):
    """Lets layers of mixed precision compute in float32 meanwhile: the converter has no half-precision convolutions."""
    mixed = [
        layer
        for layer in _all_layers(model)
        if layer.variable_dtype == "float32" and layer.compute_dtype in ("float16", "bfloat16")
    ]
    policies = [layer.dtype_policy for layer in mixed]
    try:
        for layer in mixed:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in zip(mixed, policies, strict=True):
            layer.dtype_policy = policy


def _all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _all_layers(layer)


def _argument_names(inputs: list[InputSpec]) -> dict[str, str]:
    """Names of the file's inputs by those of the model: the same, but for characters that TensorFlow refuses."""
    names = {}
    for index, spec in enumerate(inputs):
        name = re.sub(r"[^A-Za-z0-9_]", "_", spec.name)
        name = name if name[0] != "_" else f"input{name}"
        names[spec.name] = f"{name}_{index}" if name in names.values() else name
    return names


def _call(model: keras.Model, tensors: list) -> dict:
    """The outputs of the model by name: its own names where it returns a dict of tensors, else output_0, ..."""
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    outputs = model(keras.tree.pack_sequence_as(structure, tensors), training=False)
    if isinstance(outputs, dict) and not any(isinstance(value, (dict, list, tuple)) for value in outputs.values()):
        return {str(name): value for name, value in outputs.items()}
    return {f"output_{index}": value for index, value in enumerate(keras.tree.flatten(outputs))}


def _convert(model: keras.Model, inputs: list[InputSpec], quantize: str | None, calibration: Samples | None) -> bytes:
    """The bytes of the TFLite file."""
    import tensorflow as tf

    names = _argument_names(inputs)
    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, names[spec.name])
        for tensor, spec in zip(model.inputs, inputs, strict=True)
    ]
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            archive = keras.export.ExportArchive()
            archive.track(model)
            archive.add_endpoint("serve", lambda *tensors: _call(model, list(tensors)), signature)
            archive.write_out(folder, verbose=False)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            _set_quantization(converter, quantize)
            if quantize == "int8":
                batches = in_batches(calibration, rows=model.inputs[0].shape[0] or 1)
                named = ({names[name]: array for name, array in batch.items()} for batch in batches)
                converter.representative_dataset = lambda: named
            return converter.convert()
    except Exception as error:
        raise ExportError(
            f"{model.name} could not be converted to TFLite ({quantize or 'float32'}): {_reason(error)}.",
            "A model of operations that TFLite has.",
            "Replace the operation that the reason names"
            + (', or pass quantize="dynamic", which can keep it in float.' if quantize == "int8" else "."),
        ) from error


def _set_quantization(converter, quantize: str | None) -> None:
    import tensorflow as tf

    if quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]


def _reason(error: Exception) -> str:
    """What the converter says about the operation at fault, else the first line that it says."""
    text = str(error).strip() or type(error).__name__
    operation = re.search(r"'tfl?\.\w+' op [^\n]+", text)
    return (operation[0] if operation else text.splitlines()[0]).rstrip(" .")


def _compare(model, path: pathlib.Path, inputs: list[InputSpec], check: Samples, quantize: str | None) -> tuple:
    """The worst error and agreement over all outputs of the file; raises where they are out of bounds."""
    names = _argument_names(inputs)
    with quiet():
        wanted = _keras_outputs(model, inputs, check)
    try:
        got = open_tflite(path).run({names[name]: array for name, array in check.items()})
    except (ValueError, RuntimeError) as error:
        raise ExportError(
            f"The TFLite file of {model.name} does not run: {_reason(error)}.",
            "A file that the installed runtime can run.",
            "Replace the operation that the reason names, or update ai-edge-litert.",
        ) from error
    error = max(_relative_error(got[name], wanted[name]) for name in wanted)
    agreements = [
        float(np.mean(got[name].argmax(-1) == wanted[name].argmax(-1)))
        for name in wanted
        if wanted[name].ndim > 1 and wanted[name].shape[-1] > 1
    ]
    limit = FLOAT32_TOLERANCE if quantize is None else np.finfo("float64").max
    if not error <= limit:
        raise ExportError(
            f"The {quantize or 'float32'} TFLite file of {model.name} differs by {error:.2g} of the largest output.",
            f"At most {limit:g}." if quantize is None else "Finite outputs.",
            "Pass real inputs as check_data; if they differ too, export parts of the model to find the one at fault.",
        )
    return error, min(agreements, default=None)


def _keras_outputs(model: keras.Model, inputs: list[InputSpec], samples: Samples) -> Samples:
    def call(batch: Samples) -> Samples:
        outputs = _call(model, [keras.ops.convert_to_tensor(batch[spec.name]) for spec in inputs])
        return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}

    outputs = map_batches(call, samples, rows=model.inputs[0].shape[0] or RANDOM_SAMPLES)
    if not all(np.isfinite(array).all() for array in outputs.values()):
        raise ModelError(
            f"{model.name} gives NaN or infinity on the data that the file is checked on.",
            "Finite outputs.",
            "Mend the model, or pass check_data that it can work with.",
        )
    return outputs


def _relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    got, wanted = got.astype("float64"), wanted.astype("float64")
    return float(np.abs(got - wanted).max() / (np.abs(wanted).max() or 1.0))
