"""Quantization-aware training of Keras 3 models with tensorflow-model-optimization, which works on tf_keras."""

import importlib

import keras
import numpy as np

from kprune.compat.keras2.to_tf_keras import START_ON_TENSORFLOW
from kprune.deploy.export.quantization_aware.configs import Configs, depthwise_config, scheme
from kprune.deploy.export.quantization_aware.ranges import start_ranges
from kprune.deploy.export.quantization_aware.tfmot import load_tfmot
from kprune.deploy.export.quantization_aware.translation import QuantizableTranslation
from kprune.deploy.export.source import Source
from kprune.utils.errors import ModelError
from kprune.utils.packages import need_tensorflow, need_tf_keras


def quantize_aware(model: keras.Model, data=None):
    """Makes a model for quantization-aware training: it computes as the int8 file will, with float weights beneath.

    The model is translated to tf_keras, in float32 and nested models made part of it, and tensorflow-model-optimization
    wraps its layers. Each layer is written as TFLite computes it: a Conv1D as a Conv2D over images of height 1, a
    SeparableConv as two convolutions, a BatchNormalization as part of the layer before it. After a plain Conv2D or
    DepthwiseConv2D its statistics follow the data on; after others they stay as they are, and its factors become part
    of the weights, which are trained. What TFLite moves or mixes within one scale (padding, pooling, resizing,
    concatenation of pieces) has no range that could clip it. Layers that are several operations in TFLite, such as
    LayerNormalization or PReLU, have their outputs quantized, so that their neighbours can run in 8 bits; what stays in
    float is named by `export_tflite`. The ranges of activations are learnt while it trains, as moving averages that
    need some thousand steps; with `data` they start where they belong.

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
    need_tensorflow("on which tf_keras runs", START_ON_TENSORFLOW)
    tfmot, source = load_tfmot().quantization.keras, Source(model)
    samples = None if data is None else source.read(data, "data")
    with source.in_float32():
        translated = QuantizableTranslation().model(model)
    configs, own = Configs(translated), depthwise_config()

    def annotate(layer):
        return tfmot.quantize_annotate_layer(layer, configs(layer))

    try:
        with tfmot.quantize_scope({own.__name__: own}):
            tf_keras = importlib.import_module("tf_keras")
            annotated = tf_keras.models.clone_model(translated, clone_function=annotate)
            annotated.set_weights(translated.get_weights())
            trained = tfmot.quantize_apply(annotated, scheme())
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"tfmot cannot wrap '{model.name}': {first}",
            "Layers of kinds that tfmot can wrap.",
            "Replace the layer that the reason names, or quantize after training: "
            'export_tflite(..., quantize="int8", representative_data=x).',
        ) from error
    _tell_biases_apart(trained)
    if samples is not None:
        start_ranges(translated, trained, [samples[spec.name] for spec in source.inputs])
    return trained


def _tell_biases_apart(model) -> None:
    """Moves one of several equal biases by the least step that there is: the converter quantizes equal ones, other than
    zero, all by the scale of the first channel, which is wrong for the others."""
    for variable in model.weights:
        if variable.name.split("/")[-1].split(":")[0] in ("bias", "beta"):
            values = variable.numpy()
            if values.size > 1 and values.flat[0] != 0 and np.ptp(values) == 0:
                values.flat[0] = np.nextafter(values.flat[0], np.float32(np.inf), dtype="float32")
                variable.assign(values)
