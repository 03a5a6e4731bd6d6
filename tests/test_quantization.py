"""Quantization-aware training: what is wrapped, where the ranges start, the int8 file, the process afterwards."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune.errors import OptionError
from kprune.export._litert import open_tflite

tf_keras = pytest.importorskip("tf_keras", reason="needs tf_keras")
pytest.importorskip("tensorflow_model_optimization", reason="needs tensorflow-model-optimization")
from kprune.quantization import quantize_aware  # noqa: E402

IMAGES = np.random.default_rng(0).uniform(0, 3, size=(48, 8, 8, 3)).astype("float32")
# tfmot and tf_keras still call what newer NumPy and TensorFlow warn about.
pytestmark = pytest.mark.filterwarnings("ignore")


def conv_bn(x, filters, activation="relu"):
    x = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(x))
    return layers.Activation(activation)(x)


def squeeze_excite(x):
    gate = layers.Conv2D(x.shape[-1], 1, activation="hard_sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return layers.Multiply()([x, gate])


STRUCTURES = {
    "residual": lambda x: layers.Add()([conv_bn(x, 8), conv_bn(x, 8)]),
    "operators": lambda x: ops.relu(conv_bn(x, 8) + ops.pad(x, [(0, 0), (0, 0), (0, 0), (2, 3)]))[:, ::2],
    "mobile": lambda x: squeeze_excite(conv_bn(x, 8, "hard_silu")),
    "swish, depthwise": lambda x: layers.DepthwiseConv2D(3, activation="swish")(conv_bn(x, 8, "swish")),
    "batch norm first": lambda x: conv_bn(layers.ReLU()(layers.BatchNormalization()(x)), 8),
    "layers in float": lambda x: layers.LayerNormalization()(layers.PReLU()(layers.Rescaling(0.5)(conv_bn(x, 4)))),
    "activation of its own": lambda x: layers.Conv2D(4, 3, activation="elu")(x),
}


def build_net(structure="residual"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = STRUCTURES[structure](inputs)
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)), name="net")


def difference(got, wanted):
    wanted = np.asarray(wanted)
    return np.abs(np.asarray(got) - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("structure", STRUCTURES)
def test_with_data_it_starts_near_the_float_model_and_becomes_an_int8_file(structure, tmp_path):
    model = build_net(structure)
    trained = quantize_aware(model, data=IMAGES)
    assert 0 < difference(trained(IMAGES), model(IMAGES)) < 0.1
    export = kprune.export_tflite(trained, tmp_path / "net.tflite", quantize="int8", check_data=IMAGES)
    assert export.error < 0.1
    details = open_tflite(export.path)._interpreter.get_tensor_details()
    convolution_weights = [
        d for d in details if len(d["shape"]) == 4 and d["quantization_parameters"]["scales"].size > 1
    ]
    assert all(d["dtype"] is np.int8 for d in convolution_weights) and convolution_weights


def test_without_data_the_ranges_start_at_six():
    trained = quantize_aware(build_net())
    ends = {float(v) for layer in trained.layers for v in layer.weights if "output_max" in v.name}
    assert ends == {6.0}


def test_training_changes_weights_and_lowers_the_loss():
    trained = quantize_aware(build_net(), data=IMAGES)
    labels = (IMAGES.mean((1, 2, 3)) > 1.5).astype(int)
    trained.compile(tf_keras.optimizers.Adam(0.01), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = trained.fit(IMAGES, labels, epochs=4, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_the_model_is_untouched_and_nested_ones_are_opened():
    inner = build_net()
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, inner(inputs * 1.0))
    before = [np.array(w) for w in model.get_weights()]
    trained = quantize_aware(model, data=IMAGES)
    assert difference(trained(IMAGES), model(IMAGES)) < 0.1
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))


def test_pruned_models_are_taken(tmp_path):
    small = kprune.prune_model(build_net(), 0.3)
    assert difference(quantize_aware(small, data=IMAGES)(IMAGES), small(IMAGES)) < 0.1


def test_the_process_stays_as_it_was():
    code = (
        "import os, keras, kprune\n"
        "x = keras.Input((4, 4, 3))\n"
        "kprune.quantize_aware(keras.Model(x, keras.layers.Conv2D(2, 3)(x)))\n"
        "import tensorflow as tf\n"
        "assert 'TF_USE_LEGACY_KERAS' not in os.environ, os.environ['TF_USE_LEGACY_KERAS']\n"
        "assert tf.keras.version().startswith('3.') and keras.__version__.startswith('3.')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    environment["PYTHONPATH"] = os.pathsep.join(part or os.getcwd() for part in sys.path)
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_an_environment_variable_that_was_set_stays_set(monkeypatch):
    from kprune import quantization

    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    quantization._tfmot.cache_clear()
    quantization._tfmot()
    assert os.environ["TF_USE_LEGACY_KERAS"] == "0"


def test_data_that_does_not_fit_is_refused():
    with pytest.raises(OptionError, match="has shape"):
        quantize_aware(build_net(), data=IMAGES[:, :4])
