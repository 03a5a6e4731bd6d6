"""What is GradualPruning's own: the schedule of the paper, regrowth, any criterion; and the BatchNorm penalty."""

import re

import keras
import numpy as np
import pytest
from models import run
from random_models import randomize
from training_runs import assert_masked, compiled, fit, gradual

import kprune
from kprune.cost import CostModel
from kprune.criteria import inform
from kprune.graph import trace
from kprune.graph.dead_channels import masked_sets
from kprune.selection import bind, make_budget, select_by_score

to_numpy = keras.ops.convert_to_numpy


class Masked(keras.callbacks.Callback):
    """Records how many channel sets are masked at the end of each epoch, as seen from outside."""

    def __init__(self):
        super().__init__()
        self.counts = []

    def on_epoch_end(self, epoch, logs=None):
        self.counts.append(int(masked_sets(trace(self.model)).sum()))


@pytest.mark.parametrize("criterion", ["relevance", "taylor"])
def test_every_kind_of_criterion_reaches_a_target(data, criterion):  # noqa: F811
    model, callback = compiled(), gradual(criterion=criterion, data=data)
    fit(model, data, callback)
    assert_masked(model, callback, data)
    assert callback.plan.criterion["name"] == criterion


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every_epochs": 2, "until_epoch": 5}, [0, 0, 3, 3, 6, 6]),  # after epochs 2 and 4, as n = 2, N1 = 5
        ({}, [0, 3, 6, 9, 12, 12]),  # two thirds of six epochs
    ],
)
def test_so_many_channels_go_after_every_nth_epoch(data, options, expected):  # noqa: F811
    callback, masked = kprune.GradualPruning("l1", channels_per_round=3, **options), Masked()
    model = compiled()
    fit(model, data, callback, epochs=6, extra=[masked])
    assert masked.counts == expected
    assert [entry.removed_share for entry in callback.rounds] == list(range(3, expected[-1] + 1, 3))
    np.testing.assert_allclose(run(kprune.strip(model), data[0]), run(model, data[0]), atol=1e-4)


def test_channels_removed_by_an_earlier_fit_are_not_counted_again(data):  # noqa: F811
    model, masked = compiled(), Masked()
    for epochs in (2, 4):  # the second fit ends where the schedule does
        callback = kprune.GradualPruning("l1", channels_per_round=3, until_epoch=3)
        fit(model, data, callback, epochs=epochs, initial_epoch=epochs - 2, extra=[masked])
    assert masked.counts == [0, 3, 6, 9]


def test_the_globally_lowest_scores_go_first(data):  # noqa: F811
    model = compiled(keras.optimizers.SGD(0.0))
    graph = trace(model)
    scores = kprune.criteria.BatchNormScale().scores(graph, np.ones(len(graph.sets), dtype=bool))
    lowest = np.flatnonzero(graph.prunable)[np.argsort(scores[graph.prunable])][:5]
    fit(model, data, kprune.GradualPruning("batchnorm_scale", channels_per_round=5, until_epoch=1), epochs=1)
    assert np.flatnonzero(masked_sets(graph)).tolist() == sorted(lowest.tolist())


@pytest.mark.parametrize(
    ("criterion", "wrong", "message"),
    [
        ("relevance", lambda x, y: x, "no labels"),
        ("taylor", lambda x, y: (x[:, :4], y), "(8, 8, 3)"),
        ("reconstruction_error", lambda x, y: x[:, :4], "(8, 8, 3)"),
        ("apoz", lambda x, y: x * np.nan, "NaN"),
        ("relevance", lambda x, y: (x, y + 7), "class"),
    ],
)
def test_wrong_data_are_refused_before_the_first_step(data, criterion, wrong, message):  # noqa: F811
    model = compiled()
    before = [to_numpy(v) for v in model.trainable_variables]
    with pytest.raises(kprune.OptionError, match=re.escape(message)):
        fit(model, data, gradual(criterion=criterion, data=wrong(*data), every_epochs=2, until_epoch=2), epochs=3)
    for one, other in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(one), other)


def test_sfp_is_l2_that_may_grow_back():
    callback = gradual(criterion="sfp")
    assert callback.regrow and isinstance(callback.criterion, kprune.criteria.L2)
    with pytest.raises(kprune.OptionError, match="regrow"):
        kprune.GradualPruning("l2", channels_per_round=3, regrow=True)


class Norms(keras.callbacks.Callback):
    """The smallest filter of a layer, relative to the mean, at the beginning of the first step and at each end."""

    def __init__(self):
        super().__init__()
        self.begin, self.end = [], []

    def smallest(self):
        norms = np.abs(to_numpy(self.model.get_layer("middle").kernel)).sum(axis=(0, 1, 2))
        return int((norms == 0).sum())

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.begin.append(self.smallest())

    def on_epoch_end(self, epoch, logs=None):
        self.end.append(self.smallest())


def test_soft_filter_pruning_zeroes_filters_that_grow_back_until_the_last_round(data):  # noqa: F811
    model, norms = compiled("sgd"), Norms()
    callback = gradual(0.5, regrow=True, until_epoch=3)
    history = fit(model, data, callback, epochs=5, extra=[norms]).history
    assert norms.begin[0] == 0 and min(norms.begin[1:]) > 0  # after each of the first three epochs some are zeroed
    assert norms.end[:3] == [0, 0, 0]  # and have grown back
    assert norms.end[3] == norms.begin[3] > 0 and norms.end[4] == norms.end[3]  # but not after the last round
    assert history["pruned_flops"][:3] == [0, 0, 0] and history["pruned_flops"][3] >= 0.5
    assert_masked(model, callback, data)


def test_soft_filter_pruning_takes_the_same_share_of_each_layer(data):  # noqa: F811
    callback = gradual(0.5, regrow=True)
    fit(compiled(), data, callback)
    rates = [entry.rate for entry in callback.plan.layers if entry.reason is None]
    assert max(rates) - min(rates) <= 1.5 / 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "relevance", "target_flops": 0.5}, "looks at data"),
        ({"criterion": "relevance", "target_flops": 0.5, "data": iter([])}, "read only once"),
        ({"criterion": "similarity", "target_flops": 0.5}, "SimilarityPruning"),
        ({"criterion": "l1", "target_flops": 0.5, "channels_per_round": 3}, "together"),
        ({"criterion": "l1", "channels_per_round": 0}, "channels_per_round"),
        ({"criterion": "l1", "target_flops": 0.5, "every_epochs": 3, "until_epoch": 2}, "leaves no round"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(kprune.OptionError, match=f"{message}.*"):
        kprune.GradualPruning(**options)


def test_no_target_at_all_is_refused_when_training_begins(data):  # noqa: F811
    with pytest.raises(kprune.OptionError, match="Neither"):
        fit(compiled(), data, kprune.GradualPruning("l1"))


def scales(model):
    return {name: to_numpy(model.get_layer(name).gamma) for name in ("bn0", "bn1")}


def test_the_penalty_moves_each_scale_by_its_sign(data):  # noqa: F811
    """One plain step with the penalty and one without differ by `-rate * strength * sign(gamma)`."""
    rate, strength = 0.1, 0.03
    after = {}
    for penalized in (False, True):
        model = compiled(keras.optimizers.SGD(rate))
        before = scales(model)
        extra = [kprune.BatchNormPenalty(strength)] if penalized else []
        model.fit(*data, batch_size=48, epochs=1, verbose=0, shuffle=False, callbacks=extra)
        after[penalized] = scales(model)
    for name, gamma in before.items():
        expected = after[False][name] - rate * strength * np.sign(gamma)
        np.testing.assert_allclose(after[True][name], expected, atol=1e-5)


def test_the_penalty_ends_with_fit_and_leaves_the_users_own_regularizer_and_a_plain_file(data, tmp_path):  # noqa: F811
    model = compiled()
    own = keras.regularizers.L2(0.1)
    model.get_layer("bn1").gamma.regularizer = own
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "c.keras")
    fit(model, data, kprune.BatchNormPenalty(1.0), epochs=1, extra=[checkpoint])
    assert model.get_layer("bn0").gamma.regularizer is None and model.get_layer("bn1").gamma.regularizer is own
    assert "kprune" not in str(keras.models.load_model(tmp_path / "c.keras").get_config())


@pytest.mark.parametrize("strength", [0, -1.0, "big", True])
def test_a_wrong_strength_is_refused(strength):
    with pytest.raises(kprune.OptionError, match="strength"):
        kprune.BatchNormPenalty(strength)


def test_a_model_without_scales_refuses_the_penalty(data):  # noqa: F811
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    with pytest.raises(kprune.OptionError, match="no BatchNorm scale"):
        fit(compiled(model=keras.Model(inputs, keras.layers.Dense(3)(x))), data, kprune.BatchNormPenalty())


def test_reconstruction_error_counts_what_the_budget_does():
    """Per parameter the wide layer on a small map is worth removing; per FLOP the narrow one on a large map."""
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.MaxPooling2D(6)(keras.layers.Conv2D(8, 3, padding="same", name="large_map")(inputs))
    x = keras.layers.Conv2D(24, 3, padding="same", name="small_map")(x)
    model = randomize(keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))))
    graph, images = trace(model), np.random.default_rng(0).normal(size=(32, 12, 12, 3)).astype("float32")
    criterion = inform(kprune.criteria.get_criterion("reconstruction_error"), images, 0)
    lost = {}
    for kind in ("flops", "params"):
        budget = make_budget(CostModel(graph), **{f"target_{kind}": 0.4})
        keep = select_by_score(graph, criterion, budget, bind(None, graph))
        lost[kind] = [(~keep[w.axes[w.writes]]).mean() for w in graph.writers[:2]]
    assert lost["flops"][0] > lost["params"][0] and lost["flops"][1] < lost["params"][1]
