"""Relevance propagation against a slow transcription, and its conservation where the rule promises it."""

import keras
import numpy as np
import pytest
import slow_relevance as slow
from random_models import randomize

import kprune
from kprune.criteria.statistics.relevance_propagation import Propagation
from kprune.criteria.statistics.tape import Tape
from kprune.graph import trace

layers, ops = keras.layers, keras.ops
to_numpy = keras.ops.convert_to_numpy

LINEAR = {
    "dense": ((5,), lambda: layers.Dense(4, use_bias=False)),
    "dense_on_sequence": ((3, 5), lambda: layers.Dense(4, use_bias=False)),
    "conv1d": ((6, 3), lambda: layers.Conv1D(4, 3, strides=2, use_bias=False)),
    "causal": ((6, 3), lambda: layers.Conv1D(4, 3, padding="causal", use_bias=False)),
    "conv2d": ((4, 5, 3), lambda: layers.Conv2D(4, 3, padding="same", strides=2, use_bias=False)),
    "dilated": ((6, 6, 2), lambda: layers.Conv2D(3, 3, dilation_rate=2, use_bias=False)),
    "grouped": ((3, 3, 4), lambda: layers.Conv2D(6, 3, padding="same", groups=2, use_bias=False)),
    "conv3d": ((3, 3, 3, 2), lambda: layers.Conv3D(3, 2, use_bias=False)),
    "depthwise": ((4, 4, 3), lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)),
    "depthwise1d": ((5, 3), lambda: layers.DepthwiseConv1D(3, padding="same", use_bias=False)),
    "transposed": ((3, 3, 3), lambda: layers.Conv2DTranspose(2, 3, strides=2, padding="same", use_bias=False)),
    "transposed1d": ((4, 3), lambda: layers.Conv1DTranspose(2, 3, strides=2, use_bias=False)),
}


def propagate(model, x, relevance):
    """Relevance of the model's input from that of its output."""
    graph = trace(model)
    tape = Tape(graph, [x], set(), record=True)
    start = graph.calls[0].inputs[0]
    return to_numpy(tape.walk_back([ops.convert_to_tensor(relevance)], Propagation(), {start})[start])


def model_of(shape, build):
    inputs = keras.Input(shape)
    return randomize(keras.Model(inputs, build(inputs)))


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("signed", [False, True])
def test_the_alpha_beta_rule_equals_the_slow_transcription(name, signed):
    shape, make = LINEAR[name]
    rng = np.random.default_rng(0)
    model = model_of(shape, make())
    x = rng.normal(size=(1, *shape)).astype("float32")
    x = x if signed else np.abs(x)
    relevance = rng.normal(size=model(x).shape).astype("float32")
    matrix = slow.matrix_of(lambda unit: to_numpy(model(unit)), shape)
    expected = slow.linear(x.ravel(), matrix, relevance.ravel()).reshape(x.shape)
    np.testing.assert_allclose(propagate(model, x, relevance), expected, rtol=2e-3, atol=1e-4)


def test_bias_and_activation_take_no_part():
    x = np.abs(np.random.default_rng(0).normal(size=(2, 4, 4, 3))).astype("float32")
    plain = model_of((4, 4, 3), layers.Conv2D(4, 3, use_bias=False, name="c"))
    rich = model_of((4, 4, 3), layers.Conv2D(4, 3, activation="sigmoid", name="c"))
    rich.get_layer("c").kernel.assign(plain.get_layer("c").kernel)
    start = np.ones(plain(x).shape, dtype="float32")
    np.testing.assert_allclose(propagate(rich, x, start), propagate(plain, x, start), rtol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_separable_conv_is_its_depthwise_and_its_pointwise_step(dimensions):
    shape = (5,) * dimensions + (3,)
    separable = getattr(layers, f"SeparableConv{dimensions}D")(4, 3, depth_multiplier=2, strides=2, padding="same")
    depthwise = getattr(layers, f"DepthwiseConv{dimensions}D")(3, 2, "same", depth_multiplier=2, use_bias=False)
    pointwise = getattr(layers, f"Conv{dimensions}D")(4, 1)
    one, two = model_of(shape, separable), model_of(shape, lambda x: pointwise(depthwise(x)))
    separable.set_weights([*depthwise.get_weights(), *pointwise.get_weights()])
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    start = np.ones(one(x).shape, dtype="float32")
    np.testing.assert_allclose(propagate(one, x, start), propagate(two, x, start), rtol=1e-4, atol=1e-5)


CONSERVING = {
    "conv": lambda x: layers.Conv2D(6, 3, padding="same", use_bias=False)(x),
    "separable": lambda x: layers.SeparableConv2D(6, 5, depth_multiplier=8, use_bias=False)(x),
    "batch_normalization": lambda x: layers.BatchNormalization()(x),
    "activation": lambda x: layers.Activation("gelu")(x),
    "prelu": lambda x: layers.PReLU()(x),
    "dropout": lambda x: layers.SpatialDropout2D(0.5)(x),
    "max_pooling": lambda x: layers.MaxPooling2D(2)(x),
    "average_pooling": lambda x: layers.AveragePooling2D(3, strides=1, padding="same")(x),
    "global_pooling": lambda x: layers.GlobalAveragePooling2D(keepdims=True)(x),
    "global_max": lambda x: layers.GlobalMaxPooling2D(keepdims=True)(x),
    "addition": lambda x: layers.Add()([x, layers.Conv2D(4, 3, padding="same", use_bias=False)(x)]),
    "bare_addition": lambda x: x + ops.abs(x),
    "subtraction": lambda x: layers.Subtract()([x, layers.Permute((2, 1, 3))(x)]),
    "average": lambda x: layers.Average()([x, layers.ReLU()(x)]),
    "maximum": lambda x: layers.Maximum()([x, layers.Permute((2, 1, 3))(x)]),
    "multiplication": lambda x: layers.Multiply()([x, layers.Activation("sigmoid")(x)]),
    "gate": lambda x: x * layers.GlobalAveragePooling2D(keepdims=True)(x),
    "square": lambda x: x * x,
    "doubling": lambda x: layers.Add()([x, x]),
    "concatenation": lambda x: layers.Concatenate()([x, layers.ReLU()(x)]),
    "reshape": lambda x: layers.Reshape((12, 12))(x),
    "permute": lambda x: layers.Permute((3, 1, 2))(x),
    "zero_padding": lambda x: layers.ZeroPadding2D(2)(x),
    "up_sampling": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "option_a": lambda x: ops.pad(x, [[0, 0], [0, 0], [0, 0], [2, 2]]),
    "fork_and_slice": lambda x: layers.Concatenate()([x[..., :2], x[..., 2:]]),
    "unknown": lambda x: ops.cumsum(x, axis=1),
}


@pytest.mark.parametrize("name", CONSERVING)
def test_relevance_is_kept(name):
    model = model_of((6, 6, 4), lambda x: layers.Dense(3, use_bias=False)(layers.Flatten()(CONSERVING[name](x))))
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 4)).astype("float32")
    found = propagate(model, x, np.eye(3, dtype="float32")[[0, 2]])
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), 1.0, atol=5e-3)


def test_whole_numbers_end_the_walk():
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Conv1D(3, 2, use_bias=False, name="c")(layers.Embedding(5, 6)(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling1D()(x))))
    data = np.random.default_rng(0).integers(0, 5, (8, 4)), np.arange(8) % 2
    plan = kprune.plan_pruning(model, 0.2, criterion="relevance", data=data)
    assert plan.flops[1] < plan.flops[0]


def residual_network():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    x = layers.ReLU(name="a_relu")(layers.BatchNormalization()(x))
    pooled = layers.MaxPooling2D(2, name="pool")(x)
    y = layers.BatchNormalization(name="b_bn")(layers.Conv2D(4, 3, padding="same", use_bias=False, name="b")(pooled))
    x = layers.ReLU(name="b_relu")(layers.Add()([pooled, y]))
    x = layers.Dense(3, activation="softmax", name="logits")(layers.GlobalAveragePooling2D(name="gap")(x))
    return randomize(keras.Model(inputs, x), seed=4)


def slow_scores(model, images, labels):
    """The scores of the four channels of `residual_network`, step by step."""
    names = ("a_relu", "pool", "b_bn", "b_relu", "gap")
    maps = keras.Model(model.input, [model.get_layer(n).output for n in names] + [model.output])(images)
    a_relu, pool, b_bn, b_relu, gap, output = (to_numpy(m).astype(float) for m in maps)
    logits = to_numpy(model.get_layer("logits").kernel).T
    middle = slow.conv_matrix(to_numpy(model.get_layer("b").kernel), 2)
    seen = {"a": [], "b": []}
    for n, label in enumerate(labels):
        r_gap = slow.linear(gap[n], logits, np.eye(3)[label])
        r_b = b_relu[n] * (r_gap / (b_relu[n].sum(axis=(0, 1)) + 1e-30))  # shared as the values share the mean
        total = pool[n] + b_bn[n]
        r_conv = slow.linear(pool[n].ravel(), middle, (r_b * b_bn[n] / total).ravel()).reshape(2, 2, 4)
        seen["a"].append(slow.max_pool(a_relu[n], r_b * pool[n] / total + r_conv).mean(axis=(0, 1)))
        seen["b"].append(r_b.mean(axis=(0, 1)))
    correct = output.argmax(axis=1) == labels
    accuracy = {c: correct[labels == c].mean() for c in range(3)}
    result = np.zeros(4)
    for layer in seen.values():
        score = np.zeros(4)
        for c in range(3):
            ratio = max(accuracy.values()) / accuracy[c] if accuracy[c] else np.inf
            score += np.mean([r for r, k in zip(layer, labels, strict=True) if k == c], axis=0) / (1 + np.exp(-ratio))
        score = np.abs(score / 3)
        result += score / np.sqrt((score**2).sum()) / 2
    return result


@pytest.mark.parametrize("one_hot", [False, True])
def test_scores_of_a_network_equal_the_slow_transcription(one_hot):
    rng = np.random.default_rng(0)
    model, images, labels = residual_network(), rng.normal(size=(9, 4, 4, 2)).astype("float32"), np.arange(9) % 3
    graph = trace(model)
    criterion = kprune.criteria.FeatureRelevance()
    data = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    data = [(x, np.eye(3)[y]) for x, y in data] if one_hot else data
    statistics = kprune.criteria.collect(graph, data, criterion.needs, verbose=0)
    scores = criterion.scores(graph, np.ones(len(graph.sets), dtype=bool), statistics)
    np.testing.assert_allclose(scores[graph.prunable], slow_scores(model, images, labels), rtol=2e-3)


def test_harder_classes_weigh_more():
    sums = {
        "relevance": np.array([[8.0, 0.0], [0.0, 8.0], [0.0, 0.0]]),
        "examples": np.array([8.0, 8.0, 0.0]),  # the third class is not in the data
        "correct": np.array([8.0, 2.0, 0.0]),
    }
    easy, hard = kprune.criteria.FeatureRelevance().channel_scores(sums)
    assert easy == pytest.approx(0.5 / (1 + np.exp(-1))) and hard == pytest.approx(0.5 / (1 + np.exp(-4)))


@pytest.mark.parametrize("options", [{"alpha": 2.0, "beta": 2.0}, {"alpha": 0.0, "beta": -1.0}, {"ranking": "x"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(kprune.OptionError, match="Expected.*Fix"):
        kprune.criteria.FeatureRelevance(**options)
