"""Every reader with a matrix product inside is repaired, whatever its class, in all its calls; nothing gets worse."""

import keras
import numpy as np
import pytest
from models import run
from random_models import randomize

import kprune
from kprune.criteria.statistics.normal_equations import Fit, Moments
from kprune.criteria.statistics.optimal_brain_surgeon import quadratics
from kprune.graph import trace
from kprune.rules import Rule, Weight
from kprune.rules.linear_maps import DenseMap
from kprune.surgery.least_squares import held_back

layers, ops = keras.layers, keras.ops


@keras.saving.register_keras_serializable("kprune_tests")
class OwnConv(layers.Conv1D):
    """A conv by another name."""


@keras.saving.register_keras_serializable("kprune_tests")
class OwnDense(layers.Dense):
    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable("kprune_tests")
class Mixing(layers.Layer):
    """A layer of the user's own, with other names for its weights."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), name="w")
        self.b = self.add_weight(shape=(self.units,), name="b")

    def call(self, x):
        return ops.sin(ops.matmul(x, self.w) + self.b)

    def get_config(self):
        return super().get_config() | {"units": self.units}


@kprune.register_rule(Mixing)
class MixingRule(Rule):
    def output_ids(self, call, channels):
        return [channels.frozen(len(call.output_shapes[0]), "its units stay")]

    def sliced_weights(self, call):
        return [Weight("w", (call.ids_in[0].reshape(-1), None), float(call.input_shapes[0][1]), reads=0)]

    def linear_maps(self, call):
        return [DenseMap("w", "b", inside=True)]


READERS = {
    "Dense": lambda x: layers.Dense(6)(x),
    "derived Dense": lambda x: OwnDense(6, activation="tanh")(x),
    "derived Conv1D": lambda x: OwnConv(6, 3)(x),
    "registered": lambda x: Mixing(6)(x),
    "TimeDistributed": lambda x: layers.TimeDistributed(layers.Dense(6))(x),
    "LSTM": lambda x: layers.LSTM(6, return_sequences=True)(x),
    "GRU": lambda x: layers.GRU(6, return_sequences=True)(x),
    "GRU, one bias": lambda x: layers.GRU(6, reset_after=False)(x),
    "SimpleRNN": lambda x: layers.SimpleRNN(6)(x),
    "Bidirectional": lambda x: layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x),
    "EinsumDense": lambda x: layers.EinsumDense("abc,cd->abd", (21, 6), bias_axes="d")(x),
    "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 3, output_shape=6)(x, x),
}


def network(reader):
    inputs = keras.Input((21, 8))
    x = layers.Conv1D(32, 3, padding="same", activation="relu", name="pruned")(inputs)
    return randomize(keras.Model(inputs, READERS[reader](x)))


def walks(count, seed=0):
    """Random walks: what one of their channels says, others say in part."""
    return 0.3 * np.cumsum(np.random.default_rng(seed).normal(size=(count, 21, 8)), axis=1).astype("float32")


def error(model, other, images):
    wanted = run(model, images)
    return np.square(run(other, images) - wanted).mean() / wanted.var()


@pytest.mark.parametrize("reader", READERS)
def test_the_reader_is_repaired(reader, caplog):
    model, images, others = network(reader), walks(200), walks(100, seed=1)
    plan = kprune.plan_pruning(model, 0.4, criterion="l1", limits=kprune.Limits(include="pruned"))
    with caplog.at_level("WARNING", "kprune"):
        repaired = kprune.apply_plan(model, plan, data=images)
    assert error(model, repaired, others) < 0.9 * error(model, kprune.apply_plan(model, plan), others)
    assert not caplog.text


@pytest.mark.parametrize("reader", READERS)
def test_a_constant_that_goes_is_made_up_for_by_the_bias(reader):
    """Of channels that always say the same nothing is missed, though no weight can say it."""
    model = network(reader)
    kernel, bias = (np.array(w) for w in model.get_layer("pruned").get_weights())
    kernel[..., :16] *= 1e-3
    bias[:16] = np.linspace(0.3, 0.6, 16)
    model.get_layer("pruned").set_weights([kernel, bias])
    limits, images = kprune.Limits(include="pruned", min_channels=16), walks(200)
    plan = kprune.plan_pruning(model, 0.3, criterion="l1", limits=limits)
    plain, repaired = (error(model, kprune.apply_plan(model, plan, data=data), walks(50, 1)) for data in (None, images))
    assert repaired < 0.05 * plain


@pytest.mark.parametrize("reader", READERS)
def test_the_cost_of_its_channels_comes_from_what_it_sees(reader):
    """A channel that another says as well costs next to nothing, however large its weights."""
    model = network(reader)
    pruned = model.get_layer("pruned")
    kernel, bias = (np.array(w) for w in pruned.get_weights())
    bias += 0.5  # none of them is silent
    kernel[..., 5], bias[5] = kernel[..., 9], bias[9]
    pruned.set_weights([kernel, bias])
    graph = trace(model)
    costs = sum(np.bincount(*q.costs(), minlength=len(graph.sets)) for q in quadratics(graph, (walks(64),)))
    costs = costs[graph.writers[0].axes[-1]]
    assert (costs[[5, 9]] < 0.2 * np.median(costs)).all()


def again():
    """A conv after itself."""
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(9, 3, padding="same", activation="relu", name="shared")
    x = layers.Conv2D(9, 3, padding="same", activation="relu")(inputs)
    x = conv(conv(conv(x)))
    return keras.Model(inputs, layers.Conv2D(4, 1)(x))


def heads():
    """A small head on two scales."""
    inputs = keras.Input((8, 8, 3))
    first, last = layers.Conv2D(9, 3, padding="same", activation="relu", name="shared"), layers.Conv2D(4, 1)
    x = layers.Conv2D(9, 3, padding="same", activation="relu")(inputs)
    low = layers.Conv2D(9, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, [last(first(x)), last(first(low))])


def siamese():
    """Two images through one branch with BatchNorm, shared as well."""
    inner = [keras.Input((8, 8, 3)), layers.Conv2D(9, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    inner += [layers.Conv2D(8, 3, use_bias=False, name="shared"), layers.BatchNormalization(), layers.ReLU()]
    branch = keras.Sequential([*inner, layers.GlobalAveragePooling2D(), layers.Dense(6)], name="branch")
    one, two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    return keras.Model([one, two], layers.Concatenate()([branch(one), branch(two)]))


def norms_of_their_own():
    """A conv without a bias, and another BatchNorm after each of its calls."""
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(9, 3, padding="same", use_bias=False, name="shared")
    x = layers.Conv2D(9, 3, padding="same", activation="relu")(inputs)
    y = layers.ReLU()(layers.BatchNormalization()(conv(x)))
    y = layers.ReLU()(layers.BatchNormalization()(conv(y)))
    return keras.Model(inputs, layers.Conv2D(4, 1)(y))


def pictures(model, count, seed):
    rng = np.random.default_rng(seed)
    found = [rng.normal(0.2, 1.0, size=(count, 8, 8, 3)).astype("float32") for _ in model.inputs]
    return found if len(found) > 1 else found[0]


def flat(model, images):
    return np.concatenate([np.ravel(ops.convert_to_numpy(y)) for y in keras.tree.flatten(model(images))])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("structure", [again, heads, siamese, norms_of_their_own], ids=lambda f: f.__name__)
def test_a_layer_that_is_called_several_times_is_fitted_to_all_its_calls(structure, seed):
    keras.utils.set_random_seed(seed)
    model = structure()
    for layer in model.layers:  # as after training, not so weak that nothing is heard
        layer.set_weights([1.5 * w if w.ndim > 1 else w for w in layer.get_weights()])
    images, others = pictures(model, 128, 1), pictures(model, 64, 2)
    plan = kprune.plan_pruning(model, 0.35, criterion="l1")
    wanted, plain, repaired = (
        flat(m, others) for m in (model, kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, data=images))
    )
    assert np.square(repaired - wanted).sum() < 0.8 * np.square(plain - wanted).sum()


def test_calls_on_one_tensor_are_one_call():
    """A layer that sees the same twice is fitted as if it saw it once."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(32, 8, 8, 3)).astype("float32")  # so few that every place is looked at

    def build(calls):
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(inputs)
        reader = layers.Conv2D(4, 3, padding="same", name="reader")
        made = [reader(x) for _ in range(calls)]
        return randomize(keras.Model(inputs, made[0] if calls == 1 else layers.Average()(made)))

    once, twice = build(1), build(2)
    twice.set_weights(once.get_weights())
    limits = kprune.Limits(include="first")
    small = [kprune.prune_model(m, 0.3, criterion="l1", data=images, limits=limits) for m in (once, twice)]
    one, two = (m.get_layer("reader").get_weights()[0] for m in small)
    np.testing.assert_allclose(two, one, atol=0.02 * np.abs(one).max())


@pytest.mark.parametrize(("count", "held"), [(1, []), (3, [2]), (8, [7]), (20, [7, 15])])
def test_which_images_are_held_back(count, held):
    assert np.flatnonzero(held_back(count)).tolist() == held


def misleading():
    """Images of which those held back look otherwise: what helps the others does harm to them."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(64, 8, 8, 3)).astype("float32")
    images[..., 1] = images[..., 0]
    images[7::8, ..., 1] = -images[7::8, ..., 0]
    return images


def copying(readers=1):
    """Each channel of the first layer is a channel of the image; the readers look at all of them."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 1, name="first", use_bias=False)(inputs)
    outputs = [layers.Conv2D(2, 1, use_bias=False, name=f"reader{n}")(x) for n in range(readers)]
    model = keras.Model(inputs, outputs)
    kernel = np.diag([1.0, 0.5, 1.0]).astype("float32")[None, None]
    model.get_layer("first").set_weights([kernel])
    return model


def test_a_fit_that_makes_it_worse_is_left_out_and_told(caplog):
    model = copying()
    plan = kprune.plan_pruning(model, 0.2, criterion="l1", limits=kprune.Limits(include="first", min_channels=2))
    assert plan.layers[0].keep == (0, 2)
    plain = kprune.apply_plan(model, plan)
    with caplog.at_level("WARNING", "kprune"):
        repaired = kprune.apply_plan(model, plan, data=misleading())
    np.testing.assert_array_equal(*(m.get_layer("reader0").get_weights()[0] for m in (plain, repaired)))
    assert "would be worse: reader0" in caplog.text


def test_a_fit_that_is_no_number_is_left_out(monkeypatch, caplog):
    def broken(self, ridge=0.0):
        groups, features, filters = self.cross.shape
        return Fit(np.full((groups, features, filters), np.nan), np.zeros((groups, filters)))

    monkeypatch.setattr(Moments, "fit", broken)
    model = copying()
    plan = kprune.plan_pruning(model, 0.2, criterion="l1", limits=kprune.Limits(include="first", min_channels=2))
    with caplog.at_level("WARNING", "kprune"):
        small = kprune.apply_plan(model, plan, data=misleading())
    plain = kprune.apply_plan(model, plan)
    np.testing.assert_array_equal(*(m.get_layer("reader0").get_weights()[0] for m in (plain, small)))
    assert "would be worse: reader0" in caplog.text and "nothing was repaired" not in caplog.text


def test_readers_that_nothing_serves_are_a_warning(caplog):
    class Opaque(layers.Dense):
        def call(self, x):
            return super().call(x)

    @kprune.register_rule(Opaque)
    class OpaqueRule(type(kprune.rules.find_rule(layers.Dense(1)))):
        def linear_maps(self, call):
            return []

    inputs = keras.Input((21, 8))
    x = layers.Conv1D(16, 3, activation="relu", name="pruned")(inputs)
    model = keras.Model(inputs, Opaque(3, name="opaque")(x))
    with caplog.at_level("WARNING", "kprune"):
        kprune.prune_model(model, 0.3, data=walks(16), criterion="l1")
    assert "no matrix product in them: opaque" in caplog.text
