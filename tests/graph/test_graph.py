"""What the traced graph says of each structure, and that masked equals removed on it."""

import keras
import numpy as np
import pytest
from independent_cost import count_flops
from models import (
    STRUCTURES,
    build,
    chain,
    conv,
    dense_block,
    grouped,
    inverted_residual,
    nested,
    option_a,
    residual,
    run,
    sets_of,
    split_and_shuffle,
    squeeze_excite,
    transposed,
)
from random_models import randomize

import kprune
from kprune.graph import trace

layers, ops = keras.layers, keras.ops


@pytest.fixture(params=STRUCTURES, ids=lambda f: f.__name__)
def model(request):
    return build(request.param)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize("target", [0.2, 0.6])
def test_masked_equals_removed(model, images, target):
    plan = kprune.plan_pruning(model, target)
    hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
    np.testing.assert_allclose(run(hard, images), run(soft, images), rtol=1e-4, atol=1e-5)
    assert plan.flops[1] <= (1 - target) * plan.flops[0]


def test_cost_of_the_small_model_is_what_the_plan_promised(model):
    plan = kprune.plan_pruning(model, 0.5)
    small = kprune.apply_plan(model, plan)
    cost = kprune.model_cost(small)
    assert (cost.flops, cost.params) == (plan.flops[1], plan.params[1])
    assert small.count_params() == plan.params[1]


def test_an_empty_plan_changes_nothing(model, images):
    plan = kprune.plan_pruning(model, 0.5)
    everything = kprune.Plan(
        tuple(kprune.selection.plan.LayerPlan(e.path, e.filters, tuple(range(e.filters))) for e in plan.layers)
    )
    same = kprune.apply_plan(model, everything)
    np.testing.assert_array_equal(run(same, images), run(model, images))
    assert [layer.name for layer in same.layers] == [layer.name for layer in model.layers]
    assert same.input.name == model.input.name


def test_flops_are_those_of_the_weights_and_shapes(images):
    for structure in (chain, residual, inverted_residual, dense_block, squeeze_excite, grouped, option_a, transposed):
        model = build(structure)
        assert kprune.model_cost(model).flops == count_flops(model)


def test_additions_tie_the_channels_of_a_stream():
    graph = trace(build(residual))
    np.testing.assert_array_equal(sets_of(graph, "stem"), sets_of(graph, "end"))
    assert not set(sets_of(graph, "middle")) & set(sets_of(graph, "stem"))


def test_grouped_conv_ties_the_same_place_of_every_group():
    graph = trace(build(grouped))
    assert len(set(sets_of(graph, "a"))) == 2 and len(set(sets_of(graph, "b"))) == 3


def test_option_a_ties_the_middle_channels_and_leaves_the_padding_to_the_conv():
    graph = trace(build(option_a))
    np.testing.assert_array_equal(sets_of(graph, "b")[2:6], sets_of(graph, "a"))


def test_channel_shuffle_ties_what_one_slice_of_the_grid_holds():
    graph = trace(build(split_and_shuffle))
    np.testing.assert_array_equal(sets_of(graph, "a")[:4], sets_of(graph, "b"))


def test_nested_models_come_back_nested():
    small = kprune.prune_model(build(nested), 0.4)
    assert isinstance(small.get_layer("inside"), keras.Model)


def test_every_unprunable_layer_has_a_reason():
    plan = kprune.plan_pruning(build(residual), 0.3)
    assert [e.reason for e in plan.layers if e.path == "logits"] == ["it is a model output"]


class Mystery(layers.Layer):
    def call(self, x):
        return x + ops.mean(x, axis=-1, keepdims=True)


def test_an_unknown_layer_freezes_what_enters_it_and_says_so(images):
    inputs = keras.Input((8, 8, 3))
    x = Mystery(name="mystery")(conv(inputs, 8, "before"))
    model = keras.Model(inputs, conv(conv(x, 8, "after"), 4, "last"))
    plan = kprune.plan_pruning(model, 0.3)
    before, after = plan.layers[0], plan.layers[1]
    assert before.reason == "'mystery' is a barrier: kprune has no rule for Mystery" and len(before.keep) == 8
    assert len(after.keep) < 8
    with pytest.raises(kprune.ModelError, match="mystery"):
        kprune.plan_pruning(model, 0.3, strict=True)


class Doubled(layers.Layer):
    def call(self, x):
        return 2 * x


def test_a_users_rule_lets_channels_pass(images):
    @kprune.register_rule(Doubled)
    class DoubledRule(kprune.Rule):
        pass

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, conv(Doubled()(conv(inputs, 8, "a")), 4, "b"))
    plan = kprune.plan_pruning(model, 0.5)
    soft = kprune.apply_plan(model, plan, mode="soft")
    np.testing.assert_allclose(run(kprune.apply_plan(model, plan), images), run(soft, images), atol=1e-5)
    assert plan.layers[0].rate > 0.4


def test_softmax_over_channels_is_a_barrier_and_over_places_is_none():
    inputs = keras.Input((8, 8, 3))
    x = layers.Softmax(axis=(1, 2), name="places")(conv(inputs, 8, "a"))
    x = layers.Softmax(axis=-1, name="channels")(conv(x, 8, "b"))
    graph = trace(keras.Model(inputs, conv(x, 4, "c")))
    assert list(graph.barriers) == ["channels"]


def test_sequential_models_come_back_sequential(images):
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(8, 3, name="a"), layers.BatchNormalization()])
    model.add(layers.Conv2D(4, 3, name="b"))
    plan = kprune.plan_pruning(model, 0.4)
    small, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
    assert isinstance(small, keras.Sequential) and small.name == model.name
    np.testing.assert_allclose(run(small, images), run(soft, images), atol=1e-5)


@pytest.mark.parametrize("axis", [1, -1])
def test_concatenation_along_any_axis(images, axis):
    inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate(axis=axis)([conv(inputs, 6, "a"), conv(inputs, 6, "b")])
    model = randomize(keras.Model(inputs, conv(x, 4, "c")))
    plan = kprune.plan_pruning(model, 0.4)
    hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
    np.testing.assert_allclose(run(hard, images), run(soft, images), atol=1e-5)
    assert (plan.layers[0].keep == plan.layers[1].keep) == (axis == 1)


def in_format(data_format):
    """The same network, with the same weights, in either data format (pooled, so that the dense weights agree)."""
    first = data_format == "channels_first"
    inputs = keras.Input((3, 8, 8) if first else (8, 8, 3))
    x = conv(inputs, 8, "a", data_format=data_format)
    x = layers.BatchNormalization(axis=1 if first else -1)(x)
    x = layers.MaxPooling2D(2, data_format=data_format)(layers.Activation("sigmoid")(x))
    x = conv(layers.ZeroPadding2D(1, data_format=data_format)(x), 6, "b", data_format=data_format)
    return randomize(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D(data_format=data_format)(x))))


def test_channels_first_gives_the_plan_of_channels_last():
    first, last = (kprune.plan_pruning(in_format(f), 0.5) for f in ("channels_first", "channels_last"))
    assert [e.keep for e in first.layers] == [e.keep for e in last.layers] and first.flops == last.flops


def test_channels_first_slices_the_weights_of_channels_last():
    models = [in_format(f) for f in ("channels_first", "channels_last")]
    first, last = (kprune.prune_model(model, 0.5).get_weights() for model in models)
    for one, other in zip(first, last, strict=True):
        np.testing.assert_array_equal(one, other)


def test_flatten_of_channels_first_puts_channels_last():
    inputs = keras.Input((3, 8, 8))
    x = layers.Flatten(data_format="channels_first")(conv(inputs, 4, "a", data_format="channels_first"))
    graph = trace(keras.Model(inputs, layers.Dense(3, name="dense")(x)))
    dense = next(w for w in graph.readers if w.path == "dense")
    np.testing.assert_array_equal(dense.axes[0], np.tile(sets_of(graph, "a"), 64))


def test_subclassed_and_unbuilt_models_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(kprune.ModelError, match="subclassed.*Fix"):
        kprune.prune_model(Own(), 0.5)
    with pytest.raises(kprune.ModelError, match="not built"):
        kprune.prune_model(keras.Sequential([layers.Dense(3)]), 0.5)
