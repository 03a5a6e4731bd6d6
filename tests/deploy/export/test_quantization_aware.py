"""Quantization-aware training: what is wrapped, where the ranges start, the int8 file, the process afterwards."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune.deploy.runtimes.litert import open_tflite
from kprune.utils.errors import OptionError

tf_keras = pytest.importorskip("tf_keras", reason="needs tf_keras")
pytest.importorskip("tensorflow_model_optimization", reason="needs tensorflow-model-optimization")
from kprune.deploy.export.quantization_aware import quantize_aware  # noqa: E402

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


def norm_relu(x):
    return layers.ReLU()(layers.BatchNormalization()(x))


def over_time(x):
    return layers.Reshape((16, 12))(x)


def twice(x):
    """The sum of one layer's outputs on two inputs, which a BatchNormalization reads."""
    shared = layers.Dense(6)
    return layers.BatchNormalization()(layers.Add()([shared(x), shared(layers.ReLU()(x))]))


def nested(x):
    inner = keras.Input(x.shape[1:])
    return norm_relu(keras.Model(inner, layers.Conv2D(4, 3)(inner), name="inner")(x))


# Networks that quantization after training computes in integers throughout.
IN_INTEGERS = {
    "dense, batch norm, relu6": lambda x: layers.ReLU(6)(layers.BatchNormalization()(layers.Dense(16)(over_time(x)))),
    "dense with relu, batch norm": lambda x: layers.BatchNormalization()(layers.Dense(8, activation="relu")(x)),
    "dense on vectors": lambda x: norm_relu(layers.Dense(8, use_bias=False)(layers.Flatten()(x))),
    "causal dilated over time": lambda x: norm_relu(
        layers.Conv1D(8, 3, dilation_rate=2, padding="causal")(over_time(x))
    ),
    "depthwise over time": lambda x: norm_relu(layers.DepthwiseConv1D(3, depth_multiplier=2)(over_time(x))),
    "transposed over time": lambda x: norm_relu(layers.Conv1DTranspose(8, 3, strides=2)(over_time(x))),
    "separable over time": lambda x: norm_relu(layers.SeparableConv1D(8, 3, strides=2, padding="same")(over_time(x))),
    "separable with multiplier": lambda x: norm_relu(layers.SeparableConv2D(8, 3, strides=2, depth_multiplier=2)(x)),
    "separable, activated": lambda x: layers.SeparableConv2D(8, 3, dilation_rate=2, activation="silu")(x),
    "transposed, relu6": lambda x: layers.ReLU(6)(
        layers.BatchNormalization()(layers.Conv2DTranspose(6, 2, strides=2)(x))
    ),
    "dilated depthwise": lambda x: norm_relu(layers.DepthwiseConv2D(3, dilation_rate=2)(x)),
    "dilated without batch norm": lambda x: layers.Conv2D(6, 3, dilation_rate=2, activation="relu")(x),
    "sigmoid, batch norm": lambda x: layers.BatchNormalization()(layers.Conv2D(6, 3, activation="sigmoid")(x)),
    "pre-activation": lambda x: layers.Conv2D(6, 3)(norm_relu(layers.Conv2D(6, 3)(norm_relu(x)))),
    "a shared layer, batch norm": twice,
    "batch norm after a nested model": nested,
    "bilinear in an encoder-decoder": lambda x: layers.Concatenate()(
        [x, layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(6, 3, padding="same", strides=2)(x))]
    ),
    "resized by an operation": lambda x: layers.Conv2D(4, 1)(ops.image.resize(layers.Conv2D(6, 3)(x), (9, 9))),
    "resized by a layer": lambda x: layers.Conv2D(4, 1)(layers.Resizing(9, 9)(layers.Conv2D(6, 3)(x))),
    "average pooling": lambda x: layers.Conv2D(4, 1)(layers.AveragePooling2D(3)(layers.Conv2D(6, 3)(x))),
    "average pooling over time": lambda x: layers.AveragePooling1D(4)(layers.Conv1D(6, 3)(over_time(x))),
    "an average of three": lambda x: layers.Average()([layers.Conv2D(3, 1)(x), x, layers.Conv2D(3, 1)(x)]),
    "scaled inputs": lambda x: layers.Conv2D(4, 3)(layers.Normalization(mean=[1, 2, 3], variance=[1, 4, 9])(x)),
    "hard sigmoid": lambda x: layers.Multiply()([x, layers.Dense(3, activation="hard_sigmoid")(x)]),
    "a layer at each time": lambda x: layers.TimeDistributed(layers.Dense(4))(x),
    "softmax": lambda x: layers.Softmax()(layers.Dense(6)(over_time(x))),
}


def as_trained(model):
    """Gives each BatchNormalization statistics as after training."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if weight.path.split("/")[-1] in ("gamma", "beta", "moving_mean", "moving_variance"):
            weight.assign(np.abs(rng.normal(0.8, 0.3, weight.shape)) + 0.1)
    return model


def in_float(path):
    """The operations beside conversions that take or give floats, as the runtime tells without its delegates."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    kind = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    run = litert.Interpreter(str(path), experimental_op_resolver_type=kind)
    run.allocate_tensors()
    dtypes = {detail["index"]: detail["dtype"] for detail in run.get_tensor_details()}
    return [
        operation["op_name"]
        for operation in run._get_ops_details()
        if operation["op_name"] not in ("QUANTIZE", "DEQUANTIZE")
        and np.float32 in {dtypes.get(index) for index in (*operation["inputs"], *operation["outputs"])}
    ]


def build_net(structure="residual"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = (STRUCTURES | IN_INTEGERS)[structure](inputs)
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(5)(x), name="net")


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


@pytest.mark.parametrize("structure", IN_INTEGERS)
def test_its_file_is_as_right_as_quantization_after_training(structure, tmp_path):
    model = as_trained(build_net(structure))
    trained = quantize_aware(model, data=IMAGES)
    export = kprune.export_tflite(trained, tmp_path / "aware.tflite", quantize="int8", check_data=IMAGES)
    after = kprune.export_tflite(model, tmp_path / "after.tflite", quantize="int8", representative_data=IMAGES)
    assert not in_float(after.path) and not in_float(export.path) and not export.float_operations
    got = kprune.run_tflite(export.path, IMAGES)
    assert difference(got, model(IMAGES)) < 1.5 * after.error + 0.01
    assert export.error < 0.03


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("structure", ["residual", "separable with multiplier", "mobile", "dense on vectors"])
def test_networks_of_mixed_precision_train_in_float32(structure, policy, tmp_path):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = as_trained(build_net(structure))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    trained = quantize_aware(model, data=IMAGES)
    assert {weight.dtype.name for weight in trained.weights} <= {"float32", "int32"}
    assert model.layers[-1].compute_dtype == policy.removeprefix("mixed_")
    export = kprune.export_tflite(trained, tmp_path / "net.tflite", quantize="int8", check_data=IMAGES)
    assert not in_float(export.path) and export.error < 0.03
    assert difference(kprune.run_tflite(export.path, IMAGES), model(IMAGES)) < 0.1


def test_a_layer_inside_a_wrapper_leaves_mixed_precision_too(tmp_path):
    inputs = keras.Input((8, 8, 3))
    inner = layers.TimeDistributed(layers.Conv1D(4, 3, dtype="mixed_float16"))
    model = keras.Model(inputs, layers.Flatten()(inner(inputs)))
    assert kprune.export_tflite(model, tmp_path / "net.tflite", check_data=IMAGES).error < 1e-5


@pytest.mark.parametrize("kind", [layers.Conv2D, layers.DepthwiseConv2D, layers.Conv2DTranspose])
def test_equal_biases_keep_their_values_under_unequal_scales(kind, tmp_path):
    inputs = keras.Input((8, 8, 3))
    options = {} if kind is layers.DepthwiseConv2D else {"filters": 3}
    model = keras.Model(inputs, kind(kernel_size=3, bias_initializer="ones", **options)(inputs))
    kernel, bias = model.layers[-1].get_weights()
    channels = np.array([1, 4, 16]).reshape((3,) if kind is layers.Conv2D else (3, 1))
    model.layers[-1].set_weights([kernel * channels, bias])
    trained = quantize_aware(model, data=IMAGES)
    export = kprune.export_tflite(trained, tmp_path / "net.tflite", quantize="int8", check_data=IMAGES)
    assert export.error < 0.02


def test_what_has_no_range_is_clipped_by_none():
    """The logits of a softmax reach far beyond what its layer reads."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(inputs))
    model.layers[-1].set_weights([np.full((4, 3), 5.0) * [1, 0, -1], np.zeros(3)])
    data = np.random.default_rng(0).uniform(0, 1, size=(40, 4)).astype("float32")
    assert difference(quantize_aware(model, data=data)(data), model(data)) < 0.05


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
    from kprune.deploy.export import quantization_aware

    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    quantization_aware.load_tfmot.cache_clear()
    quantization_aware.load_tfmot()
    assert os.environ["TF_USE_LEGACY_KERAS"] == "0"


def test_data_that_does_not_fit_is_refused():
    with pytest.raises(OptionError, match="has shape"):
        quantize_aware(build_net(), data=IMAGES[:, :4])
