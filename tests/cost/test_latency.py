"""Latency tables: predictions by hand, what a channel is worth, widths worth having, and targets in milliseconds."""

import json

import keras
import numpy as np
import pytest
from latency_tables import make_table, milliseconds, network
from models import conv
from random_models import randomize

import kprune
from kprune.cost import CostModel
from kprune.cost.latency import Latency, on_the_way, slope
from kprune.cost.latency_table import Grid, LatencyTable
from kprune.graph import trace
from kprune.rules import OperatorConfig

layers = keras.layers


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def table(model):
    return make_table(model)


def by_hand(stream, inner):
    """The time of the network at these widths, layer by layer."""
    kinds = {"conv3": OperatorConfig("conv", (8, 8), (3, 3)), "conv1": OperatorConfig("conv", (8, 8), (1, 1))}
    kinds |= {name: OperatorConfig(name, ()) for name in ("depthwise", "add", "mean", "dense")}
    parts = [("conv3", 3, stream), ("conv3", stream, inner), ("depthwise", 0, inner), ("conv1", inner, stream)]
    parts += [("add", 0, stream), ("mean", 0, stream), ("dense", stream, 3)]
    return 0.25 + sum(milliseconds(kinds[name], *widths) for name, *widths in parts)


def widths(plan):
    return {entry.path: len(entry.keep) for entry in plan.layers}


def test_a_prediction_is_the_sum_over_the_layers(model, table):
    assert table.predict(model) == pytest.approx(by_hand(16, 32))
    for criterion in ("l1", "similarity", "random"):
        plan = kprune.plan_pruning(model, target_latency=0.4, latency_table=table, criterion=criterion)
        kept = widths(plan)
        predicted = by_hand(kept["stem"], kept["middle"])
        assert plan.latency == pytest.approx((by_hand(16, 32), predicted))
        assert table.predict(kprune.apply_plan(model, plan)) == pytest.approx(predicted)
        assert 1 - predicted / by_hand(16, 32) >= 0.4 and plan.target == {"latency": 0.4}


def test_layers_whose_time_is_not_known_are_named(model, caplog):
    inputs = keras.Input((8, 8, 3))
    grouped = layers.Conv2D(8, 3, groups=4, name="grouped")(conv(inputs, 16, "stem"))
    up = layers.Conv2DTranspose(4, 3, name="up")(grouped)
    other = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(up)))
    make_table(model).predict(model)
    assert not caplog.text
    make_table(other).predict(other)
    assert "No time is known for 'grouped', 'up', which count as nothing" in caplog.text


def test_between_knots_a_grid_is_bilinear_and_below_them_constant():
    kind = OperatorConfig("conv", (8, 8), (1, 1), (1, 1), (1, 1), "same")
    grid = Grid(kind, (4, 8), (2, 10), np.array([[1.0, 2.0], [3.0, 6.0]]))
    assert grid.at(6, 6) == pytest.approx((1 + 2 + 3 + 6) / 4)
    assert grid.at(5, 2) == pytest.approx(1.5) and grid.at(1, 1) == pytest.approx(1.0)
    np.testing.assert_allclose(grid.at([4, 8, 8], [10, 2, 8]), [2, 3, 5.25])


def test_a_table_is_what_its_file_says(tmp_path, model, table):
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    assert again.predict(model) == pytest.approx(table.predict(model), rel=1e-5)
    assert again.to_json() == table.to_json()
    plans = [kprune.plan_pruning(model, target_latency=0.3, latency_table=t) for t in (again, tmp_path / "table.json")]
    assert plans[0] == plans[1] == kprune.Plan.from_dict(json.loads(plans[0].to_json()))
    assert "milliseconds, predicted" in plans[0].summary()


def test_what_a_channel_saves_is_its_share_of_the_best_way_down():
    """Slow and obvious: over all narrower widths, a wider and faster one counting as its own."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        ms = rng.uniform(1, 10, 13)
        for width in range(2, 13):
            best = [min(ms[n:]) for n in range(13)]
            expected = max((best[width] - best[narrow]) / (width - narrow) for narrow in range(1, width))
            assert slope(ms, width) == pytest.approx(expected)


def test_a_width_is_worth_having_unless_two_others_would_cost_less_on_average():
    """Slow and obvious: every pair of a narrower and a wider one."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        ms = np.cumsum(rng.uniform(-0.5, 1, 24)) + 3
        for width, fits in enumerate(on_the_way(ms), start=1):
            chords = [
                np.interp(width, [low, high], [ms[low - 1], ms[high - 1]])
                for low in range(-(-width // 2), width)
                for high in range(width + 1, min(2 * width, 24) + 1)
            ]
            assert fits == (ms[width - 1] / 1.01 <= min(chords, default=np.inf))


def test_the_edge_of_a_staircase_is_the_end_of_each_step():
    width = np.arange(1, 65)
    assert set(np.flatnonzero(on_the_way(np.ceil(width / 16.0) + 0.02 * width)) + 1) & set(range(16, 65)) == {
        16, 32, 48, 64
    }  # fmt: skip
    faster = np.where(width <= 16, 1.0, np.where(width % 32 == 0, width / 21.0, 2.0 * np.ceil(width / 32.0)))
    assert set(np.flatnonzero(on_the_way(faster)) + 1) & set(range(16, 65)) == {16, 32, 64}


def test_gains_add_up_over_the_layers_that_write_and_read_a_channel(model):
    """Where time is linear in all widths, the gain is the derivative."""
    linear = make_table(model, lambda kind, i, o: (i + 1) * o if kind.reads else 2.0 * o)
    graph = trace(model)
    cost, keep = Latency(graph, linear), np.ones(len(graph.sets), dtype=bool)
    middle = next(w for w in graph.writers if w.path == "middle").axes[3]
    # middle: (16 + 1) as its own output; depthwise: 2; end: 16 as its input.
    np.testing.assert_allclose(cost.gains(keep)[middle], 17 + 2 + 16)
    keep[middle[:10]] = False
    np.testing.assert_allclose(cost.gains(keep)[middle], 17 + 2 + 16)


def test_widths_that_waste_a_step_are_not_worth_having(model, table):
    graph = trace(model)
    cost = Latency(graph, table)
    middle = next(w for w in graph.writers if w.path == "middle").axes[3]
    assert set(np.flatnonzero(cost.worthwhile(middle))) & set(range(9, 32)) == {16}


@pytest.mark.parametrize("criterion", ["l1", "similarity", "random", "reconstruction_error"])
def test_plans_keep_the_steps_of_the_kernels(model, table, criterion):
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    data = images if criterion == "reconstruction_error" else None
    for target in (0.2, 0.5):
        plan = kprune.plan_pruning(model, target_latency=target, latency_table=table, criterion=criterion, data=data)
        cost, graph = Latency(trace(model), table), trace(model)
        for weight in graph.writers:
            kept = widths(plan)[weight.path]
            assert cost.worthwhile(weight.axes[weight.writes])[kept] or kept == weight.shape[weight.writes]
        assert 1 - plan.latency[1] / plan.latency[0] >= target


def test_reconstruction_error_prefers_what_is_dear_on_the_device(model):
    """On a device where only the inside of the block costs anything, only that is pruned."""
    table = make_table(model, lambda kind, i, o: 4.0 * o if kind.operation == "depthwise" else 0.0, overhead=0)
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    plan = kprune.plan_pruning(model, target_latency=0.5, latency_table=table, data=images)
    assert widths(plan)["stem"] == 16 and widths(plan)["middle"] == 16


def test_limits_hold_beside_a_table(model, table):
    limits = kprune.Limits(exclude="stem", min_channels=12, round_to=8)
    plan = kprune.plan_pruning(model, target_latency=0.2, latency_table=table, limits=limits, criterion="l1")
    assert widths(plan)["stem"] == 16 and widths(plan)["middle"] == 16
    with pytest.raises(kprune.TargetError, match="target_latency=0.9 .*at most"):
        kprune.plan_pruning(model, target_latency=0.9, latency_table=table, limits=limits)


def test_a_cost_model_takes_any_quantity(model):
    graph = trace(model)
    whole = np.ones(len(graph.sets), dtype=bool)
    cost = CostModel(graph, latency=Latency(graph, make_table(model)))
    assert cost.total(whole, "latency") == pytest.approx(by_hand(16, 32))
    assert cost.total(whole, "flops") == kprune.model_cost(model).flops
    assert kprune.model_cost(model).params == cost.params(whole) == model.count_params()


WRONG = {
    "no table": (lambda m, t: kprune.plan_pruning(m, target_latency=0.5), "came without latency"),
    "no target": (lambda m, t: kprune.prune_model(m, 0.5, latency_table=t), "came without target_latency"),
    "two targets": (
        lambda m, t: kprune.plan_pruning(m, 0.5, target_latency=0.5, latency_table=t),
        "Both of target_flops",
    ),
    "no share": (lambda m, t: kprune.plan_pruning(m, target_latency=50, latency_table=t), "target_latency is 50"),
    "no such file": (lambda m, t: kprune.LatencyTable.load("missing.json"), "cannot be read as a latency table"),
    "another model": (
        lambda m, t: kprune.plan_pruning(wider(), target_latency=0.5, latency_table=t),
        "does not know 'wide'",
    ),
    "another width": (lambda m, t: t.predict(broader()), "up to 32 channels only"),
}


def wider():
    inputs = keras.Input((9, 9, 3))
    x = layers.GlobalAveragePooling2D()(conv(inputs, 8, "wide"))
    return randomize(keras.Model(inputs, layers.Dense(3)(x)))


def broader():
    inputs = keras.Input((8, 8, 3))
    return randomize(keras.Model(inputs, conv(inputs, 40, "broad")))


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls_are_refused(model, table, case):
    call, message = WRONG[case]
    with pytest.raises(kprune.OptionError, match=message):
        call(model, table)


@pytest.mark.parametrize("damage", [{"schema": 9}, {"grids": [{}]}, {"threads": None, "grids": None}])
def test_a_damaged_table_is_refused(tmp_path, table, damage):
    (tmp_path / "table.json").write_text(json.dumps(table.to_json() | damage))
    with pytest.raises(kprune.OptionError, match="cannot be read as a latency table"):
        LatencyTable.load(tmp_path / "table.json")


def trained(model, callback):
    """The network after three epochs with a callback that prunes it."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 8, 8, 3)).astype("float32"), np.arange(8) % 3
    history = copy.fit(x, y, epochs=3, verbose=0, callbacks=[callback]).history
    return copy, history


@pytest.mark.parametrize("name", ["similarity", "l1"])
def test_a_callback_prunes_to_milliseconds(model, table, name):
    options = {"target_latency": 0.4, "latency_table": table}
    similar = name == "similarity"
    callback = kprune.SimilarityPruning(**options) if similar else kprune.GradualPruning(name, **options)
    copy, history = trained(model, callback)
    small = table.predict(kprune.strip(copy))
    assert callback.plan.latency == pytest.approx((by_hand(16, 32), small))
    assert callback.plan.target == {"latency": 0.4} and 1 - small / by_hand(16, 32) >= 0.4
    assert history["pruned_latency"][-1] == pytest.approx(callback.record.history["pruned_latency"][-1])
    assert callback.record.history["latency"][-1] == pytest.approx(small)
    assert "of the predicted milliseconds removed" in callback.record.line()
    kept = widths(callback.plan)
    assert kept["middle"] % 8 == 0 and kept["stem"] % 8 == 0


@pytest.mark.parametrize("criterion, rounds", [("similarity", None), ("l1", 2)])
def test_rounds_of_pruning_go_to_milliseconds(model, table, tmp_path, criterion, rounds):
    options = {"target_latency": 0.4, "criterion": criterion, "rounds": rounds, "verbose": False}
    run = kprune.prune_iteratively(model, lambda _: None, latency_table=table, directory=tmp_path / "run", **options)
    predicted = table.predict(run.model)
    assert run.plan.latency == pytest.approx((by_hand(16, 32), predicted))
    assert 1 - predicted / by_hand(16, 32) >= 0.4
    assert run.record.history["latency"][-1] == pytest.approx(predicted)
    again = kprune.prune_iteratively(model, lambda _: 1 / 0, latency_table=table, directory=tmp_path / "run", **options)
    assert again.plan == run.plan
    other = make_table(model, overhead=1.0)
    with pytest.raises(kprune.OptionError, match="holds a run with latency_table"):
        kprune.prune_iteratively(model, lambda _: None, latency_table=other, directory=tmp_path / "run", **options)


def test_a_search_goes_over_milliseconds(model, table, capsys):
    most = 0.5 * table.predict(model)
    found = kprune.find_target(
        model, lambda small: table.predict(small) >= most, quantity="latency", latency_table=table, criterion="l1"
    )
    assert table.predict(found.model) == pytest.approx(found.plan.latency[1]) and found.plan.latency[1] >= most
    assert "of the predicted milliseconds removed: accepted" in capsys.readouterr().out


@pytest.mark.parametrize("given", [{"quantity": "latency"}, {"latency_table": "table.json"}])
def test_a_search_over_milliseconds_needs_both(model, given):
    with pytest.raises(kprune.OptionError, match="a latency table"):
        kprune.find_target(model, lambda _: True, **given)


@pytest.mark.parametrize("given", [{"target_latency": 0.4}, {"target_flops": 0.4, "latency_table": "table.json"}])
def test_a_callback_for_milliseconds_needs_both(model, given):
    with pytest.raises(kprune.OptionError, match="came without"):
        trained(model, kprune.SimilarityPruning(**given))
