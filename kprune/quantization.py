"""Quantization-aware training of Keras 3 models with tensorflow-model-optimization, which works on tf_keras."""

import contextlib
import functools
import importlib
import importlib.util
import os

import keras
import numpy as np

from kprune import _keras
from kprune.compat.to_keras2 import START_ON_TENSORFLOW, Translation, need_tf_keras
from kprune.errors import ModelError
from kprune.export._source import Source

BATCH = 32

# What tfmot can quantize inside a layer; any other activation follows its layer as one of its own.
ACTIVATIONS = frozenset(("linear", "relu", "softmax", "sigmoid", "tanh", "swish", "silu", "gelu"))
# Operations and layers that move values and change none: their output has the scale of their input.
MOVING = frozenset(("GetItem", "Pad", "Transpose", "Reshape", "Squeeze", "ExpandDims", "Split", "Flip", "Identity"))
MOVING |= frozenset(("RepeatVector", "MaxPooling1D", "MaxPooling3D", "ZeroPadding3D", "Masking"))
FOLDED_INTO = ("Conv2D", "DepthwiseConv2D", "Dense", "Conv2DTranspose", "SeparableConv2D", "SeparableConv1D")


def quantize_aware(model: keras.Model, data=None):
    """Makes a model for quantization-aware training: it computes as the int8 file will, with float weights beneath.

    The model is translated to tf_keras, nested models become part of it, and tensorflow-model-optimization wraps its
    layers. Layers that it does not know, such as the multiplications of squeeze-excite, hard-swish, LayerNormalization
    or PReLU, compute in float and have their outputs quantized, so that their neighbours can run in 8 bits. The
    ranges of activations are learnt while it trains, as moving averages that need some thousand steps; with `data`
    they start where they belong.

    The process stays as it was: `keras` is Keras 3, no environment variable is left behind.

    Args:
      model: a functional or sequential Keras 3 model, such as `prune_model` gives, on the TensorFlow backend. It does
        not change.
      data: typical inputs, a few hundred, whose activations give the ranges to start from, in the forms that
        `export_tflite` takes; default: all ranges start as -6 to 6.

    Returns:
      A tf_keras model with the weights of `model`, not compiled. Compile it with optimizers and losses of `tf_keras`,
      train it, and write it with `kprune.export_tflite(trained, "small.tflite", quantize="int8")`.

    Raises:
      OptionError: data that does not fit the model.
      ModelError: tfmot or tf_keras is not installed, the backend is another than TensorFlow, the model has no graph,
        a layer has no twin in tf_keras, or tfmot cannot wrap one.

    Source:
      Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".

    Example:
      >>> import tf_keras
      >>> trained = kprune.quantize_aware(small, data=x_train[:256])
      >>> loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
      >>> trained.compile(tf_keras.optimizers.Adam(1e-4), loss)
      >>> trained.fit(x_train, y_train, epochs=1)
      >>> kprune.export_tflite(trained, "small.tflite", quantize="int8", check_data=x_test[:100])
    """
    need_tf_keras()
    _keras.need_tensorflow("on which tf_keras runs", START_ON_TENSORFLOW)
    tfmot = _tfmot().quantization.keras
    samples = None if data is None else Source(model).read(data, "data")
    translated = Translation(flat=True, activations=ACTIVATIONS).model(model)
    config = _output_config()
    registry = _registry()

    def annotate(layer):
        return tfmot.quantize_annotate_layer(layer, _config_for(layer, registry, config))

    try:
        with tfmot.quantize_scope({config.__name__: config}):
            annotated = _tf_keras().models.clone_model(translated, clone_function=annotate)
            annotated.set_weights(translated.get_weights())
            trained = tfmot.quantize_apply(annotated)
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"tfmot cannot wrap '{model.name}': {first}",
            "Layers of kinds that tfmot can wrap.",
            "Replace the layer that the reason names, or quantize after training: "
            'export_tflite(..., quantize="int8", representative_data=x).',
        ) from error
    if samples is not None:
        _start_ranges(translated, trained, [samples[spec.name] for spec in Source(model).inputs])
    return trained


def _start_ranges(translated, trained, arrays: list[np.ndarray]) -> None:
    """Sets the ranges of the quantizers to those of the float model's activations: the mean over batches, as tfmot's
    moving averages would come to be."""
    layers = [layer for layer in translated.layers if not isinstance(layer.output, (list, dict))]
    model = _tf_keras().Model(translated.inputs, [layer.output for layer in layers])
    ranges = []
    for start in range(0, len(arrays[0]), BATCH):
        outputs = model([array[start : start + BATCH] for array in arrays], training=False)
        ranges.append([(float(np.min(x)), float(np.max(x))) for x in map(np.asarray, outputs)])
    found = dict(zip((layer.name for layer in layers), np.mean(ranges, axis=0), strict=True))
    for layer in trained.layers:
        for variable in layer.weights:
            quantizer, _, end = variable.name.split("/")[-1].split(":")[0].rpartition("_")
            if end in ("min", "max"):
                _start_range(layer, variable, quantizer, end == "max", found)


def _start_range(layer, variable, quantizer: str, upper: bool, found: dict) -> None:
    """Sets one end of one range; `quantizer` is what the variable is named after."""
    weights = {w.name.split("/")[-1].split(":")[0]: w.numpy() for w in layer.weights}
    if quantizer in weights:  # of a kernel, symmetric, over all of it or for each slice of one axis
        kernel = np.abs(weights[quantizer])
        axes = [i for i in (-1, -2) if variable.shape.num_elements() == kernel.shape[i]]
        rows = np.moveaxis(kernel, axes[0], -1).reshape(-1, kernel.shape[axes[0]]) if axes else kernel.reshape(-1, 1)
        variable.assign(np.reshape(rows.max(0) if upper else -rows.max(0), variable.shape))
        return
    before = quantizer.startswith(("pre_activation", "quantize_layer"))
    names = _input_names(layer) if before else [layer.name]
    source = names[0].removeprefix("quant_") if names else ""
    if source in found:
        low, high = found[source]
        variable.assign(np.reshape(max(high, 0.0) if upper else min(low, 0.0), variable.shape))


def _input_names(layer) -> list[str]:
    nodes = [node.inbound_layers for node in layer._inbound_nodes]
    return [one.name for node in nodes for one in (node if isinstance(node, list) else [node])]


def _config_for(layer, registry, output_config: type):
    """How a layer is quantized: None lets tfmot decide, where it knows the layer."""
    kind = getattr(layer, "kind", type(layer).__name__)
    if kind in MOVING:
        return _no_config()()
    if kind == "BatchNormalization":
        return None if _is_folded(layer) else output_config()
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    known = registry.supports(layer) and type(layer).__name__ != "KerasOperation" and activation in ACTIVATIONS
    return None if known else output_config()


def _is_folded(layer) -> bool:
    """Whether a BatchNormalization follows a layer that it becomes part of."""
    sources = [node.inbound_layers for node in layer._inbound_nodes]
    if len(sources) != 1 or isinstance(sources[0], list):
        return False
    source = sources[0]
    linear = getattr(getattr(source, "activation", None), "__name__", "linear") == "linear"
    return type(source).__name__ in FOLDED_INTO and linear and len(source._outbound_nodes) == 1


@functools.cache
def _tfmot():
    """tensorflow-model-optimization, imported without what it does to the process."""
    name, variable = "tensorflow_model_optimization", "TF_USE_LEGACY_KERAS"
    if importlib.util.find_spec(name) is None:
        raise ModelError(
            "tensorflow-model-optimization is not installed.",
            "tensorflow-model-optimization and tf_keras.",
            "pip install 'kprune[qat]'",
        )
    import tensorflow as tf

    # TensorFlow decides which Keras `tf.keras` is when it is first touched, by the variable that tfmot sets.
    getattr(tf.keras, "version", None)
    before = os.environ.get(variable)
    try:
        return importlib.import_module(name)
    finally:
        with contextlib.suppress(KeyError):
            del os.environ[variable]
        if before is not None:
            os.environ[variable] = before


def _tf_keras():
    return importlib.import_module("tf_keras")


def _registry():
    package = "tensorflow_model_optimization.python.core.quantization.keras.default_8bit"
    return importlib.import_module(f"{package}.default_8bit_quantize_registry").Default8BitQuantizeRegistry()


def _no_config() -> type:
    package = "tensorflow_model_optimization.python.core.quantization.keras.default_8bit"
    return importlib.import_module(f"{package}.default_8bit_quantize_configs").NoOpQuantizeConfig


@functools.cache
def _output_config() -> type:
    """A QuantizeConfig for layers that compute in float: only their output is quantized."""
    tfmot = _tfmot().quantization.keras

    class OutputOnly(tfmot.QuantizeConfig):
        """Quantizes the output of a layer to 8 bits, by a moving average of its range."""

        def get_weights_and_quantizers(self, layer):
            return []

        def get_activations_and_quantizers(self, layer):
            return []

        def set_quantize_weights(self, layer, quantize_weights):
            pass

        def set_quantize_activations(self, layer, quantize_activations):
            pass

        def get_output_quantizers(self, layer):
            quantizers = tfmot.quantizers
            return [quantizers.MovingAverageQuantizer(8, per_axis=False, symmetric=False, narrow_range=False)]

        def get_config(self):
            return {}

    return OutputOnly
