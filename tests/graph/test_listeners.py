"""Whatever an operation does with a channel, it listens to it: structures in which no weight and no sum does."""

import keras
import numpy as np
import pytest
from models import run
from random_models import randomize

import kprune
from kprune.criteria.statistics.contributions import contributions, listeners
from kprune.graph import trace
from kprune.graph.interpreter import execute, tensors_given

layers, ops = keras.layers, keras.ops


def conv(x, filters, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", **options)(x)


def gate_per_place(x):
    """One number per place, from hidden layers of its own."""
    hidden = conv(x, 7, 1, activation="relu", name="hidden")
    return layers.Multiply()([x, conv(hidden, 1, 1, activation="sigmoid")])


def gate_per_image(x):
    """One number per image."""
    hidden = layers.Dense(6, activation="relu", name="hidden")(layers.GlobalAveragePooling2D()(x))
    return x * layers.Reshape((1, 1, 1))(layers.Dense(1, activation="sigmoid")(hidden))


def gate_at_half_size(x):
    hidden = conv(layers.AveragePooling2D(2)(x), 6, activation="relu", name="hidden")
    return x * layers.UpSampling2D(2)(conv(hidden, 1, activation="sigmoid"))


def selective_kernels(x):
    """Two branches weighed by a softmax over the branches, from a squeezed sum."""
    one, two = conv(x, 6, activation="relu"), conv(x, 6, 5, activation="relu")
    squeezed = layers.Dense(4, activation="relu", name="hidden")(layers.GlobalAveragePooling2D()(one + two))
    both = ops.stack([layers.Dense(6)(squeezed), layers.Dense(6)(squeezed)], axis=1)
    weights = ops.softmax(both, axis=1)
    first, second = (layers.Reshape((1, 1, 6))(weights[:, place]) for place in range(2))
    return one * first + two * second


def selective_branches(x):
    """The same with one number per branch."""
    one, two = conv(x, 6, activation="relu"), conv(x, 6, 5, activation="relu")
    squeezed = layers.Dense(5, activation="relu", name="hidden")(layers.GlobalAveragePooling2D()(one + two))
    weights = ops.softmax(layers.Dense(2)(squeezed), axis=-1)
    return one * weights[:, None, None, :1] + two * weights[:, None, None, 1:]


def masked_by_where(x):
    hidden = conv(x, 6, activation="relu", name="hidden")
    return ops.where(ops.greater(conv(hidden, 1), 0.1), x, 0.5 * x)


def mask_per_channel(x):
    """A mask with a channel for each: tied to what it masks, and live by itself."""
    hidden = conv(x, 7, activation="relu", name="hidden")
    return ops.where(conv(hidden, x.shape[-1]) > 0.0, x, ops.zeros_like(x))


def divided(x):
    """By a number for each place, never zero."""
    hidden = conv(x, 6, activation="relu", name="hidden")
    return ops.divide(x, 1.0 + ops.square(conv(hidden, 1)))


def largest(x):
    """The larger of a map and one number for each place."""
    hidden = conv(x, 6, activation="relu", name="hidden")
    return ops.maximum(x, conv(hidden, 1))


def attention_pooling(x):
    """A softmax over places weighs the places."""
    hidden = conv(x, 6, activation="tanh", name="hidden")
    weights = ops.softmax(layers.Reshape((64, 1))(conv(hidden, 1)), axis=1)
    pooled = ops.sum(layers.Reshape((64, x.shape[-1]))(x) * weights, axis=1)
    return layers.Reshape((1, 1, x.shape[-1]))(pooled)


def self_attention(x):
    query, key, value = (layers.Reshape((64, 6))(conv(x, 6, 1, name=name)) for name in ("hidden", "key", "value"))
    scores = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 2, 1))), axis=-1)
    return layers.Reshape((8, 8, 6))(ops.matmul(scores, value))


def attention_of_one_map(x):
    """`layers.Attention` of a map to itself: each channel is query, key and value."""
    flat = layers.Reshape((64, x.shape[-1]))(x)
    return layers.Reshape((8, 8, x.shape[-1]))(layers.Attention()([flat, flat]))


def normalized_by_length(x):
    return layers.UnitNormalization()(conv(x, 6, name="hidden"))


def summed_over_places(x):
    """Channels that hold a number once removed pass a sum over places."""
    return layers.Reshape((1, 1, 6))(ops.sum(conv(x, 6, activation="sigmoid", name="hidden"), axis=(1, 2)))


def normalized_over_places(x):
    return layers.UnitNormalization(axis=1)(conv(x, 6, activation="sigmoid", name="hidden"))


def grouped_statistics(x):
    return layers.GroupNormalization(3)(conv(x, 6, name="hidden"))


@keras.saving.register_keras_serializable("kprune_tests")
class Gated(layers.Layer):
    """A layer of the user's own with a gate inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Conv2D(5, 1, activation="relu")
        self.gate = layers.Conv2D(1, 1, activation="sigmoid")

    def build(self, shape):
        self.hidden.build(shape)
        self.gate.build((*shape[:-1], 5))
        self.built = True

    def call(self, x):
        return x * self.gate(self.hidden(x))


def layer_of_ones_own(x):
    return Gated(name="gated")(x)


GATES = [gate_per_place, gate_per_image, gate_at_half_size, selective_kernels, selective_branches, masked_by_where]
OTHERS = [mask_per_channel, divided, largest, attention_pooling, self_attention, attention_of_one_map]
OTHERS += [summed_over_places, normalized_over_places, normalized_by_length, grouped_statistics, layer_of_ones_own]


def network(structure):
    inputs = keras.Input((8, 8, 3))
    x = structure(conv(inputs, 9, activation="relu", name="features"))
    x = layers.GlobalAveragePooling2D()(conv(x, 5, activation="relu"))
    return randomize(keras.Model(inputs, layers.Dense(3)(x)))


def distance(kind):
    """Two images through one branch, and what the two have in common."""
    inner = [layers.Conv2D(6, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(7)]
    branch = keras.Sequential([keras.Input((8, 8, 3)), *inner], name="branch")
    one, two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    first, second = branch(one), branch(two)
    made = {
        "squared": lambda: ops.sum(ops.square(first - second), axis=-1),
        "absolute": lambda: ops.sum(ops.absolute(first - second), axis=-1, keepdims=True),
        "dot": lambda: layers.Dot(axes=1)([first, second]),
        "cosine": lambda: layers.Dot(axes=1, normalize=True)([first, second]),
        "weighed": lambda: layers.Dense(1)(ops.absolute(first - second)),
    }[kind]()
    return randomize(keras.Model([one, two], made))


DISTANCES = ["squared", "absolute", "dot", "cosine", "weighed"]
NETWORKS = {f.__name__: lambda f=f: network(f) for f in GATES + OTHERS}
NETWORKS |= {kind: lambda kind=kind: distance(kind) for kind in DISTANCES}


def images_for(model, count=3):
    rng = np.random.default_rng(0)
    found = [rng.normal(size=(count, *x.shape[1:])).astype("float32") for x in model.inputs]
    return found if len(found) > 1 else found[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_strip_of_a_network_without_zeros_changes_nothing(name):
    model = NETWORKS[name]()
    small = kprune.strip(model)
    assert small.count_params() == model.count_params()
    np.testing.assert_allclose(run(small, images_for(model)), run(model, images_for(model)), rtol=1e-6)


@pytest.mark.parametrize("criterion", ["l1", "random"])
@pytest.mark.parametrize("name", NETWORKS)
def test_stripping_the_masked_network_gives_the_smaller_one(name, criterion):
    model = NETWORKS[name]()
    plan = kprune.plan_pruning(model, 0.3, criterion=criterion)
    hard, soft = (kprune.apply_plan(model, plan, mode) for mode in ("hard", "soft"))
    images, stripped = images_for(model), kprune.strip(soft)
    np.testing.assert_allclose(run(soft, images), run(hard, images), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(run(stripped, images), run(hard, images), rtol=1e-4, atol=1e-6)
    assert kprune.model_cost(stripped).flops <= kprune.model_cost(hard).flops  # what else is dead goes too


@pytest.mark.parametrize("structure", GATES, ids=lambda f: f.__name__)
def test_a_gate_that_nobody_hears_goes_with_all_that_leads_to_it(structure):
    """Deadness is carried back exactly as far as liveness is not."""
    inputs = keras.Input((8, 8, 3))
    dead = structure(conv(inputs, 9, activation="relu", name="features"))
    live, last = conv(inputs, 4, name="live"), layers.Conv2D(2, 1, name="last")
    model = randomize(keras.Model(inputs, last(layers.Concatenate()([live, dead]))))
    kernel, bias = last.get_weights()
    kernel[:, :, 4:] = 0.0
    last.set_weights([kernel, bias])
    small = kprune.strip(model)
    np.testing.assert_allclose(run(small, images_for(model)), run(model, images_for(model)), rtol=1e-5, atol=1e-6)
    assert small.get_layer("features").filters == 1 and small.get_layer("live").filters == 4


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_criterion_leaves_outputs_alive(name):
    """What no weight reads has a price: no set goes first for nothing."""
    model = NETWORKS[name]()
    images = images_for(model, 48)
    small = kprune.prune_model(model, 0.3, data=images)
    found, wanted = run(small, images), run(model, images)
    assert np.isfinite(found).all() and (found.std(axis=0) > 0.05 * wanted.std(axis=0)).all()


def seen_at(graph, place, images):
    """The call that makes a tensor, as it runs on images: call, operation, (args, kwargs), output."""
    found = []

    def apply(call, operation, args, kwargs):
        output = operation(*args, **kwargs)
        if call.outputs[0] == place:
            found.append((call, operation, (args, kwargs), output))
        return output

    execute(graph, images if isinstance(images, list) else [images], apply)
    return found[0]


def slow_products(graph, sets, call, operation, given):
    """What two sets lose together beyond what each loses alone, halved: over the variance of the output."""
    tensors = [np.asarray(ops.convert_to_numpy(x), float) for x in tensors_given(call, *given)]

    def without(gone):
        masked = (x * ~np.isin(graph.sets.set_of[ids], gone) for x, ids in zip(tensors, call.ids_in, strict=True))

        def at(leaf):
            return ops.convert_to_tensor(next(masked).astype("float32")) if ops.is_tensor(leaf) else leaf

        args, kwargs = keras.tree.map_structure(at, given)
        made = np.asarray(ops.convert_to_numpy(operation(*args, **kwargs)), float)
        return made if made.ndim > 1 else made[:, None]

    whole = without([])
    lost = {(s, t): np.square(whole - without([s, t])).sum() for s in sets for t in sets}
    scale = whole.reshape(-1, whole.shape[-1]).var(axis=0).sum() * whole.size / whole.shape[-1]
    pairs = [[(lost[s, t] - lost[s, s] - lost[t, t]) / 2 if s != t else lost[s, s] for t in sets] for s in sets]
    return np.array(pairs) / scale


@pytest.mark.parametrize("name", ["squared", "absolute", "dot", "self_attention"])
def test_what_sums_and_products_lose_is_what_ablation_says(name):
    model = NETWORKS[name]()
    graph, images = trace(model), images_for(model, 5)
    place, sets = next((place, sets) for place, sets in listeners(graph).items() if len(sets) > 1)
    call, operation, given, output = seen_at(graph, place, images)
    found = contributions(graph, call, operation, given, output)
    expected = slow_products(graph, sets.tolist(), call, operation, given)
    np.testing.assert_array_equal(found.sets, sets)
    np.testing.assert_allclose(found.products, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_costs_without_some_add_up_to_the_loss_of_all():
    model = NETWORKS["dot"]()
    graph = trace(model)
    place, sets = next(iter(listeners(graph).items()))
    found = contributions(graph, *seen_at(graph, place, images_for(model, 5)))
    keep = np.ones(len(graph.sets), dtype=bool)
    keep[sets[:2]] = False
    added = found.products[:2, :2].sum() + found.without(keep).costs()[1][0]
    np.testing.assert_allclose(added, found.products[:3, :3].sum(), rtol=1e-6)
