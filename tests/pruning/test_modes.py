"""Every criterion in every mode: what the plan says, what the logs say and what is removed are one and the same."""

import keras
import numpy as np
import pytest
from independent_cost import count_flops
from models import conv, dense_block, run
from random_models import randomize

import kprune
from kprune.criteria.base import criteria

layers = keras.layers
TARGET = 0.4
NAMES = criteria.names()  # a new criterion is tested by itself
every_criterion = pytest.mark.parametrize("name", NAMES)


def chain(x):
    """Three convs with BatchNorm."""
    for place, filters in enumerate((8, 12, 10)):
        x = layers.ReLU()(layers.BatchNormalization()(conv(x, filters, f"conv{place}", use_bias=place == 1)))
    return x


def inverted_residuals(x):
    """MobileNetV2: expand, depthwise, project, add; the second block goes on from the stream of the first."""
    x = layers.BatchNormalization()(conv(x, 8, "stem"))
    for name in ("one", "two"):
        y = layers.Conv2D(12, 1, use_bias=False, name=f"{name}_expand")(x)
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(layers.ReLU(6.0)(layers.BatchNormalization()(y)))
        y = layers.Conv2D(8, 1, use_bias=False, name=f"{name}_project")(
            layers.ReLU(6.0)(layers.BatchNormalization()(y))
        )
        x = layers.Add()([x, layers.BatchNormalization()(y)])
    return x


def build(structure):
    """A small network around a structure, compiled."""
    inputs = keras.Input((8, 8, 3))
    outputs = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(structure(inputs)))
    model = randomize(keras.Model(inputs, outputs))
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, metrics=["accuracy"], run_eagerly=True)
    return model


@pytest.fixture
def model():
    return build(chain)


@pytest.fixture(params=[dense_block, inverted_residuals], ids=lambda f: f.__name__)
def coupled(request):
    return build(request.param)


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(24, 8, 8, 3)).astype("float32"), np.arange(24) % 3


def train(model, data, epochs=1, callbacks=()):
    """Epochs of one step each; gives the history."""
    return model.fit(*data, epochs=epochs, batch_size=24, verbose=0, callbacks=list(callbacks)).history


def assert_same_function(first, second, images):
    one, other = (run(model, images) for model in (first, second))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def shares(plan):
    """What a plan removes, of 1."""
    return {kind: 1 - after / before for kind, (before, after) in (("flops", plan.flops), ("params", plan.params))}


def assert_costs(plan, model, small):
    """A plan says what the model before and the one after cost, counted without the package."""
    assert plan.flops == (count_flops(model), count_flops(small))
    assert plan.params == (model.count_params(), small.count_params())


@every_criterion
def test_a_plan_applied_hard_is_what_it_is_applied_soft(model, data, name):
    plan = kprune.plan_pruning(model, TARGET, criterion=name, data=data)
    hard, soft = (kprune.apply_plan(model, plan, mode) for mode in ("hard", "soft"))
    assert plan.criterion["name"] == name
    assert TARGET <= shares(plan)["flops"] < TARGET + 0.05
    assert_costs(plan, model, hard)
    assert_same_function(soft, hard, data[0])


def check_rounds(model, data, name):
    """`prune_iteratively`, with training after each round; by similarity as many rounds as it takes."""
    rounds = None if name == "similarity" else 2
    result = kprune.prune_iteratively(
        model, lambda small: train(small, data), TARGET, criterion=name, rounds=rounds, data=data, verbose=False
    )
    removed, history = shares(result.plan), result.record.history
    assert result.plan.criterion["name"] == name and removed["flops"] >= TARGET
    assert rounds in (None, len(result.record)) and None not in history["accuracy"]
    assert (history["pruned_flops"][-1], history["pruned_params"][-1]) == (removed["flops"], removed["params"])
    assert_costs(result.plan, model, result.model)
    stripped = kprune.strip(result.model)
    assert_costs(result.plan, model, stripped)  # of what was kept nothing is silent
    assert_same_function(result.model, stripped, data[0])


@every_criterion
def test_rounds_with_training_between_them(model, data, name):
    check_rounds(model, data, name)


SIMILARITY = {"flops": {"target_flops": TARGET}, "params": {"target_params": TARGET}}
SCORES = {
    "flops": {"target_flops": TARGET},
    "channels": {"channels_per_round": 4},
    "regrow": {"target_params": TARGET, "regrow": True},
}
CALLBACKS = [(name, mode) for name in NAMES for mode in (SIMILARITY if name == "similarity" else SCORES)]


def check_callback(model, data, name, mode, rounds=2):
    """A callback in a `fit` of one epoch more than it has rounds."""
    options = (SIMILARITY if name == "similarity" else SCORES)[mode] | {"until_epoch": rounds}
    by_sets = name == "similarity"  # it chooses sets of filters, and has a callback of its own
    callback = kprune.SimilarityPruning(**options) if by_sets else kprune.GradualPruning(name, data=data, **options)
    history = train(model, data, rounds + 1, [callback])
    small, plan, removed = kprune.strip(model), callback.plan, shares(callback.plan)
    assert plan.criterion["name"] == name
    for kind, target in plan.target.items():
        gone = sum(entry.filters - len(entry.keep) for entry in plan.layers)
        assert gone == target == rounds * 4 if kind == "channels" else removed[kind] >= target == TARGET
    for kind, share in removed.items():
        logged = history[f"pruned_{kind}"]
        assert logged[0] == 0 and (logged[1] > 0) == (mode != "regrow")  # what may grow back is not pruned yet
        assert logged[-1] == pytest.approx(share, abs=1e-12)
    assert_costs(plan, model, small)
    assert_same_function(model, small, data[0])


@pytest.mark.parametrize(("name", "mode"), CALLBACKS)
def test_while_training(model, data, name, mode):
    check_callback(model, data, name, mode)


@pytest.mark.parametrize("mode", SIMILARITY)
def test_similarity_while_training_where_layers_share_channels(coupled, data, mode):
    check_callback(coupled, data, "similarity", mode)


def test_rounds_of_similarity_where_layers_share_channels(coupled, data):
    check_rounds(coupled, data, "similarity")
