"""What each option of filter similarity changes in a whole network, against the slow transcription of the rule."""

import itertools

import keras
import numpy as np
import pytest
from models import conv
from random_models import randomize
from slow_similarity import redundant_filters

import kprune
from kprune.graph import trace
from kprune.selection import Comparison, bind

layers = keras.layers
Similarity = kprune.criteria.Similarity


@pytest.fixture
def model():
    """Two layers by themselves, the first with a BatchNorm, then two that write one residual stream."""
    inputs = keras.Input((6, 6, 3))
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(conv(inputs, 24, "first")))
    x = conv(layers.ReLU()(x), 24, "second")
    x = conv(x, 20, "stream")
    x = layers.Add()([x, conv(layers.ReLU()(x), 20, "added")])
    return randomize(keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))))


def kernel(model, name):
    return keras.ops.convert_to_numpy(model.get_layer(name).kernel)


def chosen(model, **options):
    """What one round takes: for each layer a boolean per filter."""
    graph, criterion = trace(model), Similarity(**options)
    keep = np.ones(len(graph.sets), dtype=bool)
    sets, _, relaxed = Comparison(graph, criterion).candidates(keep, bind(None, graph), criterion.ratio)
    assert relaxed is None
    return {w.path: np.isin(w.axes[w.writes], sets) for w in graph.writers}


@pytest.mark.parametrize("alpha, ratio", list(itertools.product([0.2, 0.6], [0.15, 0.25])))
def test_alpha_and_ratio_choose_in_every_layer_what_the_rule_chooses(model, alpha, ratio):
    found = chosen(model, alpha=alpha, ratio=ratio, guard=False)
    for name in ("first", "second"):
        assert found[name].tolist() == redundant_filters(kernel(model, name), alpha, ratio)


@pytest.mark.parametrize("name, low, high", [("alpha", 0.1, 0.7), ("ratio", 0.1, 0.4)])
def test_a_larger_alpha_or_ratio_takes_fewer(model, name, low, high):
    options = {"alpha": 0.3, "ratio": 0.2, "guard": False}
    some, fewer = (chosen(model, **options | {name: value}) for value in (low, high))
    assert sum(map(np.sum, fewer.values())) < sum(map(np.sum, some.values()))
    assert all((some[layer] >= fewer[layer]).all() for layer in some)


def test_folding_compares_filters_as_batch_normalization_scales_them(model):
    norm = model.get_layer("norm")
    scale = keras.ops.convert_to_numpy(norm.gamma / keras.ops.sqrt(norm.moving_variance + norm.epsilon))
    options = {"alpha": 0.4, "ratio": 0.25, "guard": False}
    raw, folded = (chosen(model, fold_bn=fold, **options) for fold in (False, True))
    assert folded["first"].tolist() == redundant_filters(kernel(model, "first") * scale, 0.4, 0.25)
    assert folded["first"].tolist() != raw["first"].tolist()
    assert folded["second"].tolist() == raw["second"].tolist()  # no BatchNorm follows it


def test_the_cosine_metric_does_not_see_how_large_a_filter_is(model):
    options = {"alpha": 0.4, "ratio": 0.25, "guard": False}
    before = {metric: chosen(model, metric=metric, **options)["second"] for metric in ("euclidean", "cosine")}
    layer = model.get_layer("second")
    scaled, bias = layer.get_weights()
    layer.set_weights([scaled * np.geomspace(0.2, 5, 24), bias])
    after = {metric: chosen(model, metric=metric, **options)["second"] for metric in ("euclidean", "cosine")}
    assert after["cosine"].tolist() == before["cosine"].tolist() and before["cosine"].any()
    assert after["euclidean"].tolist() != before["euclidean"].tolist()
    directions = kernel(model, "second") / np.sqrt(np.square(kernel(model, "second")).sum((0, 1, 2)))
    halves = np.square(directions.reshape(-1, 24).T[:, None] - directions.reshape(-1, 24).T[None]).sum(-1) / 2
    pairs = halves[np.triu_indices(24, 1)]
    counts = ((halves < pairs.mean() - 0.4 * pairs.std()) & ~np.eye(24, dtype=bool)).sum(1)
    assert before["cosine"].tolist() == (counts / 24 >= 0.25).tolist()


def test_the_guard_takes_a_part_of_what_the_literal_rule_takes_and_leaves_each_a_twin(model):
    options = {"alpha": 0.3, "ratio": 0.2}
    literal, guarded = (chosen(model, guard=guard, **options) for guard in (False, True))
    assert guarded["second"].sum() < literal["second"].sum() and (literal["second"] >= guarded["second"]).all()
    flat = kernel(model, "second").reshape(-1, 24).T.astype(float)
    distances = np.sqrt(np.square(flat[:, None] - flat[None]).sum(-1))
    pairs = distances[np.triu_indices(24, 1)]
    similar = distances < pairs.mean() - 0.3 * pairs.std()
    assert similar[guarded["second"]][:, ~guarded["second"]].any(axis=1).all()


def test_the_graph_judges_a_stream_by_its_counts_summed_over_all_layers_that_write_it(model):
    counts = np.zeros(20)
    for name in ("stream", "added"):
        flat = kernel(model, name).reshape(-1, 20).T.astype(float)
        distances = np.sqrt(np.square(flat[:, None] - flat[None]).sum(-1))
        pairs = distances[np.triu_indices(20, 1)]
        counts += ((distances < pairs.mean() - 0.3 * pairs.std()) & ~np.eye(20, dtype=bool)).sum(1)
    found = chosen(model, alpha=0.3, ratio=0.25, guard=False)
    assert found["stream"].tolist() == found["added"].tolist() == (counts / 40 >= 0.25).tolist()
    assert found["stream"].any()


def test_frequency_is_of_the_filters_still_kept(model):
    """With twelve of 24 left, the rule of a layer is that of a network which has just those twelve."""
    graph, criterion = trace(model), Similarity(alpha=0.3, ratio=0.3, guard=False)
    keep = np.ones(len(graph.sets), dtype=bool)
    writer = next(w for w in graph.writers if w.path == "first")
    keep[writer.axes[writer.writes][12:]] = False
    sets, _, _ = Comparison(graph, criterion).candidates(keep, bind(None, graph), criterion.ratio)
    found = np.isin(writer.axes[writer.writes][:12], sets)
    assert found.tolist() == redundant_filters(kernel(model, "first")[..., :12], 0.3, 0.3) and found.any()


def test_a_round_that_finds_nothing_relaxes_the_ratio_by_ten_percent_until_it_finds_something(model):
    graph, criterion = trace(model), Similarity(alpha=0.8, ratio=0.95, guard=False, coupling="graph")
    keep = np.ones(len(graph.sets), dtype=bool)
    order, used, relaxed = Comparison(graph, criterion).candidates(keep, bind(None, graph), 0.95)
    steps = np.log(used / 0.95) / np.log(0.9)
    assert steps == pytest.approx(round(steps)) and round(steps) >= 1 and len(order)
    assert relaxed == f"ratio relaxed to {used:.4f}"
    stricter = Comparison(graph, Similarity(alpha=0.8, ratio=used / 0.9, guard=False))
    assert stricter.candidates(keep, bind(None, graph), used / 0.9)[1] == pytest.approx(used)


def test_where_nothing_is_similar_the_closest_pairs_are_taken_and_the_plan_says_so(model):
    plan = kprune.plan_pruning(model, 0.3, criterion=Similarity(alpha=9.0))
    assert {entry["relaxed"] for entry in plan.rounds} == {"closest pairs taken as similar"}


def test_compensation_is_in_the_plan_only_where_it_is_asked_for(model):
    plans = [kprune.plan_pruning(model, 0.3, criterion=Similarity(compensate=c)) for c in (False, True)]
    assert [any(entry.merge for entry in plan.layers) for plan in plans] == [False, True]
    assert [entry.keep for entry in plans[0].layers] == [entry.keep for entry in plans[1].layers]
