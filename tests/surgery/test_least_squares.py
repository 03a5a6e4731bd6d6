"""Repair by least squares: what a removed channel said is said by the others, as far as they can."""

import keras
import numpy as np
import pytest
from models import STRUCTURES, build, chain, conv, residual, run
from random_models import randomize
from slow_elimination import patches, tensors_of

import kprune
from kprune.criteria.statistics.normal_equations import RIDGE, Moments, Rows, pool, summarize
from kprune.graph import trace
from kprune.surgery import rebuild
from kprune.surgery.least_squares import held_back, repair

layers = keras.layers


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(96, 8, 8, 3)).astype("float32")


def slow_fit(x, e, centred):
    """The fit as one stacked system, the shift as a column of ones that no ridge holds."""
    ridge = np.sqrt(RIDGE * np.square(x - centred * x.mean(axis=0)).sum() / x.shape[1])
    left = np.concatenate(
        [np.c_[x, np.ones(len(x)) * centred], np.c_[ridge * np.eye(x.shape[1]), np.zeros(x.shape[1])]]
    )
    right = np.concatenate([e, np.zeros((x.shape[1], e.shape[1]))])
    found = np.linalg.lstsq(left, right, rcond=None)[0]
    return found[:-1], found[-1]


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("rows", [50, 8], ids=["more rows than features", "dual"])
def test_a_fit_is_what_the_stacked_system_gives(rows, centred):
    rng = np.random.default_rng(0)
    x, e = (rng.normal(0.7, size=s).astype("float32") for s in ((2, rows, 20), (2, rows, 3)))
    found = summarize(x, e)
    assert isinstance(found, Moments if rows == 50 else Rows)
    found = found if centred else found.about_zero()
    fit = found.fit()
    for group in range(2):
        change, shift = slow_fit(x[group].astype(float), e[group].astype(float), centred)
        np.testing.assert_allclose(fit.change[group], change, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(fit.shift[group], shift, rtol=1e-3, atol=1e-4)
    left = e - x @ fit.change.astype("float32") - fit.shift[:, None]
    np.testing.assert_allclose(found.error(fit), np.square(left).sum() / rows, rtol=1e-4)
    np.testing.assert_allclose(found.error(None), np.square(e).sum() / rows, rtol=1e-4)


@pytest.mark.parametrize("sizes", [(50, 30), (8, 9), (50, 8)], ids=["moments", "rows", "one of each"])
def test_parts_that_are_pooled_are_all_rows_together(sizes):
    rng = np.random.default_rng(1)
    x, e = (rng.normal(mean, size=(1, sum(sizes), n)).astype("float32") for mean, n in ((0.5, 12), (-1.0, 3)))
    cut = [slice(0, sizes[0]), slice(sizes[0], None)]
    found, whole = pool([summarize(x[:, s], e[:, s]) for s in cut]).fit(), Moments.of(x, e).fit()
    np.testing.assert_allclose(found.change, whole.change, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.shift, whole.shift, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda f: f.__name__)
def test_repair_brings_the_outputs_nearer_on_images_that_it_did_not_see(structure, images):
    model = build(structure)
    plan = kprune.plan_pruning(model, 0.3, criterion="l1")
    x, held_out = images[:64], images[64:]
    wanted = run(model, held_out)
    errors = [
        np.square(run(m, held_out) - wanted).mean()
        for m in (kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, data=x))
    ]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda f: f.__name__)
def test_repaired_masked_equals_repaired_removed(structure, images):
    model = build(structure)
    before = [value.copy() for value in model.get_weights()]
    hard, soft = (kprune.prune_model(model, 0.4, mode=mode, data=images[:16]) for mode in ("hard", "soft"))
    np.testing.assert_allclose(run(hard, images[:3]), run(soft, images[:3]), rtol=1e-4, atol=1e-5)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_that_are_called_by_name_are_repaired(images):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(inputs=inputs)
    x = layers.BatchNormalization()(inputs=layers.Conv2D(6, 3, name="second")(inputs=x))
    model = keras.Model(inputs, layers.Dense(3, name="last")(inputs=layers.GlobalAveragePooling2D()(x)))
    small = kprune.prune_model(model, 0.3, data=images)
    soft = kprune.prune_model(model, 0.3, data=images, mode="soft")
    np.testing.assert_allclose(run(small, images[:3]), run(soft, images[:3]), rtol=1e-4, atol=1e-5)


def two_blocks():
    """Two residual blocks on one stream."""
    options = {"padding": "same", "use_bias": False}
    inputs = keras.Input((8, 8, 3))
    stream = layers.BatchNormalization()(layers.Conv2D(8, 3, name="stem", **options)(inputs))
    for block in "12":
        x = layers.Conv2D(6, 3, name=f"middle{block}", **options)(layers.ReLU()(stream))
        x = layers.ReLU(name=f"inside{block}")(layers.BatchNormalization()(x))
        x = layers.BatchNormalization(name=f"norm{block}")(layers.Conv2D(8, 3, name=f"back{block}", **options)(x))
        stream = layers.Add(name=f"sum{block}")([stream, x])
    return randomize(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(stream))))


def test_what_a_stream_lacks_is_made_up_for_by_what_is_added_to_it(images):
    """The second block's last conv is the least-squares fit to its own outputs and to what the first block lost."""
    model, images = two_blocks(), 4 * images[:32]  # so few that every place is looked at
    plan = kprune.plan_pruning(model, 0.4, criterion="l1")
    small = kprune.apply_plan(model, plan, data=images)
    keep = {layer.path: list(layer.keep) for layer in plan.layers}
    made, stream = (x[..., keep["back2"]] for x in tensors_of(model, images, ["back2", "sum1"]))
    now, inside = tensors_of(small, images, ["sum1", "inside2"])
    gamma, _, mean, variance = (w[keep["back2"]] for w in model.get_layer("norm2").get_weights())
    scale = gamma / np.sqrt(variance + model.get_layer("norm2").epsilon)
    assert np.abs(stream - now).max() > 0.1  # something is lacking
    fitted_to = ~held_back(len(images))
    target = (made + (stream - now) / scale)[fitted_to].reshape(-1, len(keep["back2"]))
    rows = patches(inside[fitted_to])
    start = (
        model.get_layer("back2").get_weights()[0][:, :, keep["middle2"]][..., keep["back2"]].reshape(rows.shape[1], -1)
    )
    x, y = rows - rows.mean(axis=0), target - target.mean(axis=0)
    ridge = RIDGE * np.square(x).sum() / x.shape[1]
    fitted = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y + ridge * start)
    found = small.get_layer("back2").get_weights()[0].reshape(fitted.shape)
    np.testing.assert_allclose(found, fitted, rtol=1e-3, atol=1e-3)
    shifted = mean + rows.mean(axis=0) @ fitted - target.mean(axis=0)
    np.testing.assert_allclose(small.get_layer("norm2").get_weights()[2], shifted, rtol=1e-3, atol=1e-3)


def twins(bias, norm):
    """A network in which each filter of one layer has its exact twin."""
    inputs = keras.Input((8, 8, 3))
    first = layers.Conv2D(8, 3, padding="same", use_bias=bias, name="first")
    x = layers.ReLU()(first(inputs))
    x = layers.Conv2D(5, 3, padding="same", use_bias=bias, activation=None if norm else "relu", name="second")(x)
    x = layers.BatchNormalization()(x) if norm else x
    model = keras.Model(inputs, layers.Dense(3, name="logits")(layers.Flatten()(x)))
    kernel = first.kernel.numpy() if hasattr(first.kernel, "numpy") else np.array(first.kernel)
    kernel[..., 4:] = kernel[..., :4]
    first.kernel.assign(kernel)
    return model


@pytest.mark.parametrize(("bias", "norm"), [(True, True), (False, True), (True, False), (False, False)])
def test_a_removed_twin_is_not_missed(bias, norm, images):
    model = twins(bias, norm)
    graph = trace(model)
    keep = np.ones(len(graph.sets), dtype=bool)
    keep[graph.writers[0].axes[-1][4:]] = False
    small = rebuild(graph, keep)
    repair(small, graph, keep, (images,))
    wanted, without = run(model, images), run(rebuild(graph, keep), images)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(run(small, images) / scale, wanted / scale, atol=2e-3)
    assert np.abs(without - wanted).max() > 0.05 * scale


def test_only_what_sees_a_change_is_fitted(images):
    model = build(residual)
    plan = kprune.plan_pruning(model, 0.1, limits=kprune.Limits(include="middle"), criterion="l1")
    plain, repaired = (kprune.apply_plan(model, plan, data=data) for data in (None, images))

    def same(name):
        return np.array_equal(*(m.get_layer(name).get_weights()[0] for m in (plain, repaired)))

    assert [same(name) for name in ("stem", "middle", "end", "logits")] == [True, True, False, False]


def test_repair_can_be_left_out(images):
    model = build(chain)
    one = kprune.prune_model(model, 0.4, criterion="l1", data=images, repair=False)
    other = kprune.prune_model(model, 0.4, criterion="l1")
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("data", "name"), [(None, "similarity"), (16, "reconstruction_error")])
def test_the_criterion_follows_the_data(data, name, images):
    assert kprune.plan_pruning(build(chain), 0.4, data=data and images[:data]).criterion["name"] == name


def test_images_of_another_shape_are_refused():
    with pytest.raises(kprune.OptionError, match="examples of shape"):
        kprune.prune_model(build(chain), 0.4, data=np.zeros((4, 8, 9, 3)))


def test_an_in_layer_activation_is_seen_through(images):
    inputs = keras.Input((8, 8, 3))
    x = conv(conv(inputs, 8, "a", activation="relu"), 6, "b", activation="relu")
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    plan = kprune.plan_pruning(model, 0.3, criterion="l1")
    errors = [
        np.square(run(kprune.apply_plan(model, plan, data=data), images) - run(model, images)).mean()
        for data in (None, images)
    ]
    assert errors[1] < 0.7 * errors[0]
