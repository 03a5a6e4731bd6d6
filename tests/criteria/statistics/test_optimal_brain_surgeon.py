"""The cost of doing without a channel is the least error of all networks that do."""

import keras
import numpy as np
import pytest
from models import STRUCTURES, build, residual, run
from slow_elimination import build_network, choose

import kprune
from kprune.criteria.statistics.normal_equations import RIDGE
from kprune.criteria.statistics.optimal_brain_surgeon import Quadratic, inverse, quadratics
from kprune.graph import trace

layers = keras.layers


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(64, 8, 8, 3)).astype("float32")


def example(sets, filters=3, seed=0):
    """A quadratic with its covariance."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(60, len(sets))) @ rng.normal(size=(len(sets), len(sets)))
    weights = rng.normal(size=(len(sets), filters))
    unit, h = inverse(rows.astype("float32"))
    return (
        Quadratic(h, weights.astype("float32") * unit, np.array(sets), np.arange(100, 100 + filters)),
        np.linalg.inv(h) * unit**2,
        weights,
    )


def least_error(covariance, weights, gone):
    """The least `tr((V - W)^T H (V - W))` over all `V` that are zero in the rows `gone`, column by column."""
    total = 0.0
    root = np.linalg.cholesky(covariance).T
    for column in weights.T:
        kept = np.linalg.lstsq(root[:, ~gone], root @ column, rcond=None)[0]
        total += np.square(root[:, ~gone] @ kept - root @ column).sum()
    return total


SETS = {"one feature each": [0, 1, 2, 3], "patches": [0, 1, 2, 0, 1, 2, 0, 1, 2], "of two sizes": [4, 4, 1, 2, 4, 2]}


@pytest.mark.parametrize("sets", SETS.values(), ids=SETS)
def test_costs_are_the_least_errors(sets):
    quadratic, covariance, weights = example(sets)
    unique, costs = quadratic.costs()
    expected = [least_error(covariance, weights, np.array(sets) == s) for s in unique]
    np.testing.assert_allclose(costs, expected, rtol=1e-3)


@pytest.mark.parametrize("sets", SETS.values(), ids=SETS)
def test_costs_add_up_to_the_least_error_without_all_that_went(sets):
    quadratic, covariance, weights = example(sets)
    keep, total = np.ones(200, dtype=bool), 0.0
    for s in np.unique(sets)[:2]:
        unique, costs = quadratic.costs()
        total += costs[unique == s][0]
        keep[s] = False
        quadratic = quadratic.without(keep)
        np.testing.assert_allclose(total, least_error(covariance, weights, ~keep[np.array(sets)]), rtol=1e-3)


def test_filters_that_go_count_no_more():
    quadratic, covariance, weights = example(SETS["patches"])
    keep = np.ones(200, dtype=bool)
    keep[101] = False
    _, costs = quadratic.without(keep).costs()
    np.testing.assert_allclose(
        costs[0], least_error(covariance, weights[:, [0, 2]], np.array(SETS["patches"]) == 0), rtol=1e-3
    )


def test_the_covariance_has_the_ridge_and_no_mean():
    rows = np.random.default_rng(0).normal(3.0, size=(500, 4)).astype("float32")
    expected = np.cov(rows.T, bias=True)
    expected += RIDGE * np.trace(expected) / 4 * np.eye(4)
    unit, found = inverse(rows)
    np.testing.assert_allclose(unit**2 * np.linalg.inv(found), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("factor", [2.0**-70, 2.0**50])
def test_the_unit_of_the_images_does_not_matter(factor, images):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False)(inputs)
    x = layers.Conv2D(5, 3, padding="same", use_bias=False)(layers.ReLU()(x))
    model = keras.Model(inputs, layers.Dense(3, use_bias=False)(layers.GlobalAveragePooling2D()(x)))
    expected, found = (quadratics(trace(model), (x,)) for x in (images, images * np.float32(factor)))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b.costs()[1], a.costs()[1], rtol=1e-4)


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda f: f.__name__)
def test_every_structure_is_pruned_to_the_target(structure, images):
    model = build(structure)
    plan = kprune.plan_pruning(model, 0.4, criterion="reconstruction_error", data=images)
    hard, soft = (kprune.apply_plan(model, plan, mode) for mode in ("hard", "soft"))
    assert plan.flops[1] <= 0.6 * plan.flops[0]
    np.testing.assert_allclose(run(hard, images[:3]), run(soft, images[:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("target", [0.3, 0.5, 0.7])
def test_the_whole_choice_is_that_of_a_slow_one(target, seed):
    model = build_network(seed=seed)
    images = np.random.default_rng(seed + 10).normal(size=(12, 6, 6, 3)).astype("float32")
    plan = kprune.plan_pruning(model, target, data=images)
    sizes = {"stem": 6, "middle": 5}
    gone = {
        (layer.path, index)
        for layer in plan.layers
        if layer.path in sizes
        for index in set(range(sizes[layer.path])) - set(layer.keep)
    }
    assert gone == choose(model, images, target)


def test_the_layout_of_the_images_does_not_matter(images):
    last, first = build_network(), build_network("channels_first")
    first.set_weights(last.get_weights())
    x = images[:, :6, :6]
    turned = np.moveaxis(x, -1, 1)
    for one, other in zip(quadratics(trace(last), (x,)), quadratics(trace(first), (turned,)), strict=True):
        np.testing.assert_allclose(other.costs()[1], one.costs()[1], rtol=1e-4)


def test_twins_go_first(images):
    inputs = keras.Input((8, 8, 3))
    first = layers.Conv2D(8, 3, padding="same", name="first")
    x = layers.Conv2D(5, 3, padding="same", name="second")(layers.ReLU()(first(inputs)))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    kernel, bias = (np.array(w) for w in first.get_weights())
    kernel[..., 4:6] = kernel[..., :2]
    first.set_weights([kernel, bias])
    limits = kprune.Limits(include="first", min_channels=6)
    plan = kprune.plan_pruning(model, 0.2, criterion="reconstruction_error", data=images, limits=limits)
    gone = set(range(8)) - set(plan.layers[0].keep)
    assert len(gone & {0, 4}) == 1 and len(gone & {1, 5}) == 1


def test_a_reader_that_is_no_matrix_product_is_judged_by_its_weights(images):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="conv")(inputs)

    class Doubled(layers.Conv2D):
        def call(self, x):
            return super().call(x)

    kprune.register_rule(Doubled)(type(kprune.rules.find_rule(layers.Conv2D(1, 1))))
    reader = Doubled(4, 1, name="reader")
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(reader(x)))
    kernel = np.ones((1, 1, 6, 4), "float32")
    kernel[:, :, 2] = 0.01
    reader.set_weights([kernel, np.zeros(4)])
    quadratic = quadratics(trace(model), (images,))[-1]
    assert quadratic.costs()[1].argmin() == 2


def test_it_needs_data():
    with pytest.raises(kprune.OptionError, match="data is None"):
        kprune.plan_pruning(build(residual), 0.4, criterion="reconstruction_error")
