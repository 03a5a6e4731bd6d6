"""One row per operation that kprune has a rule for: masked equals removed, the target is met, the cost is exact."""

import keras
import numpy as np
import pytest
from models import conv, sets_of

import kprune
from kprune.graph import trace

layers, ops = keras.layers, keras.ops

# Of Keras itself, wherever a mask reaches a nested model.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask attached to it")


def stem(x, filters=8, **options):
    return conv(x, filters, "stem", **options)


def mean_of_places(x):
    return ops.mean(x, axis=(1, 2), keepdims=True)


ROWS = {
    "expand and squeeze": lambda x: ops.squeeze(ops.expand_dims(stem(x), 2), 2),
    "squeeze whatever is one": lambda x: layers.Reshape((1, 1, 8))(ops.squeeze(mean_of_places(stem(x)))),
    "swap axes": lambda x: ops.swapaxes(stem(x), 1, 2),
    "channels to the front and back": lambda x: ops.moveaxis(ops.moveaxis(stem(x), -1, 1), 1, -1),
    "flip channels": lambda x: ops.flip(stem(x), -1),
    "reverse by a slice": lambda x: stem(x)[..., ::-1],
    "roll places": lambda x: ops.roll(stem(x), 3, axis=1),
    "an activation function": lambda x: keras.activations.relu(stem(x)),
    "tile channels": lambda x: ops.tile(stem(x), (1, 1, 1, 2)),
    "tile places": lambda x: ops.tile(stem(x), (1, 2, 1, 1)),
    "repeat channels": lambda x: ops.repeat(stem(x), 3, axis=-1),
    "repeat places": lambda x: ops.repeat(stem(x), 2, axis=1),
    "repeat a vector": lambda x: ops.expand_dims(layers.RepeatVector(5)(layers.GlobalMaxPooling2D()(stem(x))), 1),
    "depth to space": lambda x: ops.nn.depth_to_space(stem(x, 12), 2),
    "depth to space, channels first": lambda x: ops.moveaxis(
        ops.nn.depth_to_space(ops.moveaxis(stem(x, 12), -1, 1), 2, data_format="channels_first"), 1, -1
    ),
    "space to depth": lambda x: ops.nn.space_to_depth(stem(x, 5), 2),
    "space to depth, channels first": lambda x: ops.moveaxis(
        ops.nn.space_to_depth(ops.moveaxis(stem(x, 5), -1, 1), 2, data_format="channels_first"), 1, -1
    ),
    "split in halves": lambda x: ops.multiply(*ops.split(stem(x), 2, axis=-1)),
    "split unevenly": lambda x: layers.Concatenate()(ops.split(stem(x, 9), [2, 5], axis=-1)[1:]),
    "split places": lambda x: ops.add(*ops.split(stem(x), 2, axis=1)),
    "unstack places": lambda x: ops.expand_dims(ops.add(*ops.unstack(stem(x)[:, :2], axis=1)), 1),
    "stack and mean": lambda x: ops.mean(ops.stack([stem(x), conv(x, 8, "b")], axis=-1), axis=-1),
    "stack behind the channels": lambda x: layers.Reshape((8, 16, 8))(
        ops.moveaxis(ops.stack([stem(x), conv(x, 8, "b")], axis=2), 2, 3)
    ),
    "every second channel": lambda x: layers.Concatenate()([stem(x)[..., 1::2], conv(x, 3, "b")]),
    "both halves of a stride": lambda x: halves(stem(x)),
    "a single channel": lambda x: with_its_last(stem(x)),
    "a new axis": lambda x: ops.max(stem(x)[:, :, None, :, :], axis=2),
    "a gathered order": lambda x: ops.take(stem(x), [7, 1, 1, 4, 0, 2, 6, 3, 5], axis=-1),
    "shuffle": lambda x: shuffle(stem(x, 12)),
    "mean of places": lambda x: mean_of_places(stem(x)),
    "spatial attention": lambda x: spatial_attention(stem(x)),
    "a gate of other rank": lambda x: stem(x) * layers.Dense(8, name="gate")(x[:, 0, 0, :])[:, None, None, :],
    "a scale per channel": lambda x: stem(x) * np.linspace(0.5, 2.0, 8, dtype="float32"),
    "an array per place": lambda x: stem(x) + np.linspace(0, 1, 64, dtype="float32").reshape(8, 8, 1),
    "division by a map": lambda x: stem(x) / (ops.exp(conv(x, 1, "norm")) + 1.0),
    "power": lambda x: ops.power(ops.abs(stem(x)), 1.5),
    "where": lambda x: where(stem(x), conv(x, 8, "b")),
    "cast": lambda x: ops.cast(ops.cast(stem(x), "float64"), "float32"),
    "glu": lambda x: ops.glu(stem(x), axis=-1),
    "group normalization": lambda x: layers.GroupNormalization(4)(stem(x, activation="sigmoid")),
    "instance normalization": lambda x: layers.GroupNormalization(-1)(stem(x)),
    "layer normalization of places": lambda x: layers.LayerNormalization(axis=(1, 2))(stem(x)),
    "unit normalization": lambda x: layers.UnitNormalization()(layers.ReLU()(layers.BatchNormalization()(stem(x)))),
    "sum over channels": lambda x: ops.sum(stem(x, activation="relu"), axis=-1, keepdims=True),
    "resizing": lambda x: layers.Resizing(12, 12, interpolation="bicubic")(stem(x)),
    "pooling operation": lambda x: ops.average_pool(ops.max_pool(stem(x), 2), 2, padding="same"),
    "softmax of places": lambda x: ops.softmax(stem(x), axis=1),
    "einsum dense": lambda x: layers.EinsumDense("abcd,de->abce", (8, 8, 6), bias_axes="e", name="inner")(stem(x)),
    "einsum dense with dots": lambda x: layers.EinsumDense("...d,de->...e", 6, name="inner")(stem(x)),
    "einsum over places": lambda x: ops.einsum("bijc,bijd->bdc", stem(x), x)[:, None],
    "correlation": lambda x: ops.expand_dims(
        ops.einsum("bic,bjc->bij", *(layers.Reshape((64, 8))(conv(x, 8, name)) for name in ("left", "right"))), -1
    ),
    "matmul over channels": lambda x: ops.expand_dims(
        ops.matmul(layers.Reshape((64, 8))(stem(x)), ops.swapaxes(layers.Reshape((64, 8))(conv(x, 8, "b")), 1, 2)), -1
    ),
    "dot": lambda x: layers.Reshape((1, 1, 1))(
        layers.Dot(axes=1)([layers.GlobalMaxPooling2D()(conv(x, 8, name)) for name in ("left", "right")])
    ),
    "attention by hand": lambda x: attention(layers.Reshape((64, 8))(stem(x))),
    "attention": lambda x: attend(layers.Attention(), stem(x), conv(x, 6, "b"), conv(x, 8, "c")),
    "scaled attention": lambda x: attend(layers.Attention(use_scale=True), stem(x), conv(x, 8, "b")),
    "additive attention": lambda x: attend(layers.AdditiveAttention(), stem(x), conv(x, 6, "b"), conv(x, 8, "c")),
    "heads": lambda x: itself(layers.MultiHeadAttention(2, 4), flat(stem(x))),
    "heads with an output of their own": lambda x: attend_by_heads(
        layers.MultiHeadAttention(2, 4, value_dim=3, output_shape=6), stem(x), conv(x, 7, "b"), conv(x, 5, "c")
    ),
    "gated heads": lambda x: attend_by_heads(layers.MultiHeadAttention(2, 4, use_gate=True), stem(x), conv(x, 7, "b")),
    "grouped heads": lambda x: attend_by_heads(layers.GroupQueryAttention(4, 4, 2), stem(x), conv(x, 8, "b")),
    "lstm": lambda x: ops.expand_dims(layers.LSTM(5, return_sequences=True)(rows(stem(x))), 1),
    "bidirectional gru": lambda x: layers.Reshape((1, 1, 10))(layers.Bidirectional(layers.GRU(5))(rows(stem(x)))),
    "simple rnn": lambda x: layers.Reshape((1, 1, 5))(layers.SimpleRNN(5)(rows(stem(x)))),
    "time distributed layers": lambda x: over_time(over_time_input(x), 6),
    "time distributed model": lambda x: over_time(layers.TimeDistributed(small_model())(over_time_input(x)), 5),
    "a layer made of others": lambda x: Block(6, name="block")(stem(x)),
    "a layer of two tensors": lambda x: Decoder(6, name="decoder")(layers.MaxPooling2D()(stem(x)), conv(x, 5, "skip")),
    "a layer of two tensors, one by its name": lambda x: Decoder(6, name="decoder")(
        layers.MaxPooling2D()(stem(x)), skip=conv(x, 5, "skip"), scale=-2.0
    ),
    "a layer of a list and a number": lambda x: ListDecoder(6, name="decoder")(
        [layers.MaxPooling2D()(stem(x)), conv(x, 5, "skip")], scale=-2.0
    ),
    "a layer called twice with one number": lambda x: twice(Decoder(6, name="decoder"), stem(x, 6), (-2.0, -2.0)),
    "a layer that asks for the size of the batch": lambda x: Tokens(name="tokens")(stem(x)),
    "a layer that does nothing at inference": lambda x: SkipSometimes()(stem(x)),
    "a model for any size, at two sizes": lambda x: at_two_sizes(stem(x)),
    "zeros like it": lambda x: ops.where(stem(x) > 0.1, conv(x, 8, "b"), ops.zeros_like(conv(x, 8, "c"))),
    "a nested model that does more than its graph": lambda x: residual()(stem(x)),
    "a conv with more in its config": lambda x: Configured(6, 3, note="mine")(stem(x)),
    "masks around a nested model": lambda x: masked_words(x),
    "twice nested": lambda x: twice_nested(x),
}  # fmt: skip


def flat(x):
    return layers.Reshape((64, x.shape[-1]))(x)


def attend(layer, *maps):
    return ops.expand_dims(layer([flat(x) for x in maps]), 1)


def attend_by_heads(layer, *maps):
    return ops.expand_dims(layer(*map(flat, maps)), 1)


def itself(layer, x):
    return ops.expand_dims(layer(x, x), 1)


def shuffle(x):
    return layers.Reshape((8, 8, 12))(ops.transpose(layers.Reshape((8, 8, 3, 4))(x), (0, 1, 2, 4, 3)))


def where(x, other):
    return ops.where(ops.greater(x, 0.1), x, other)


def with_its_last(x):
    return x + x[..., 3:4] * 0.5 + ops.expand_dims(x[..., -1], -1)


def spatial_attention(x):
    return x * conv(x, 1, "gate", activation="sigmoid")


def halves(x):
    return ops.maximum(x[..., ::2], x[..., 1::2])


def rows(x):
    """Each row of a map as one moment: `[batch, 8, 8 * channels]`."""
    return layers.Reshape((8, -1))(x)


def attention(x):
    query, key, value = (layers.Dense(6, name=name)(x) for name in ("query", "key", "value"))
    weights = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 2, 1))) / 2.0, axis=-1)
    return ops.expand_dims(ops.matmul(weights, value), 1)


def over_time_input(x):
    return layers.Reshape((4, 2, 8, 3))(x)


def over_time(x, filters):
    x = layers.TimeDistributed(layers.Conv2D(filters, 3, padding="same", name="a"), name="a_at_each")(x)
    x = layers.TimeDistributed(layers.BatchNormalization(name="bn"), name="bn_at_each")(x)
    x = layers.TimeDistributed(layers.Conv2D(4, 3, padding="same", name="b"), name="b_at_each")(x)
    return layers.Reshape((8, 8, 4))(x)


def small_model():
    inputs = keras.Input((2, 8, 3))
    x = layers.BatchNormalization(name="inside_bn")(conv(inputs, 7, "inside_a", activation="relu"))
    return keras.Model(inputs, conv(x, 5, "inside_b"), name="small")


def twice_nested(x):
    inner_input = keras.Input(x.shape[1:])
    inner = keras.Model(inner_input, conv(conv(inner_input, 6, "deep"), 6, "deeper"), name="inner")
    outer_input = keras.Input(x.shape[1:])
    outer = keras.Model(outer_input, conv(inner(outer_input), 5, "outer_conv"), name="outer")
    return outer(x)


@keras.saving.register_keras_serializable("kprune_tests")
class Decoder(layers.Layer):
    """What a U-Net does with a tensor and the skip connection beside it."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.up = layers.UpSampling2D()
        self.first = layers.Conv2D(filters, 3, padding="same")
        self.last = layers.Conv2D(filters, 3, padding="same", activation="relu")

    def build(self, x_shape, skip_shape):
        self.first.build((*skip_shape[:-1], x_shape[-1] + skip_shape[-1]))
        self.last.build((*skip_shape[:-1], self.filters))
        self.built = True

    def call(self, x, skip, scale=1.0):
        return self.last(ops.relu(scale * self.first(ops.concatenate([self.up(x), skip], -1))))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("kprune_tests")
class ListDecoder(Decoder):
    def build(self, shapes):
        super().build(*shapes)

    def call(self, tensors, scale):
        return super().call(*tensors, scale)


def twice(decoder, x, scales):
    """The same decoder after itself."""
    for scale in scales:
        x = decoder(layers.MaxPooling2D()(x), x, scale=scale)
    return x


@keras.saving.register_keras_serializable("kprune_tests")
class Block(layers.Layer):
    """Conv, BatchNorm, dropout and an addition, as libraries wrap them up."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.first = layers.Conv2D(filters, 3, padding="same")
        self.bn = layers.BatchNormalization()
        self.drop = layers.Dropout(0.5)

    def build(self, shape):
        self.last = layers.Conv2D(shape[-1], 3, padding="same")
        self.first.build(shape)
        self.bn.build((*shape[:-1], self.filters))
        self.last.build((*shape[:-1], self.filters))
        super().build(shape)

    def call(self, x, training=None):
        y = ops.relu(self.bn(self.first(x), training=training))
        return x + self.last(self.drop(y, training=training))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


def at_two_sizes(x):
    inputs = keras.Input((None, None, 8))
    inner = layers.BatchNormalization()(conv(inputs, 6, "inside"))
    inner = keras.Model(inputs, conv(inner, 5, "inside_too"), name="any_size")
    return inner(x)[:, ::2, ::2] + inner(x[:, ::2, ::2])


def residual():
    inside = [layers.Conv2D(6, 3, padding="same", name="a"), layers.Conv2D(8, 3, padding="same", name="b")]
    return Residual([keras.Input((8, 8, 8)), *inside])


def test_what_a_nested_model_does_besides_its_graph_is_kept():
    model = build(ROWS["a nested model that does more than its graph"])
    soft = kprune.prune_model(model, 0.4, criterion="l1", mode="soft")
    model.set_weights([keras.ops.convert_to_numpy(w) for w in soft.weights])
    np.testing.assert_allclose(run(model, IMAGES), run(soft, IMAGES), rtol=1e-4, atol=1e-5)


def test_looking_into_a_layer_leaves_its_weights_alone():
    model = build(REASONS["no rule for Masked"])
    before = model.get_weights()
    kprune.search_space(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def masked_words(x):
    """Tokens with a mask, which Keras hands on to the model inside as another tensor."""
    inputs = keras.Input((8, 24), name="tokens")
    inner = keras.Model(inputs, layers.Dense(6, name="inside")(layers.Dense(7, name="between")(inputs)))
    return ops.expand_dims(inner(layers.Masking()(rows(x))), 1) + mean_of_places(stem(x, 6))


def test_initializers_with_a_number_per_weight_do_not_come_along(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, bias_initializer=keras.initializers.Constant(np.arange(6.0).tolist()), name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))
    small = kprune.prune_model(model, 0.5)
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(loaded.get_layer("conv").bias, small.get_layer("conv").bias)
    assert model.get_layer("conv").get_config()["bias_initializer"]["class_name"] == "Constant"


def test_a_model_for_any_size_costs_what_it_costs_at_that_size():
    model = build(ROWS["a model for any size, at two sizes"])
    cost = {layer.path: layer.flops for layer in kprune.model_cost(model).layers}
    assert cost["any_size/inside"] == 9 * 8 * 6 * (64 + 16) and cost["any_size/inside_too"] == 9 * 6 * 5 * (64 + 16)
    inner = kprune.prune_model(model, 0.3).get_layer("any_size")
    assert inner.input_shape[1:3] == (None, None)


@keras.saving.register_keras_serializable("kprune_tests")
class SkipSometimes(layers.Layer):
    """Drops whole examples while training, as stochastic depth does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x, training=None):
        if not training:
            return x
        return x * keras.random.bernoulli((ops.shape(x)[0], 1, 1, 1), 0.5, seed=self.seeds)


@keras.saving.register_keras_serializable("kprune_tests")
class Tokens(layers.Layer):
    """Flattens places and back by the sizes of the tensor it is given, as many layers do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.mix = layers.Dense(6)

    def build(self, shape):
        self.mix.build((None, None, shape[-1]))
        super().build(shape)

    def call(self, x):
        batch, height, width, channels = ops.shape(x)
        tokens = self.mix(ops.reshape(x, (batch, -1, channels)))
        return ops.reshape(tokens, (batch, height, width, 6))


class Standardized(layers.Conv2D):
    """Its kernel has no mean and a spread of one, over what it reads: a filter that goes changes the others."""

    def convolution_op(self, inputs, kernel):
        spread = ops.std(kernel, axis=(0, 1, 2), keepdims=True) + 1e-5
        return super().convolution_op(inputs, (kernel - ops.mean(kernel, axis=(0, 1, 2), keepdims=True)) / spread)


class Configured(layers.Conv2D):
    """Computes as its base class does."""

    def __init__(self, *args, note=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.note = note

    def get_config(self):
        return {**super().get_config(), "note": self.note}


class Masked(layers.Layer):
    """Sets weights of its conv to zero at each call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(6, 3, padding="same", name="masked_conv")

    def build(self, shape):
        self.conv.build(shape)
        super().build(shape)

    def call(self, x):
        self.conv.kernel.assign(self.conv.kernel * np.eye(3, dtype="float32")[..., None, None])
        return self.conv(x)


class Penalized(Masked):
    """Adds a loss."""

    def call(self, x):
        self.add_loss(ops.mean(ops.square(x)))
        return self.conv(x)


class Transposed(Masked):
    """Computes with the weights of its layer, not only with the layer."""

    def call(self, x):
        return ops.matmul(self.conv(x), ops.transpose(ops.mean(self.conv.kernel, axis=(0, 1))))


class Residual(keras.Sequential):
    """A model with a graph that does more than the graph."""

    def call(self, x, training=None, mask=None):
        return x + 0.5 * super().call(x, training=training)


class Spread(Tokens):
    """What no symbolic batch can tell: it spreads a number to as many examples as there are."""

    def call(self, x):
        tokens = super().call(x)
        return ops.broadcast_to(ops.mean(tokens, axis=(1, 2), keepdims=True), ops.shape(tokens))


def build(structure):
    keras.utils.clear_session()
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(5, 1, name="head")(structure(inputs)))
    return settle(keras.Model(inputs, layers.Dense(3, name="logits")(x)))


def settle(model):
    """Random weights for every variable, also in layers within layers."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype.startswith("float"):
            value = rng.normal(0.1, 0.5, variable.shape) / max(1.0, np.sqrt(np.prod(variable.shape[:-1], dtype=float)))
            variable.assign(rng.uniform(0.5, 1.5, variable.shape) if "variance" in variable.name else value)
    return model


# What Keras itself cannot run on a backend, and why.
BEYOND_KERAS = {
    ("torch", "reverse by a slice"): "PyTorch slices with steps above zero only",
    ("torch", "layer normalization of places"): "Keras normalizes the last axes only on PyTorch",
}


@pytest.fixture(params=ROWS)
def model(request):
    why_not = BEYOND_KERAS.get((keras.backend.backend(), request.param))
    if why_not:
        pytest.skip(why_not)
    return build(ROWS[request.param])


def run(model, images):
    return np.concatenate([keras.ops.convert_to_numpy(y).ravel() for y in keras.tree.flatten(model(images))])


IMAGES = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")


def test_masked_equals_removed_and_the_cost_is_what_was_promised(model):
    plan = kprune.plan_pruning(model, 0.4, criterion="l1")
    hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
    expected = run(hard, IMAGES)
    np.testing.assert_allclose(run(soft, IMAGES), expected, rtol=1e-4, atol=1e-5)
    assert plan.flops[1] <= 0.6 * plan.flops[0]
    assert kprune.model_cost(hard).flops == plan.flops[1] and hard.count_params() == plan.params[1]
    stripped = kprune.strip(soft)
    assert stripped.count_params() == plan.params[1]
    np.testing.assert_allclose(run(stripped, IMAGES), expected, rtol=1e-4, atol=1e-5)


@keras.saving.register_keras_serializable("kprune_tests")
class Centred(layers.Layer):
    """Takes the mean over channels off; runs on anything but symbolic tensors."""

    def call(self, x):
        if isinstance(x, keras.KerasTensor):
            raise TypeError("no symbols here")
        return x - ops.mean(x, axis=-1, keepdims=True)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def sigmoid_product(x):
    left, right = (layers.Reshape((64, 8))(conv(x, 8, n, activation="sigmoid")) for n in ("stem", "right"))
    return ops.expand_dims(ops.einsum("bic,bjc->bij", left, right), -1)


REASONS = {
    "norm to which removed channels would add": lambda x: layers.UnitNormalization()(stem(x, activation="sigmoid")),
    "hold a number once removed": sigmoid_product,
    "statistics of all channels": lambda x: layers.LayerNormalization()(stem(x)),
    "no rule for Lambda": lambda x: layers.Lambda(
        lambda y: y[..., 4:] - 2.0 * y[..., :4], output_shape=(8, 8, 4), name="twist"
    )(stem(x)),
    "no rule for Decoder": lambda x: twice(Decoder(6, name="decoder"), stem(x, 6), (-2.0, 1.0)),
    "no rule for Centred": lambda x: Centred()(stem(x)),
    "no rule for Standardized": lambda x: Standardized(6, 3, padding="same")(stem(x)),
    "no rule for Masked": lambda x: Masked()(stem(x)),
    "no rule for Penalized": lambda x: Penalized()(stem(x)),
    "no rule for Transposed": lambda x: Transposed()(stem(x)),
    "it reshapes the batch too": lambda x: ops.reshape(ops.reshape(stem(x), (-1, 4, 8, 8)), (-1, 8, 8, 8)),
    "activation of 'stem' mixes": lambda x: stem(x, activation=layers.PReLU(shared_axes=[1, 2])),
    "no rule for Spread": lambda x: Spread()(stem(x)),
    "Roll works along the channel axis": lambda x: ops.roll(stem(x), 3, axis=-1),
    "its mean works along the channel axis": lambda x: ops.mean(stem(x), axis=-1, keepdims=True),
    "divides by channels": lambda x: x[..., :1] / (1.5 + ops.tanh(stem(x))),
    "exponent is not a fixed number above zero": lambda x: ops.power(1.5 + ops.tanh(stem(x)), -1.0),
    "channels along two axes": lambda x: gram(stem(x), conv(x, 6, "b")),
    "its scores are no product of channels": lambda x: attend(
        layers.Attention(score_mode="concat"), stem(x), conv(x, 8, "b")
    ),
    "it has a mask that is computed": lambda x: masked_attention(layers.Reshape((64, 8))(stem(x))),
    "takes single channels": lambda x: ops.expand_dims(ops.unstack(stem(x), axis=-1)[3], -1),
    "every n-th channel of a part": lambda x: stem(x)[..., 1:6:2],
    "activation of 'stem' mixes channels": lambda x: stem(x, activation="softmax"),
}


def gram(x, other):
    return ops.einsum("bijc,bijd->bcd", x, other)[:, None]


def masked_attention(x):
    scores = ops.matmul(x, ops.swapaxes(x, 1, 2))
    return ops.expand_dims(layers.MultiHeadAttention(2, 4)(x, x, attention_mask=ops.greater(scores, 0.0)), 1)


@pytest.mark.parametrize("reason", REASONS)
def test_what_must_stay_says_why(reason):
    model = build(REASONS[reason])
    graph = trace(model)
    frozen = {weight.path: graph.reason(weight) for weight in graph.writers}
    assert reason in frozen["stem"]
    plan = kprune.plan_pruning(model, target_params=0.01, criterion="l1")
    hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
    np.testing.assert_allclose(run(hard, IMAGES), run(soft, IMAGES), rtol=1e-4, atol=1e-5)
    with pytest.raises(kprune.TargetError, match=reason):
        kprune.plan_pruning(model, 0.999)


def test_a_single_channel_that_is_taken_stays():
    graph = trace(build(ROWS["a single channel"]))
    assert np.flatnonzero(~graph.prunable[sets_of(graph, "stem")]).tolist() == [7]


def test_group_normalization_removes_whole_groups():
    small = kprune.prune_model(build(ROWS["group normalization"]), 0.5)
    norm = next(layer for layer in small.layers if isinstance(layer, layers.GroupNormalization))
    assert norm.groups < 4 and norm.gamma.shape == (2 * norm.groups,)


def test_a_layer_made_of_others_comes_back_as_a_model_and_trains():
    model = build(ROWS["a layer made of others"])
    small = kprune.prune_model(model, 0.5)
    block = small.get_layer("block")
    assert isinstance(block, keras.Model) and isinstance(model.get_layer("block"), Block)
    before = keras.ops.convert_to_numpy(block.get_layer(model.get_layer("block").bn.name).moving_mean)
    small.compile("sgd", "mse")
    small.fit(IMAGES, np.zeros((3, 3)), epochs=2, verbose=0)
    assert not np.allclose(before, block.get_layer(model.get_layer("block").bn.name).moving_mean)
    untouched = kprune.prune_model(model, 0.02, limits=kprune.Limits(exclude="block/*"))
    assert isinstance(untouched.get_layer("block"), Block)


def test_opening_a_layer_leaves_no_trace_in_it():
    model = build(ROWS["a layer made of others"])
    inside = list(model.get_layer("block")._flatten_layers(include_self=False))
    before = [len(layer._inbound_nodes) for layer in inside]
    trace(model)
    assert [len(layer._inbound_nodes) for layer in inside] == before


def test_a_layer_called_with_another_number_inside_a_model_is_not_opened():
    decoder, inner_input = Decoder(6, name="decoder"), keras.Input((8, 8, 6))
    inner = keras.Model(inner_input, twice(decoder, inner_input, (1.0,)), name="inner")
    model = build(lambda x: inner(twice(decoder, stem(x, 6), (-2.0,))))
    assert any("no rule for Decoder" in reason for reason in trace(model).barriers.values())
    whole = kprune.apply_plan(model, kprune.plan_rates(model, {"head": 0.0}, criterion="l1"), mode="soft")
    np.testing.assert_allclose(run(whole, IMAGES), run(model, IMAGES), rtol=1e-4, atol=1e-5)


class Sub(keras.Model):
    """A model whose `call` is Keras layers only."""

    def __init__(self):
        super().__init__()
        self.first = layers.Conv2D(8, 3, name="stem")
        self.bn = layers.BatchNormalization()
        self.second = layers.Conv2D(4, 3, name="second")

    def call(self, x, training=None):
        return self.second(ops.relu(self.bn(self.first(x), training=training)))


def test_a_subclassed_model_of_keras_layers_is_traced_from_its_input_shape():
    model = Sub()
    expected = run(model, IMAGES)
    plan = kprune.plan_pruning(settle(model), 0.5)
    hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
    np.testing.assert_allclose(run(hard, IMAGES), run(soft, IMAGES), rtol=1e-4, atol=1e-5)
    assert plan.flops[1] <= 0.5 * plan.flops[0] and expected.size == run(hard, IMAGES).size


class Branching(Sub):
    def call(self, x, training=None):
        x = self.first(x)
        return self.second(self.bn(x) if training else x)


def test_a_subclassed_model_that_does_something_else_in_training_is_refused():
    model = Branching()
    model(IMAGES, training=True)
    with pytest.raises(kprune.ModelError, match="subclassed.*Fix"):
        kprune.prune_model(model, 0.5)


def test_a_nested_model_takes_what_is_left_of_its_input():
    inputs = keras.Input((8, 8, 3))
    inner_input = keras.Input((8, 8, 6))
    inner = keras.Model(inner_input, conv(layers.ReLU()(inner_input), 4, "inner"), name="inside")
    model = settle(keras.Model(inputs, conv(inner(conv(inputs, 6, "stem")), 3, "last")))
    small = kprune.prune_model(model, 0.6, criterion="l1")
    assert small.get_layer("inside").input.shape[-1] == small.get_layer("stem").filters < 6
    soft = kprune.prune_model(model, 0.6, criterion="l1", mode="soft")
    np.testing.assert_allclose(run(small, IMAGES), run(soft, IMAGES), rtol=1e-4, atol=1e-5)


def siamese():
    """One tower on two inputs, given as a dictionary; two outputs in another."""
    tower_input = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(conv(tower_input, 8, "tower_conv", activation="relu"))
    tower = keras.Model(tower_input, layers.Dense(6, name="embed")(layers.GlobalMaxPooling2D()(x)), name="tower")
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    one, other = tower(left), tower(right)
    outputs = {"distance": layers.Dot(1)([one, other]), "kind": layers.Dense(3, name="kind")(one - other)}
    return settle(keras.Model({"left": left, "right": right}, outputs))


def test_a_siamese_model_of_dictionaries_keeps_its_shape():
    model, pair = siamese(), {"left": IMAGES, "right": IMAGES[::-1].copy()}
    plan = kprune.plan_pruning(model, 0.5)
    hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
    one, other = hard(pair), soft(pair)
    assert set(one) == {"distance", "kind"} and set(hard.input) == {"left", "right"}
    for name in one:
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (one[name], other[name])), rtol=1e-4, atol=1e-5)
    assert all(entry.rate > 0 for entry in plan.layers if entry.path != "kind")
    assert isinstance(hard.get_layer("tower"), keras.Model)


def test_an_operation_that_cannot_be_made_again_is_named():
    class Broken(layers.Layer):
        def __init__(self, thing):
            super().__init__(name="broken")

        def call(self, x):
            return x

    inputs = keras.Input((8, 8, 3))
    x = conv(conv(Broken(object())(inputs), 6, "a"), 4, "b")
    model = keras.Model(inputs, x)
    with pytest.raises(kprune.ModelError, match="'broken'.*get_config"):
        kprune.prune_model(settle(model), target_params=0.01)
