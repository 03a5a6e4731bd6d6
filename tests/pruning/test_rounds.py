"""Algorithm 1, hard: the rounds, what comes of them, and that a killed run goes on."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from models import run
from random_models import randomize
from training_runs import build, compiled

import kprune
from kprune.criteria import Similarity
from kprune.graph import trace
from kprune.pruning.pipeline import choose
from kprune.selection import Budget, bind, select_in_one_round


def kept(plan):
    return {entry.path: entry.keep for entry in plan.layers}


class Nudge:
    """Stands for a training: moves every weight a little, always alike, and tells a metric."""

    def __init__(self, fails_in=None):
        self.calls, self.fails_in = [], fails_in

    def __call__(self, model):
        if len(self.calls) + 1 == self.fails_in:
            raise KeyboardInterrupt
        rng = np.random.default_rng(len(model.weights) + model.count_params())
        model.set_weights([w + 0.03 * rng.normal(size=w.shape).astype(w.dtype) for w in model.get_weights()])
        self.calls.append(kprune.model_cost(model).flops)
        return {"accuracy": 0.5 + 0.01 * len(self.calls)}


def quietly(model, fit, target=0.5, **options):
    return kprune.prune_iteratively(model, fit, target, **{"verbose": False, **options})


def test_it_trains_after_each_round_and_ends_at_the_target():
    model, fit = build(), Nudge()
    before = model.get_weights()
    result = quietly(model, fit, rounds=4)
    whole = kprune.model_cost(model).flops
    shares = [1 - flops / whole for flops in fit.calls]
    assert len(shares) == 4 and all(k / 8 <= share <= k / 8 + 0.04 for k, share in enumerate(shares, start=1))
    assert 0.5 <= shares[-1] <= 0.52
    assert kprune.model_cost(result.model).flops == result.plan.flops[1] == fit.calls[-1]
    assert result.record.history["flops"] == fit.calls
    assert result.record.history["accuracy"] == pytest.approx([0.51, 0.52, 0.53, 0.54])
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_round_of_the_paper_takes_what_is_redundant_in_the_network_as_it_is_then():
    """Replays the rounds one by one: a plan of one round of the method, applied, trained, planned anew."""
    criterion = Similarity(alpha=0.8, ratio=0.3)
    result = quietly(build(), Nudge(), 0.6, criterion=criterion)
    model = build()
    for share, used in zip(*(result.record.history[key] for key in ("pruned_flops", "ratio")), strict=True):
        graph = trace(model)
        whole, now = kprune.model_cost(build()).flops, kprune.model_cost(model).flops
        budget = Budget("flops", 1 - 0.4 * whole / now, kprune.cost.CostModel(graph))
        one_round = functools.partial(select_in_one_round, ratio=used)
        model = kprune.apply_plan(model, choose(criterion, budget, bind(None, graph), one_round))
        assert 1 - kprune.model_cost(model).flops / whole == pytest.approx(share)
        Nudge()(model)
    assert share >= 0.6 and len(result.record) > 1


def test_similarity_alone_takes_as_many_rounds_as_the_method_needs():
    loose, strict = (quietly(build(), Nudge(), criterion=Similarity(alpha=a, ratio=0.2)) for a in (0.1, 1.1))
    assert 1 <= len(loose.record) < len(strict.record)


def test_the_plan_of_all_rounds_fits_the_network_at_the_start():
    model, nothing = build(), lambda small: None
    result = quietly(model, nothing, criterion="l1", rounds=3)
    again = kprune.apply_plan(model, result.plan)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(run(again, x), run(result.model, x), atol=1e-6)  # nothing was trained in between
    assert result.record.history["rates"][-1] == {e.path: e.rate for e in result.plan.layers if e.reason is None}


def test_plans_follow_one_another_only_where_they_fit():
    model = build()
    first = kprune.plan_pruning(model, 0.3)
    small = kprune.apply_plan(model, first)
    second = kprune.plan_pruning(small, 0.3, criterion="l2")
    both = first.followed_by(second)
    np.testing.assert_array_equal(
        kprune.apply_plan(model, both).get_layer("middle").kernel,
        kprune.apply_plan(small, second).get_layer("middle").kernel,
    )
    assert (both.flops, both.params) == ((first.flops[0], second.flops[1]), (first.params[0], second.params[1]))
    with pytest.raises(kprune.PlanError, match="does not fit"):
        second.followed_by(first)


@pytest.mark.parametrize("options", [{"rounds": 3}, {"target": 0.6, "criterion": Similarity(alpha=0.8, ratio=0.3)}])
def test_a_killed_run_goes_on_and_ends_like_one_that_was_not(tmp_path, options):
    expected = quietly(build(), Nudge(), directory=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        quietly(build(), Nudge(fails_in=2), directory=tmp_path / "killed", **options)
    fit = Nudge()
    result = quietly(build(), fit, directory=tmp_path / "killed", **options)
    assert len(fit.calls) == len(expected.record) - 1
    assert result.plan == expected.plan
    for one, other in zip(result.model.get_weights(), expected.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    without_metrics = [{k: v for k, v in r.record.history.items() if k != "accuracy"} for r in (result, expected)]
    assert without_metrics[0] == without_metrics[1]


def test_a_finished_run_is_read_back_without_training(tmp_path):
    first = quietly(build(), Nudge(), rounds=2, directory=tmp_path)
    fit = Nudge()
    again = quietly(build(), fit, rounds=2, directory=tmp_path)
    assert not fit.calls and again.plan == first.plan and again.record.history == first.record.history
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_01.keras", "round_02.keras", "run.json"]


@pytest.mark.parametrize(
    "change", [{"target": 0.4}, {"criterion": "l1"}, {"rounds": 3}, {"limits": kprune.Limits(min_channels=2)}]
)
def test_the_folder_of_another_run_is_refused(tmp_path, change):
    quietly(build(), Nudge(), rounds=2, directory=tmp_path)
    with pytest.raises(kprune.OptionError, match="holds a run with"):
        quietly(build(), Nudge(), **{"rounds": 2, "directory": tmp_path, **change})


def test_the_folder_of_another_network_or_a_damaged_one_is_refused(tmp_path):
    quietly(build(), Nudge(), rounds=2, directory=tmp_path)
    with pytest.raises(kprune.OptionError, match="weights"):
        quietly(randomize(build(), seed=7), Nudge(), rounds=2, directory=tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(kprune.OptionError, match="cannot be read"):
        quietly(build(), Nudge(), rounds=2, directory=tmp_path)


def test_a_model_that_keras_cannot_read_back_is_named(tmp_path):
    quietly(build(), Nudge(), rounds=2, directory=tmp_path)
    (tmp_path / "round_02.keras").write_bytes(b"no model")
    with pytest.raises(kprune.ModelError, match=r"round_02\.keras"):
        quietly(build(), Nudge(), rounds=2, directory=tmp_path)


def test_the_largest_rate_is_of_the_filters_at_the_start():
    """Were it of those left in each round, "middle" would fall to 16 * 0.5^3 = 2."""
    limits = kprune.Limits(max_rate=0.5)
    reachable = pytest.raises(
        kprune.TargetError, quietly, build(), Nudge(), 0.95, rounds=3, limits=limits
    ).value.reachable
    result = quietly(build(), Nudge(), reachable - 0.02, rounds=3, limits=limits)
    assert all(entry.rate <= 0.5 for entry in result.plan.layers) and len(kept(result.plan)["middle"]) <= 9


def test_parameters_can_be_the_target():
    result = quietly(build(), Nudge(), None, target_params=0.5, rounds=3)
    assert result.model.count_params() == result.plan.params[1] <= 0.5 * build().count_params()
    assert result.plan.target == {"params": 0.5}


def test_a_history_is_recorded_and_the_optimizer_state_goes_along():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(16, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 16)
    model = compiled(keras.optimizers.Adam(1e-3), build(), run_eagerly=True)
    model.fit(*data, verbose=0)
    seen = []

    def fit(small):
        seen.append(int(small.optimizer.iterations))
        return small.fit(*data, epochs=2, verbose=0)

    result = quietly(model, fit, rounds=2)
    assert seen == [1, 3]
    assert {"loss", "accuracy"} <= result.record.history.keys() and None not in result.record.history["loss"]


def test_each_round_is_repaired_where_there_are_images_and_criteria_may_look_at_them():
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
    options = {"rounds": 2, "data": images, "criterion": "activation_density"}
    models = [quietly(build(), lambda small: None, 0.4, repair=repair, **options).model for repair in (True, False)]
    errors = [np.square(run(model, images) - run(build(), images)).mean() for model in models]
    assert errors[0] < 0.7 * errors[1]


def test_a_line_per_round_is_printed(capsys):
    quietly(build(), Nudge(), rounds=2, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("Round 1: ") and "accuracy 0.5100" in lines[0]


@pytest.mark.parametrize(
    "fit, options, message",
    [
        (None, {}, "fit is None"),
        (lambda model: model, {}, "fit returned a"),
        (lambda model: {"accuracy": "good"}, {}, "fit returned a dict that holds no metrics"),
        (Nudge(), {"criterion": "l1"}, "rounds is not given"),
        (Nudge(), {"rounds": 0}, "rounds is 0"),
        (Nudge(), {"rounds": True}, "rounds is True"),
        (Nudge(), {"target": 7}, "between 0 and 1"),
        (Nudge(), {"target_params": 0.3}, "Both"),
        (Nudge(), {"limits": 3}, "limits is 3"),
    ],
)
def test_wrong_options_are_refused(fit, options, message):
    with pytest.raises(kprune.OptionError, match=f"{message}.*Fix"):
        quietly(build(), fit, **options)


def test_an_unreachable_target_is_refused_before_any_training():
    fit = Nudge()
    with pytest.raises(kprune.TargetError, match="at most"):
        quietly(build(), fit, 0.9, rounds=3, limits=kprune.Limits(min_channels=10))
    assert not fit.calls


def test_a_plan_is_a_value():
    result = quietly(build(), Nudge(), rounds=2)
    assert dataclasses.asdict(
        kprune.Plan.from_dict({"schema": 1, **dataclasses.asdict(result.plan)})
    ) == dataclasses.asdict(result.plan)
