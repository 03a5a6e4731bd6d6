"""Keras 2 files: layers that hold layers, sizes computed in the graph, TensorFlow's functions, bytecode."""

import json
import pathlib
import zipfile

import keras
import numpy as np
import pytest

import kprune
from kprune.compat.keras2 import from_tf_keras, load_keras2, to_tf_keras
from kprune.utils.errors import ModelError, OptionError

tf_keras = pytest.importorskip("tf_keras", reason="needs tf_keras")
tf = pytest.importorskip("tensorflow")
old, layers = tf_keras.layers, keras.layers
FRAMES, SEQUENCE, IMAGE = (3, 8, 8, 2), (6, 4), (8, 8, 4)
pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning"),
    pytest.mark.filterwarnings("ignore:The structure of `inputs`:UserWarning"),
]


def small_net(kit):
    """A model to go inside a wrapper: both kinds of weights, an activation that is another in Keras 3, a branch."""
    package = tf_keras if kit is old else keras
    x = inputs = kit.Input((8, 8, 2))
    x = kit.BatchNormalization()(kit.Conv2D(3, 3, activation="hard_sigmoid")(x))
    return package.Model(inputs, kit.GlobalAveragePooling2D()(kit.Add()([x, kit.Conv2D(3, 1)(x)])))


def states_handed_on(kit, x):
    y, h, c = kit.LSTM(5, return_sequences=True, return_state=True)(x)
    return kit.LSTM(5, return_sequences=True)(y, initial_state=[h, c])


def both_ways(kit, x):
    gru = kit.GRU(3, return_sequences=True, recurrent_activation="hard_sigmoid", reset_after=False)
    return kit.Bidirectional(gru, merge_mode="sum")(x)


def own_way_back(kit, x):
    back = kit.LSTM(5, go_backwards=True, return_sequences=True, activation="relu")
    return kit.Bidirectional(kit.LSTM(5, return_sequences=True), backward_layer=back)(x)


# {structure: (shape of one example, layers)}, built by either package.
NESTED = {
    "a conv at each moment": (FRAMES, lambda kit, x: kit.TimeDistributed(kit.Conv2D(4, 3, activation="relu"))(x)),
    "a hard sigmoid at each moment": (
        FRAMES,
        lambda kit, x: kit.TimeDistributed(kit.SeparableConv2D(4, 3, activation="hard_sigmoid"))(x),
    ),
    "a model at each moment": (FRAMES, lambda kit, x: kit.LSTM(4)(kit.TimeDistributed(small_net(kit))(x))),
    "a leaky relu at each moment": (FRAMES, lambda kit, x: kit.TimeDistributed(kit.LeakyReLU(0.3))(x)),
    "moments of moments": ((2, 3, 5), lambda kit, x: kit.TimeDistributed(kit.TimeDistributed(kit.Dense(4)))(x)),
    "both ways at each moment": ((2, *SEQUENCE), lambda kit, x: kit.TimeDistributed(kit.Bidirectional(kit.GRU(3)))(x)),
    "both ways, with hard sigmoids": (SEQUENCE, both_ways),
    "both ways, another way back": (SEQUENCE, own_way_back),
    "images both ways": (
        FRAMES,
        lambda kit, x: kit.Bidirectional(kit.ConvLSTM2D(3, 3, recurrent_activation="hard_sigmoid"))(x),
    ),
    "old gates": (SEQUENCE, lambda kit, x: kit.LSTM(5, recurrent_activation="hard_sigmoid")(x)),
    "cells": (SEQUENCE, lambda kit, x: kit.RNN([kit.LSTMCell(4), kit.GRUCell(3)], return_sequences=True)(x)),
    "states handed on": (SEQUENCE, states_handed_on),
    "attention": (SEQUENCE, lambda kit, x: kit.MultiHeadAttention(2, 3)(x, x)),
    "whole channels dropped": (IMAGE, lambda kit, x: kit.SpatialDropout2D(0.2)(kit.Conv2D(3, 1)(x))),
}


def randomized(model):
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.1, 0.9, w.shape) * rng.choice([-1.0, 1.0], w.shape) for w in model.get_weights()])
    for layer in model.layers:
        inside = getattr(layer, "layer", None)
        for norm in getattr(inside, "layers", []):
            if type(norm).__name__ == "BatchNormalization":
                norm.set_weights(list(np.abs(norm.get_weights())))
    return model


def built(package, shape, build):
    kit = package.layers
    inputs = kit.Input(shape, name="image")
    return randomized(package.Model(inputs, build(kit, inputs), name="net"))


def assert_equal_outputs(model, translated, shape, count=3):
    x = np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")
    for wanted, got in zip(*(keras.tree.flatten(net(x, training=False)) for net in (model, translated)), strict=True):
        wanted = np.asarray(wanted)
        np.testing.assert_allclose(np.asarray(got), wanted, atol=1e-5 * max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize("structure", NESTED)
def test_layers_inside_layers_come_from_keras_2(structure):
    shape, build = NESTED[structure]
    model = built(tf_keras, shape, build)
    assert_equal_outputs(model, from_tf_keras(model), shape)


@pytest.mark.parametrize("structure", NESTED)
def test_layers_inside_layers_go_to_keras_2(structure):
    shape, build = NESTED[structure]
    model = built(keras, shape, build)
    assert_equal_outputs(model, to_tf_keras(model), shape)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("structure", ["a model at each moment", "both ways, another way back", "old gates", "cells"])
def test_files_with_layers_inside_layers_are_read_and_saved_plain(structure, suffix, tmp_path):
    shape, build = NESTED[structure]
    model = built(tf_keras, shape, build)
    model.save(tmp_path / f"net{suffix}")
    translated = load_keras2(tmp_path / f"net{suffix}")
    assert_equal_outputs(model, translated, shape)
    translated.save(tmp_path / "new.keras")
    assert_equal_outputs(model, keras.saving.load_model(tmp_path / "new.keras"), shape)


def test_a_wrapper_of_ones_own_goes_by_custom_objects():
    def own(package):
        class Twice(package.layers.Wrapper):
            def build(self, shape):
                super().build(shape)
                self.scale = self.add_weight(shape=(), name="scale")

            def call(self, x):
                return self.layer(self.layer(x) * self.scale)

        return Twice

    model = built(tf_keras, IMAGE, lambda kit, x: own(tf_keras)(kit.Conv2D(4, 1, activation="hard_sigmoid"))(x))
    assert_equal_outputs(model, from_tf_keras(model, {"Twice": own(keras)}), IMAGE)


def test_a_threshold_stays():
    model = built(tf_keras, IMAGE, lambda kit, x: kit.ThresholdedReLU(0.4)(kit.Conv2D(4, 1)(x)))
    assert_equal_outputs(model, from_tf_keras(model), IMAGE)


def test_a_frozen_layer_inside_stays_frozen():
    wrapped = old.TimeDistributed(old.Conv2D(4, 3))
    inputs = old.Input(FRAMES)
    model = tf_keras.Model(inputs, wrapped(inputs))
    wrapped.layer.trainable = False
    assert not from_tf_keras(model).trainable_weights


def test_a_layer_that_always_trains_is_told(caplog):
    inputs = old.Input((4,))
    model = tf_keras.Model(inputs, old.Dropout(0.5, name="monte_carlo")(old.Dropout(0.5)(inputs), training=True))
    with caplog.at_level("WARNING", "kprune"):
        from_tf_keras(model)
    assert [r.getMessage().split(" is called")[0] for r in caplog.records] == ["'monte_carlo' (Dropout)"]


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_an_embedding_that_knows_its_length_is_read(suffix, tmp_path):
    model = tf_keras.Sequential([old.Embedding(9, 4, input_length=5, mask_zero=True), old.LSTM(3), old.Dense(2)])
    model.save(tmp_path / f"net{suffix}")
    words = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]])
    np.testing.assert_allclose(load_keras2(tmp_path / f"net{suffix}")(words), model(words), atol=1e-6)


def test_a_hard_sigmoid_that_keras_3_would_read_as_another(tmp_path):
    model = built(tf_keras, IMAGE, lambda kit, x: kit.Conv2D(3, 3, activation="hard_sigmoid")(x))
    model.save(tmp_path / "net.h5")
    assert_equal_outputs(model, load_keras2(tmp_path / "net.h5"), IMAGE)


def anchors(x):
    box = tf.reshape(x, [tf.shape(x)[0], -1, 4])
    return tf.concat([box, tf.tile(tf.constant(np.arange(256.0).reshape(1, 64, 4), "float32"), [len_of(x), 1, 1])], -1)


def len_of(x):
    return tf.shape(x)[0]


def attention_of_patches(x):
    batch, height, width = len_of(x), tf.shape(x)[1], tf.shape(x)[2]
    tokens = tf.reshape(x, tf.stack([batch, height * width, 2, 2]))
    query = tf.transpose(tokens, [0, 2, 1, 3])
    weights = tf.nn.softmax(tf.matmul(query, query, transpose_b=True) / 2.0)
    return tf.reshape(tf.transpose(tf.matmul(weights, query), [0, 2, 1, 3]), (batch, height, width, 4))


def space_and_depth(x):
    return tf.nn.space_to_depth(tf.nn.depth_to_space(x, 2), 4)


def whole_batch_in_rows(x):
    rows = tf.reshape(x, [len_of(x) * 8, 8, 4])
    return tf.reshape(rows * 2.0, tf.concat([tf.shape(x)[:3], [2, 2]], axis=0))


def coordinates(x):
    columns, rows = tf.meshgrid(tf.range(tf.shape(x)[1]), tf.range(8))
    grid = tf.cast(tf.stack([columns, rows], axis=-1), tf.float32)
    return tf.concat([x, tf.tile(grid[tf.newaxis], [len_of(x), 1, 1, 1])], axis=-1)


FUNCTIONS = {
    "anchors": anchors,
    "attention of patches": attention_of_patches,
    "space and depth": space_and_depth,
    "the batch in rows": whole_batch_in_rows,
    "coordinates": coordinates,
    "flattened": lambda x: tf.reshape(x, [len_of(x), -1]),
    "ones beside": lambda x: tf.concat([x, tf.ones([len_of(x), 8, 8, 1])], -1) + tf.zeros((len_of(x), 1, 1, 5)),
    "filled": lambda x: x * tf.fill([len_of(x), 1, 1, 1], 0.5),
    "broadcast": lambda x: x + tf.broadcast_to(tf.constant([[[[1.0, 2.0, 3.0, 4.0]]]]), [len_of(x), 8, 8, 4]),
    "resized to a branch": lambda x: tf.image.resize(x[:, ::2, ::2], tf.shape(x)[1:3]) + x,
    "resized by a factor": lambda x: tf.image.resize(x, tf.shape(x)[1:3] * 2, method="nearest"),
    "resized as before": lambda x: tf.compat.v1.image.resize_nearest_neighbor(x, (16, 16)),
    "divided by a size": lambda x: x / tf.cast(tf.shape(x)[1] * tf.shape(x)[2], tf.float32),
    "tiled and repeated": lambda x: tf.repeat(tf.tile(x, [1, 2, 1, 1]), 2, axis=2),
    "expanded and squeezed": lambda x: tf.squeeze(tf.expand_dims(x, 1) * tf.expand_dims(x, 1), axis=[1]),
    "unstacked and stacked": lambda x: tf.stack(tf.unstack(x, axis=3)[::-1], axis=1),
    "split in parts": lambda x: tf.concat(tf.split(x, [1, -1], axis=3)[::-1], 3) + tf.concat(tf.split(x, 2, 3), 3),
    "gathered": lambda x: tf.gather(x, [3, 0, 0], axis=-1),
    "sliced": lambda x: tf.slice(x, [0, 1, 2, 0], [-1, 4, -1, 3]),
    "new axes": lambda x: x[:, tf.newaxis, ..., 1],
    "where": lambda x: tf.where(x > 0.2, x, 0.1 * x),
    "cast and compared": lambda x: tf.cast(x >= 0, "float32") * tf.cast(tf.math.logical_not(x > 1.0), tf.float32),
    "normalized": lambda x: tf.math.l2_normalize(x, axis=-1) + tf.norm(x, axis=-1, keepdims=True),
    "moments": lambda x: tf.math.reduce_std(x, [1, 2]) + tf.math.reduce_variance(x, [1, 2]) + tf.reduce_prod(x, [1, 2]),
    "numbers first": lambda x: 1.0 - 2.0 / (3.0 + tf.abs(x)),
    "divided and left": lambda x: x // 0.3 + x % 0.3 + (-x) ** 2,
    "pooled": lambda x: tf.nn.max_pool2d(x, 3, 1, "SAME") + tf.nn.avg_pool2d(x, [1, 3, 3, 1], [1, 1, 1, 1], "SAME"),
    "convolved": lambda x: tf.nn.conv2d(x, tf.constant(np.arange(36.0).reshape(3, 3, 4, 1), "float32"), 2, "SAME"),
    "blurred": lambda x: tf.nn.depthwise_conv2d(x, tf.ones((3, 3, 4, 1)) / 9.0, [1, 1, 1, 1], "VALID"),
    "multiplied": lambda x: tf.einsum("bhwc,bhwd->bcd", x, x) + tf.linalg.matmul(x[:, 0], x[:, 1], transpose_a=True),
    "unary": lambda x: (
        tf.sin(x) + tf.math.erf(x) + tf.math.log1p(tf.exp(x)) + tf.sign(x) + tf.math.reciprocal(2 + x * x)
    ),
    "activations": lambda x: tf.nn.selu(x) + tf.nn.softplus(x) + tf.nn.log_softmax(x) + tf.nn.swish(x) + tf.tanh(x),
    "turned": lambda x: tf.roll(tf.reverse(x, [1]), 1, 2) + tf.image.flip_left_right(x),
    "the largest": lambda x: tf.math.top_k(x, 2)[0],
    "which is the largest": lambda x: tf.one_hot(tf.argmax(x, axis=-1), 4),
    "standardized": lambda x: tf.image.per_image_standardization(x) + tf.image.rgb_to_grayscale(x[..., :3]),
}


# What tf_keras itself cannot write or read.
UNSAVED = {".h5": ("multiplied", "coordinates"), ".keras": ("multiplied", "coordinates", "new axes", "standardized")}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_tensorflow_functions_become_operations(name, tmp_path):
    model = built(tf_keras, IMAGE, lambda kit, x: FUNCTIONS[name](kit.Conv2D(4, 1)(x)))
    translated = from_tf_keras(model)
    for count in (1, 3):
        assert_equal_outputs(model, translated, IMAGE, count)
    translated.save(tmp_path / "new.keras")
    assert_equal_outputs(model, keras.saving.load_model(tmp_path / "new.keras"), IMAGE)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_tensorflow_functions_are_read_from_files(name, suffix, tmp_path):
    if name in UNSAVED[suffix]:
        pytest.skip("tf_keras itself cannot write or read it")
    model = built(tf_keras, IMAGE, lambda kit, x: FUNCTIONS[name](kit.Conv2D(4, 1)(x)))
    model.save(tmp_path / f"net{suffix}")
    assert_equal_outputs(model, load_keras2(tmp_path / f"net{suffix}"), IMAGE)


def test_a_network_for_images_of_any_size_is_scaled_up():
    model = built(
        tf_keras, (None, None, 2), lambda kit, x: tf.nn.depth_to_space(kit.Conv2D(8, 3, padding="same")(x), 2)
    )
    translated = from_tf_keras(model)
    for shape in ((4, 6, 2), (7, 5, 2)):
        assert_equal_outputs(model, translated, shape)


def test_what_is_added_for_each_example_freezes_no_channel():
    def build(kit, x):
        x = kit.Conv2D(16, 3, padding="same", activation="relu", name="first")(x)
        return kit.Conv2D(4, 1)(tf.concat([tf.nn.relu6(x), tf.ones([len_of(x), 8, 8, 1])], -1))

    translated = from_tf_keras(built(tf_keras, IMAGE, build))
    first = next(layer for layer in kprune.search_space(translated).layers if layer.path == "first")
    assert first.prunable and first.fewest == 1


@pytest.mark.parametrize(
    "function, words",
    [
        (lambda x: tf.image.resize(x, tf.shape(x)[1:3] * 2), "leaves open.*fixed size"),
        (lambda x: tf.image.resize(x, (4, 4), method="area"), "method='area'"),
        (lambda x: tf.math.cumsum(x, 1, reverse=True), "reverse=True"),
        (lambda x: tf.compat.v1.image.resize_bilinear(x, (4, 4)), "half_pixel_centers=False"),
        (lambda x: tf.math.polygamma(1.0, x), r"tf\.math\.polygamma.*no twin"),
    ],
)
def test_a_function_that_keras_3_does_not_compute_is_named(function, words):
    with pytest.raises(ModelError, match=words):
        from_tf_keras(built(tf_keras, (None, None, 4), lambda kit, x: function(x)))


AUGMENTING = {
    "flip": lambda kit: kit.RandomFlip("horizontal"),
    "rotation": lambda kit: kit.RandomRotation((-0.1, 0.2), fill_mode="nearest"),
    "zoom": lambda kit: kit.RandomZoom(0.1),
    "translation": lambda kit: kit.RandomTranslation(0.1, 0.2),
    "contrast": lambda kit: kit.RandomContrast((0.1, 0.2)),
    "brightness": lambda kit: kit.RandomBrightness((-0.2, 0.1)),
    "center crop": lambda kit: kit.CenterCrop(6, 5),
    "resizing": lambda kit: kit.Resizing(5, 7, crop_to_aspect_ratio=True),
    "rescaling": lambda kit: kit.Rescaling(0.1, offset=0.5),
    "normalization": lambda kit: kit.Normalization(mean=[0.1] * 4, variance=[2.0] * 4),
    "dropout": lambda kit: kit.SpatialDropout2D(0.3),
    "noise": lambda kit: kit.GaussianNoise(0.3),
}


@pytest.mark.parametrize("layer", AUGMENTING)
def test_augmentation_changes_sides_with_its_settings(layer):
    for package, translate in ((keras, to_tf_keras), (tf_keras, from_tf_keras)):
        model = built(package, IMAGE, lambda kit, x: kit.Conv2D(3, 1)(AUGMENTING[layer](kit)(x)))
        translated = translate(model)
        assert_equal_outputs(model, translated, IMAGE)
        ours, theirs = model.layers[1].get_config(), translated.layers[1].get_config()
        for key in ("factor", "height_factor", "mode", "fill_mode", "rate", "interpolation", "height"):
            assert key not in ours or key not in theirs or np.all(np.asarray(ours[key]) == np.asarray(theirs[key]))


def test_contrast_is_changed_as_much_as_before():
    model = built(tf_keras, IMAGE, lambda kit, x: kit.RandomContrast(0.2)(x))
    config = from_tf_keras(model).layers[1].get_config()
    assert config["factor"] == (0.2, 0.2) and config["value_range"][0] < -255


@pytest.mark.parametrize(
    "layer, words",
    [
        (lambda: layers.RandomFlip(data_format="channels_first"), "'data_format': 'channels_first'"),
        (lambda: layers.Resizing(4, 4, fill_mode="constant", antialias=True), "antialias"),
        (lambda: layers.RandomCrop(4, 4), "resizes in tf_keras"),
        (lambda: layers.RandomContrast(0.2, value_range=(0, 1)), "value_range"),
        (lambda: layers.TimeDistributed(layers.Activation("hard_silu")), "'hard_silu' inside"),
        (lambda: layers.TimeDistributed(layers.Activation("hard_sigmoid")), "hard_sigmoid inside"),
    ],
)
def test_a_setting_that_the_other_side_lacks_is_named(layer, words):
    shape = FRAMES if isinstance(layer(), layers.TimeDistributed) else (4, 8, 4)
    inputs = keras.Input(shape)
    with pytest.raises(ModelError, match=words):
        to_tf_keras(keras.Model(inputs, layer()(inputs)))


@pytest.mark.parametrize("function", ["hard_sigmoid", "hard_silu"])
def test_an_activation_inside_a_recurrent_layer_is_not_put_behind_it(function):
    inputs = keras.Input(SEQUENCE)
    with pytest.raises(ModelError, match=f"{function}.*inside"):
        to_tf_keras(keras.Model(inputs, layers.LSTM(3, activation=function)(inputs)))


# ---------------------------------------------------------------------------------------------------- bytecode


def touching(path):
    """A function that leaves a file behind when it runs."""
    return eval(f"lambda x: (open({str(path)!r}, 'w').close(), x / 2.0)[1]")  # noqa: S307 - our own text


def file_with_code(folder, suffix, place="function"):
    """A file of Keras 2 whose Lambda holds bytecode; what the bytecode would leave behind."""
    mark, path = pathlib.Path(folder) / "it ran", pathlib.Path(folder) / f"net{suffix}"
    code = touching(mark)
    layer = old.Lambda(code, name="halves") if place == "function" else old.Lambda(tf.nn.relu, output_shape=code)
    model = tf_keras.Sequential([old.Input(IMAGE), old.Conv2D(3, 3), old.BatchNormalization(), layer, old.Dense(2)])
    randomized(model)
    model.save(path)
    mark.unlink(missing_ok=True)
    return model, path, mark


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("place", ["function", "output_shape"])
def test_bytecode_in_a_file_is_never_run(place, suffix, tmp_path):
    _, path, mark = file_with_code(tmp_path, suffix, place)
    with pytest.raises(ModelError, match=r"bytecode in '(lambda|halves)"):
        load_keras2(path)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_bytecode_is_run_where_the_user_says_so(suffix, tmp_path):
    model, path, mark = file_with_code(tmp_path, suffix)
    translated = load_keras2(path, safe_mode=False)
    assert mark.exists()
    assert_equal_outputs(model, translated, IMAGE)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_the_way_that_the_error_names_works(suffix, tmp_path):
    model, path, _ = file_with_code(tmp_path, suffix)
    with pytest.raises(ModelError, match=r"'halves'.*Keras 2\.\d+.*this is Python 3.*model.load_weights\("):
        load_keras2(path)
    anew = keras.Sequential(
        [keras.Input(IMAGE), layers.Conv2D(3, 3), layers.BatchNormalization(), layers.Rescaling(0.5), layers.Dense(2)]
    )
    anew.load_weights(path)
    assert_equal_outputs(model, anew, IMAGE)


def rewritten(path, change):
    """Changes the architecture in an `.h5` file."""
    import h5py

    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        (layer,) = [entry for entry in config["config"]["layers"] if entry["class_name"] == "Lambda"]
        change(layer["config"])
        file.attrs["model_config"] = json.dumps(config)


# How a function of one argument begins, as each Python wrote it, with a name of no instruction behind.
COMPILED = {
    "2": "YwEAAAABAAAAAgAAAEMAAABzCAAAAA==\n",
    "3.0 to 3.7": "4wEAAAAAAAAAAQAAAAIAAABDAAAAcwgAAAA=\n",
    "3.8 to 3.10": "4wEAAAAAAAAAAAAAAAEAAAAFAAAAUwAAAHMQAAAA\n",
    "3.11 or later": "4wEAAAAAAAAAAAAAAAMAAAADAAAA8wgAAAA=\n",
}


@pytest.mark.parametrize("python", COMPILED)
def test_the_error_says_which_python_compiled_the_code(python, tmp_path):
    _, path, _ = file_with_code(tmp_path, ".h5")

    def change(config):
        config["function"] = [COMPILED[python], None, None]

    rewritten(path, change)
    with pytest.raises(ModelError, match=f"'halves' .compiled by Python {python}.; Keras 2"):
        load_keras2(path)
    if python != "3.11 or later":
        with pytest.raises(ModelError, match=f"tf_keras .*'halves' .compiled by Python {python}.*load_weights"):
            load_keras2(path, safe_mode=False)


def test_a_function_of_ones_own_goes_by_custom_objects(tmp_path):
    def halved(x):
        return x / 2.0

    model = built(tf_keras, SEQUENCE, lambda kit, x: kit.LSTM(3)(kit.Lambda(halved, name="halves")(x)))
    model.save(tmp_path / "net.h5")

    def change(config):
        config.update(function="halved", function_type="function", module="__main__")

    rewritten(tmp_path / "net.h5", change)
    assert_equal_outputs(model, load_keras2(tmp_path / "net.h5", {"halved": halved}), SEQUENCE)
    with pytest.raises(ModelError, match=r"halves \(halved\).*custom_objects=\{'halved': function"):
        load_keras2(tmp_path / "net.h5")


def test_a_file_that_wants_a_module_imported_is_refused(tmp_path):
    model = built(tf_keras, IMAGE, lambda kit, x: kit.Conv2D(3, 3)(x))
    model.save(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nclass Conv2D: pass\n")
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1] |= {"module": "evil_module", "registered_name": "Evil"}
    parts["config.json"] = json.dumps(config)
    with zipfile.ZipFile(tmp_path / "evil.keras", "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ModelError, match=r"Conv2D \(evil_module\)"):
        patch.syspath_prepend(tmp_path)
        load_keras2(tmp_path / "evil.keras")
    assert not (tmp_path / "imported").exists()


def test_safe_mode_is_a_boolean(tmp_path):
    with pytest.raises(OptionError, match="safe_mode is 'no'"):
        load_keras2(tmp_path / "net.h5", safe_mode="no")
