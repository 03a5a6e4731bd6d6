"""The Keras model that a file is made from: its inputs, its outputs by name, and its graph as a SavedModel."""

import contextlib
import hashlib
import re
from importlib import metadata

import keras
import numpy as np

from kprune.deploy.export.nearest import repeats_as_resizes
from kprune.deploy.export.rewriting import gelu_as_products, negation_as_product
from kprune.deploy.runtimes.base import SIGNATURE
from kprune.deploy.runtimes.samples import InputSpec, Samples, gather_samples, map_batches
from kprune.utils.checks import is_whole
from kprune.utils.errors import ModelError, OptionError
from kprune.utils.packages import need_tensorflow

RANDOM_SAMPLES = 16


class Source:
    """A Keras 3 model on the TensorFlow backend, or a tf_keras model (quantization-aware training gives one).

    Attributes:
      model: the model.
      name: its name.
      inputs: its inputs in flat order.
      names: the names that the inputs have in files, by those that they have in the model: the same, but for
        characters that TensorFlow refuses.
      batch: samples per run that the file is made for, or None for any number.

    Raises:
      ModelError: a model without known inputs, or another backend than TensorFlow.
      OptionError: `batch_size` is no whole number from 1, or not that of a model with a fixed one.
    """

    def __init__(self, model, batch_size: int | None = None):
        self.legacy = _is_tf_keras(model)
        _check_model(model, self.legacy)
        self.model, self.name = model, model.name
        self.inputs = [_input_spec(tensor) for tensor in model.inputs]
        self.names = argument_names(self.inputs)
        self.batch = _batch_size(model, batch_size)

    def read(self, data, option: str) -> Samples | None:
        """The samples of what a user passed as `option`, or None for None."""
        return None if data is None else gather_samples(data, self.inputs, option)

    def renamed(self, samples: Samples) -> Samples:
        """Samples by the names that the inputs have in files."""
        return {self.names[name]: array for name, array in samples.items()}

    def signature(self) -> list:
        """A `tf.TensorSpec` for each input."""
        import tensorflow as tf

        return [tf.TensorSpec((self.batch, *spec.shape), spec.dtype, self.names[spec.name]) for spec in self.inputs]

    def call(self, *tensors) -> dict:
        """The outputs by name: the model's own names where it returns a dict of tensors, else output_0, ..."""
        sequential = type(self.model).__name__ == "Sequential"
        structure = self.model.inputs[0] if sequential else self.model.input
        outputs = self.model(keras.tree.pack_sequence_as(structure, list(tensors)), training=False)
        if isinstance(outputs, dict) and not any(isinstance(value, (dict, list, tuple)) for value in outputs.values()):
            return {str(name): value for name, value in outputs.items()}
        return {f"output_{index}": value for index, value in enumerate(keras.tree.flatten(outputs))}

    def trace(self):
        """The model as a concrete TensorFlow function of plain operations, its inputs in flat order."""
        import tensorflow as tf

        def serve(*tensors):
            # An output that is also an input, or two that are one tensor, need names of their own.
            return {name: tf.identity(value) for name, value in self.call(*tensors).items()}

        with _inlined(), self.in_float32():
            return tf.function(serve, autograph=False).get_concrete_function(*self.signature())

    def freeze(self) -> tuple:
        """The traced function with its weights as constants, and the names of its outputs in flat order."""
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        traced = self.trace()
        function = convert_variables_to_constants_v2(traced, lower_control_flow=False, aggressive_inlining=True)
        return function, sorted(traced.structured_outputs)  # dicts lie flat in the order of their sorted keys

    def outputs(self, samples: Samples) -> Samples:
        """What the model itself gives.

        Raises:
          ModelError: outputs that are not finite.
        """

        def call(batch: Samples) -> Samples:
            outputs = self.call(*(keras.ops.convert_to_tensor(batch[spec.name]) for spec in self.inputs))
            return {name: np.asarray(value) for name, value in outputs.items()}

        with self.in_float32():
            outputs = map_batches(call, samples, rows=self.model.inputs[0].shape[0] or RANDOM_SAMPLES)
        if not all(np.isfinite(array).all() for array in outputs.values()):
            raise ModelError(
                f"{self.name} gives NaN or infinity on the data that the file is checked on.",
                "Finite outputs.",
                "Mend the model, or pass check_data that it can work with.",
            )
        return outputs

    @contextlib.contextmanager
    def in_float32(self):
        """Lets layers of mixed precision compute in float32 meanwhile: files are in float32."""
        mixed = [
            layer
            for layer in ([] if self.legacy else self.model._flatten_layers(include_self=False))
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

    def description(self) -> dict:
        """What a file was made from, for its metadata: names, sizes, a hash of the weights, versions; no dates."""
        digest = hashlib.sha256()
        for array in self.model.get_weights():
            digest.update(np.ascontiguousarray(array).tobytes())
        versions = {}
        for package in ("kprune", "keras", "tensorflow", "tensorflow-cpu", "tf_keras" if self.legacy else "keras"):
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[package] = metadata.version(package)
        return {
            "model": self.name,
            "params": int(self.model.count_params()),
            "weights_sha256": digest.hexdigest(),
            "inputs": {self.names[spec.name]: [self.batch, *spec.shape] for spec in self.inputs},
            "versions": versions,
        }


def save(sources: dict[str, Source], folder, micro: bool = False) -> list:
    """Writes a SavedModel for TFLite's converter, with one signature for each source; gives the traced functions.

    `micro` says whether what TFLite Micro lacks is written by what it has, also where LiteRT has one faster operation.
    """
    import tensorflow as tf

    gelu = gelu_as_products() if micro else contextlib.nullcontext()
    with repeats_as_resizes(), negation_as_product(), gelu:
        module, traced = tf.Module(), {name: source.trace() for name, source in sources.items()}
    module.kept = [getattr(v, "value", v) if not s.legacy else v for s in sources.values() for v in s.model.variables]
    tf.saved_model.save(module, str(folder), signatures=traced)
    return list(traced.values())


def save_frozen(source: Source, folder) -> None:
    """Writes a SavedModel whose weights are constants: what newer TensorFlow writes to restore
    variables (`DisableCopyOnRead`) is unknown to older ones, such as those of the Jetson Nano."""
    import tensorflow as tf

    function, names = source.freeze()

    def serve(*tensors):
        return dict(zip(names, tf.nest.flatten(function(*tensors)), strict=True))

    serve = tf.function(serve, input_signature=source.signature(), autograph=False)
    tf.saved_model.save(tf.Module(), str(folder), signatures={SIGNATURE: serve})


@contextlib.contextmanager
def _inlined():
    """Lets functions within the traced one become part of its graph: Keras hands grouped convolutions to XLA in a
    function of their own, which other runtimes cannot read."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _is_tf_keras(model) -> bool:
    return any(cls.__module__.split(".")[0] == "tf_keras" for cls in type(model).__mro__)


def _check_model(model, legacy: bool) -> None:
    need_tensorflow(
        "from whose graphs these files are made",
        "Save the model as .keras, start Python with KERAS_BACKEND=tensorflow, load it there and export.",
    )
    if not (legacy or isinstance(model, keras.Model)) or not _has_inputs(model):
        raise ModelError(
            f"{getattr(model, 'name', type(model).__name__)} has no known inputs.",
            "A functional or sequential Keras model with an input shape.",
            "Build it from keras.Input, or wrap it: keras.Model(x, model(x)).",
        )


def _has_inputs(model) -> bool:
    with contextlib.suppress(ValueError):  # older Keras raises it for a Sequential model that is not built
        return bool(getattr(model, "inputs", None))
    return False


def _batch_size(model, batch_size: int | None) -> int | None:
    own = model.inputs[0].shape[0]
    if batch_size is None:
        return own
    if not is_whole(batch_size, 1) or own not in (None, batch_size):
        raise OptionError(
            f"batch_size is {batch_size!r}.",
            "A whole number from 1." if own is None else f"{own}, which {model.name} is fixed to.",
            "Pass batch_size=1, or none for a file that takes any number." if own is None else "Leave it out.",
        )
    return batch_size


def _input_spec(tensor) -> InputSpec:
    dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
    return InputSpec(tensor.name, tuple(tensor.shape[1:]), dtype)


def argument_names(inputs: list[InputSpec]) -> dict[str, str]:
    """The names that inputs have in files, where not every character is allowed, by those that they have."""
    names = {}
    for index, spec in enumerate(inputs):
        name = re.sub(r"[^A-Za-z0-9_]", "_", spec.name)
        name = name if name[0] != "_" else f"input{name}"
        names[spec.name] = f"{name}_{index}" if name in names.values() else name
    return names
