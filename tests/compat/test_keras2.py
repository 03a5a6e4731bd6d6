"""tf_keras models as Keras 3 models and back: equal outputs, equal weights, names, and what is refused."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.compat.keras2 import from_tf_keras, load_keras2, to_tf_keras
from kprune.utils.errors import ModelError

tf_keras = pytest.importorskip("tf_keras", reason="needs tf_keras")
old = tf_keras.layers
IMAGES = np.random.default_rng(0).normal(size=(3, 8, 8, 4)).astype("float32")

# Structures built by either package: `layers` is keras.layers or tf_keras.layers.
COMMON = {
    "conv, batch norm": lambda kit, x: kit.ReLU(6.0)(
        kit.BatchNormalization()(kit.Conv2D(6, 3, strides=2, padding="same")(x))
    ),
    "depthwise, separable": lambda kit, x: kit.SeparableConv2D(5, 3)(kit.DepthwiseConv2D(3, depth_multiplier=2)(x)),
    "grouped, transposed": lambda kit, x: kit.Conv2DTranspose(3, 3, 2)(kit.Conv2D(4, 3, groups=2)(x)),
    "leaky, prelu, elu": lambda kit, x: kit.ELU(0.5)(kit.PReLU(shared_axes=[1, 2])(kit.LeakyReLU()(x))),
    "activations": lambda kit, x: kit.Conv2D(4, 1, activation="gelu")(kit.Activation("swish")(x)),
    "hard sigmoid": lambda kit, x: kit.Activation("hard_sigmoid")(kit.Conv2D(4, 1, activation="hard_sigmoid")(x)),
    "normalization": lambda kit, x: kit.Normalization(mean=[0.1] * 4, variance=[2.0] * 4)(x),
    "layer normalization": lambda kit, x: kit.LayerNormalization()(x),
    "group normalization": lambda kit, x: kit.GroupNormalization(2)(x),
    "resize and pad": lambda kit, x: kit.UpSampling2D(2, interpolation="bilinear")(
        kit.ZeroPadding2D(((0, 1), (1, 0)))(x)
    ),
    "operators": lambda kit, x: (x * 2.0 + 1.0) / (x * x + 3.0) - x,
    "slices": lambda kit, x: x[:, ::2, 1:, :],
    "squeeze and excite": lambda kit, x: kit.Multiply()(
        [x, kit.Dense(4, activation="sigmoid")(kit.GlobalAvgPool2D()(x))]
    ),
    "merges": lambda kit, x: kit.Concatenate()([kit.Add()([x, x]), kit.Maximum()([x, kit.Average()([x, x])])]),
    "dense": lambda kit, x: kit.Dense(3)(kit.Dropout(0.5)(kit.Flatten()(x))),
    "recurrent": lambda kit, x: kit.GRU(3)(kit.LSTM(5, return_sequences=True)(kit.Reshape((8, 32))(x))),
}
NEW = {
    "pad and concatenate": lambda x: ops.concatenate([ops.pad(x, [(0, 0), (0, 0), (0, 0), (1, 1)]), ops.relu(x)], -1),
    "hard silu": lambda x: layers.Conv2D(3, 1, activation="hard_silu")(layers.Activation("hard_silu")(x)),
    "bare activations": lambda x: ops.silu(ops.sigmoid(x)) * ops.relu6(x) + ops.tanh(x),
    "mean": lambda x: ops.mean(x, axis=(1, 2), keepdims=True) + x,
    "the rescaling": lambda x: layers.Rescaling(0.5, offset=[0.1, 0.2, 0.3, 0.4])(x),
}


def old_functions():
    import tensorflow as tf

    return {
        "relu6": lambda x: tf.nn.relu6(x + 3.0) * x / 6.0,
        "concat, reshape": lambda x: tf.reshape(tf.concat([x, tf.nn.silu(x)], axis=-1), [-1, 8, 64]),
        "reductions": lambda x: tf.reduce_mean(x, [1, 2], keepdims=True) - tf.reduce_max(x, axis=-1, keepdims=True),
        "pad, transpose": lambda x: tf.transpose(tf.pad(x, [[0, 0], [1, 0], [0, 1], [0, 0]]), [0, 2, 1, 3]),
        "split": lambda x: tf.split(x, [1, 3], axis=-1)[1],
        "clip, cast, resize": lambda x: tf.image.resize(tf.cast(tf.clip_by_value(x, -1.0, 1.0), "float32"), [4, 4]),
    }


def randomized(model):
    rng = np.random.default_rng(1)
    model.set_weights([0.1 + 0.9 * rng.random(w.shape, dtype="float32") for w in model.get_weights()])
    return model


def assert_equal_outputs(model, translated):
    for wanted, got in zip(keras.tree.flatten(model(IMAGES)), keras.tree.flatten(translated(IMAGES)), strict=True):
        wanted, got = np.asarray(wanted), np.asarray(got)
        np.testing.assert_allclose(got, wanted, atol=1e-5 * max(1.0, np.abs(wanted).max()))


def new_model(build):
    inputs = keras.Input((8, 8, 4), name="image")
    return randomized(keras.Model(inputs, build(inputs), name="net"))


def old_model(build):
    inputs = old.Input((8, 8, 4), name="image")
    return randomized(tf_keras.Model(inputs, build(inputs), name="net"))


@pytest.mark.parametrize("structure", COMMON)
def test_to_tf_keras_computes_the_same(structure):
    model = new_model(lambda x: COMMON[structure](layers, x))
    assert_equal_outputs(model, to_tf_keras(model))


@pytest.mark.parametrize("structure", COMMON)
def test_from_tf_keras_computes_the_same(structure):
    model = old_model(lambda x: COMMON[structure](old, x))
    assert_equal_outputs(model, from_tf_keras(model))


@pytest.mark.parametrize("structure", NEW)
def test_operations_without_a_twin_compute_themselves_and_are_saved(structure, tmp_path):
    model = new_model(NEW[structure])
    translated = to_tf_keras(model)
    assert_equal_outputs(model, translated)
    translated.save(tmp_path / "net.keras")
    assert_equal_outputs(model, tf_keras.models.load_model(tmp_path / "net.keras", compile=False))


@pytest.mark.parametrize("name", old_functions())
def test_tensorflow_functions_become_operations(name, tmp_path):
    model = old_model(old_functions()[name])
    translated = from_tf_keras(model)
    assert_equal_outputs(model, translated)
    translated.save(tmp_path / "net.keras")
    assert_equal_outputs(model, keras.saving.load_model(tmp_path / "net.keras"))


@pytest.mark.parametrize("translate, build", [(to_tf_keras, new_model), (from_tf_keras, old_model)])
def test_layers_keep_their_names_weights_and_order(translate, build):
    package = layers if build is new_model else old
    model = build(lambda x: package.Dense(2, name="head")(package.Conv2D(3, 3, name="conv")(x) * 2.0))
    translated = translate(model)
    assert translated.name == "net" and [x.name for x in translated.layers if x.get_weights()] == ["conv", "head"]
    for one, other in zip(model.get_weights(), translated.get_weights(), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("translate, build", [(to_tf_keras, new_model), (from_tf_keras, old_model)])
def test_shared_and_nested_models_stay_so(translate, build):
    keras_package = keras if build is new_model else tf_keras
    inner_input = keras_package.layers.Input((8, 8, 4))
    inner = keras_package.Model(inner_input, keras_package.layers.Conv2D(4, 1)(inner_input), name="inner")
    model = build(lambda x: inner(inner(x)))
    translated = translate(model)
    assert_equal_outputs(model, translated)
    assert "inner" in [x.name for x in translated.layers] and len(translated.get_weights()) == 2


def test_names_with_slashes_become_valid_and_stay_unique():
    model = old_model(lambda x: old.ReLU(name="a_b")(old.ReLU(name="a/b")(x)) * 1.0)
    translated = from_tf_keras(model)
    assert {"a_b", "a_b_1"} <= {x.name for x in translated.layers}
    assert_equal_outputs(model, translated)


def test_several_inputs_and_outputs_keep_their_structure():
    first, second = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    model = keras.Model([first, second], {"sum": first + second, "difference": first - 2 * second})
    translated = to_tf_keras(model)
    data = [IMAGES[:, 0, 0], IMAGES[:, 1, 1]]
    for name, value in model(data).items():
        np.testing.assert_allclose(translated(data)[name], value, atol=1e-6)


def test_trained_networks_survive_the_way_there_and_back(shared):
    from cifar_resnet import build_resnet, load_npz

    model = build_resnet(20)
    load_npz(model, shared / "models" / "resnet20_cifar10.npz")
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    wanted = np.asarray(model(images))
    np.testing.assert_allclose(to_tf_keras(model)(images), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_files_that_keras_3_refuses_are_read(tmp_path, suffix):
    import tensorflow as tf

    model = old_model(lambda x: tf.nn.relu6(old.DepthwiseConv2D(3, name="depth/wise")(x)) + 1.0)
    path = tmp_path / f"net{suffix}"
    with pytest.warns() if suffix == ".h5" else contextlib.nullcontext():
        model.save(path)
    with pytest.raises((ValueError, TypeError)):
        keras.saving.load_model(path, compile=False)
    assert_equal_outputs(model, load_keras2(path))


@pytest.mark.filterwarnings("ignore:The structure of `inputs`:UserWarning")
def test_a_file_of_keras_2_that_keras_3_reads(shared):
    path = shared / "models" / "mlperf_tiny_resnet8_cifar10.h5"
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    wanted = tf_keras.models.load_model(path, compile=False)(images)
    np.testing.assert_allclose(load_keras2(path)(images), wanted, atol=1e-5)


def own_layer(package):
    class Own(package.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(), name="scale")

        def call(self, x):
            return x * self.scale

    return Own


def test_layers_of_ones_own_go_by_custom_objects():
    model = old_model(own_layer(tf_keras)())
    assert_equal_outputs(model, from_tf_keras(model, custom_objects={"Own": own_layer(keras)}))


def stateless_model():
    return keras.Sequential([layers.Dense(2)])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: from_tf_keras(old_model(own_layer(tf_keras)())), "no twin in Keras 3"),
        (lambda: from_tf_keras(old_model(old.LocallyConnected2D(2, 3))), "no twin in Keras 3"),
        (lambda: from_tf_keras(new_model(lambda x: x + 1)), "A model of tf_keras"),
        (lambda: from_tf_keras(tf_keras.Sequential([old.Dense(2)])), "has no graph"),
        (lambda: to_tf_keras(new_model(own_layer(keras)())), "tf_keras has no layer 'Own'"),
        (lambda: to_tf_keras(stateless_model()), "not built"),
        (lambda: to_tf_keras(new_model(layers.Resizing(4, 4, pad_to_aspect_ratio=True))), "pad_to_aspect_ratio"),
        (lambda: load_keras2("missing.h5"), "no model file"),
    ],
)
def test_what_cannot_be_translated_is_named(call, words):
    with pytest.raises(ModelError, match=words):
        call()


def test_a_function_without_a_twin_is_named():
    import tensorflow as tf

    with pytest.raises(ModelError, match="tf.math.lgamma"):
        from_tf_keras(old_model(tf.math.lgamma))


def test_a_file_that_neither_reads_is_refused(tmp_path):
    path = tmp_path / "net.h5"
    path.write_text("no model")
    with pytest.raises(ModelError, match="refused by Keras 3 .* and by tf_keras"):
        load_keras2(path)
