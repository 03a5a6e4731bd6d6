"""Limits to the letter, the search space, and rates given by hand."""

import dataclasses

import keras
import numpy as np
import pytest
from models import STRUCTURES, build, conv, grouped, inverted_residual, option_a, residual
from random_models import randomize

import kprune
from kprune.cost import CostModel
from kprune.graph import trace
from kprune.selection import bind

layers = keras.layers


def stage():
    """A residual stage whose widths are no multiples of one another, and a frozen classifier."""
    inputs = keras.Input((8, 8, 3))
    x = conv(inputs, 24, "stem")
    for block in (1, 2):
        y = layers.BatchNormalization()(conv(x, 20, f"middle{block}"))
        x = layers.ReLU()(layers.Add()([x, conv(y, 24, f"end{block}")]))
    return randomize(keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))))


@pytest.fixture(scope="module")
def staged():
    return stage()


def kept(plan):
    return {entry.path: len(entry.keep) for entry in plan.layers}


def removed(plan, kind="flops"):
    before, after = getattr(plan, kind)
    return 1 - after / before


def is_rounded(plan, step):
    return all(len(e.keep) % step == 0 or len(e.keep) == e.filters for e in plan.layers)


def can_come_back(plan, model, step):
    """Whether some layer could keep one step more, with all that are tied to it, and the target still be met.

    Slow and obvious: for each group of layers that write the same channels, as many more as the step.
    """
    graph = trace(model)
    cost, keep = CostModel(graph), plan.mask(graph)
    whole = cost.flops(cost.everything())
    for weight in graph.writers:
        sets = weight.axes[weight.writes]
        gone = sets[~keep[sets]]
        wider = keep.copy()
        wider[gone[: step - len(sets[keep[sets]]) % step]] = True
        if len(gone) and 1 - cost.flops(wider) / whole >= plan.target["flops"]:
            return True
    return False


CRITERIA = {
    "similarity": "similarity",
    "literal": kprune.criteria.Similarity(guard=False, alpha=0.5),
    "stage": kprune.criteria.Similarity(coupling="stage"),
    "l1": "l1",
    "global": kprune.criteria.L1(ranking="global"),
    "random": "random",
}


@pytest.mark.parametrize("step", [2, 3, 4, 8])
@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_widths_are_rounded_and_the_target_is_met_as_closely_as_they_allow(staged, criterion, step):
    for target in (0.3, 0.6):
        limits = kprune.Limits(round_to=step)
        plan = kprune.plan_pruning(staged, target, criterion=criterion, limits=limits)
        assert is_rounded(plan, step) and removed(plan) >= target
        assert removed(plan) <= target + 0.01 or not can_come_back(plan, staged, step)


def test_widths_are_rounded_by_reconstruction_error_and_for_parameters(staged):
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    limits = kprune.Limits(round_to=8)
    plan = kprune.plan_pruning(staged, target_params=0.5, data=images, limits=limits)
    assert plan.criterion["name"] == "reconstruction_error"
    assert is_rounded(plan, 8) and removed(plan, "params") >= 0.5


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("step", [1, 2, 4])
def test_pruning_to_the_reachable_minimum_succeeds(structure, step):
    model, limits = build(structure), kprune.Limits(round_to=step)
    space = kprune.search_space(model, limits)
    for kind, criterion in (("flops", "l1"), ("params", "similarity"), ("flops", CRITERIA["stage"])):
        reachable = getattr(space, f"reachable_{kind}")
        target = {f"target_{kind}": reachable}
        if reachable == 0:
            continue
        plan = kprune.plan_pruning(model, **target, criterion=criterion, limits=limits)
        assert removed(plan, kind) == pytest.approx(reachable) and is_rounded(plan, step)
        with pytest.raises(kprune.TargetError) as error:
            kprune.plan_pruning(model, **{f"target_{kind}": min(reachable + 1e-6, 0.999999)}, limits=limits)
        assert error.value.reachable == pytest.approx(reachable)
    assert [layer.path for layer in space.layers] == [weight.path for weight in trace(model).writers]


def test_a_layer_without_a_multiple_in_its_range_stays_whole(staged):
    plan = kprune.plan_pruning(staged, 0.2, criterion="l1", limits=kprune.Limits(round_to=16))
    assert kept(plan)["stem"] in (16, 24) and kept(plan)["middle1"] in (16, 20)
    with pytest.raises(kprune.TargetError, match="at most"):
        kprune.plan_pruning(staged, 0.2, limits=kprune.Limits(round_to=32))


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_every_limit_holds_to_the_letter_at_the_reachable_minimum(staged, criterion):
    limits = kprune.Limits(exclude="middle2", min_channels=5, max_rate=0.6, round_to=4)
    space = kprune.search_space(staged, limits)
    plan = kprune.plan_pruning(staged, space.reachable_flops, criterion=criterion, limits=limits)
    # 24 filters: at least ceil(24 * 0.4) = 10, rounded up to 12; 20 filters: 8.
    assert kept(plan) == {"stem": 12, "middle1": 8, "end1": 12, "middle2": 20, "end2": 12, "logits": 3}
    assert {layer.path: layer.fewest for layer in space.layers} == kept(plan)


@pytest.mark.parametrize("target", [0.15, 0.4, 0.6])
def test_limits_hold_in_the_coupling_by_stages(staged, target):
    limits = kprune.Limits(include=["middle*", "end1"], min_channels=6, max_rate=0.7)
    with pytest.raises(kprune.TargetError) as error:
        kprune.plan_pruning(staged, 0.99, criterion=CRITERIA["stage"], limits=limits)
    target = min(target, error.value.reachable)
    widths = kept(kprune.plan_pruning(staged, target, criterion=CRITERIA["stage"], limits=limits))
    assert widths["stem"] == widths["end1"] == widths["end2"] == 24  # the stem is tied to end1 and not included
    assert min(widths["middle1"], widths["middle2"]) >= 6


def test_grouped_convs_are_rounded_by_what_goes_together():
    """Each set of "a" is one channel in each of four groups, each of "b" as well."""
    plan = kprune.plan_pruning(build(grouped), 0.2, criterion="l1", limits=kprune.Limits(round_to=8))
    assert kept(plan)["a"] == 8 and kept(plan)["b"] == 8


def test_rounding_agrees_where_streams_of_two_widths_share_channels():
    graph = trace(build(option_a))
    bounds, everything = bind(kprune.Limits(round_to=2), graph), np.ones(len(graph.sets), dtype=bool)
    narrow, wide = (w.axes[w.writes] for w in graph.writers[:2])
    gone = np.array([narrow[0], wide[0]])
    keep = bounds.rounded(everything, gone)
    assert keep[narrow].sum() % 2 == 0 and keep[wide].sum() % 2 == 0 and (~keep).sum() < 2


def test_a_criterion_that_leads_into_a_corner_still_meets_what_is_reachable():
    """ "a" writes channels 0 to 3 of the sum and "b" 2 to 5: one in the middle would do for both, and l1 takes these
    first; then each has to keep one of its own.
    """
    inputs = keras.Input((8, 8, 3))
    a, b = conv(inputs, 4, "a"), conv(inputs, 4, "b")
    before, after = ([[0, 0]] * 3 + [pair] for pair in ([2, 0], [0, 2]))
    model = randomize(keras.Model(inputs, conv(keras.ops.pad(a, after) + keras.ops.pad(b, before), 6, "c")))
    for name, middle in (("a", slice(2, 4)), ("b", slice(0, 2))):
        kernel, bias = model.get_layer(name).get_weights()
        kernel[..., middle] *= 1e-3
        model.get_layer(name).set_weights([kernel, bias])
    criterion = kprune.criteria.L1(ranking="global")
    widths = kept(kprune.plan_pruning(model, 0.4, criterion=criterion))
    assert widths["a"] == widths["b"] == 2  # the middle is gone, which meets 40 %
    reachable = kprune.search_space(model).reachable_flops
    widths = kept(kprune.plan_pruning(model, reachable, criterion=criterion))
    assert widths["a"] == widths["b"] == 1


def test_iterative_pruning_rounds_in_every_round(staged):
    shapes = []

    def fit(small):
        shapes.append({e.path: e.channels for e in kprune.model_cost(small).layers})

    for options in ({"rounds": 3, "criterion": "l1"}, {}):
        run = kprune.prune_iteratively(
            staged, fit, 0.5, limits=kprune.Limits(round_to=4), verbose=False, strict=True, **options
        )
        assert is_rounded(run.plan, 4) and removed(run.plan) >= 0.5
    assert all(shape[name] % 4 == 0 for shape in shapes for name in ("stem", "middle1", "middle2"))


def compiled(model):
    model.compile(keras.optimizers.SGD(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.parametrize(
    "callback",
    [
        lambda limits: kprune.SimilarityPruning(0.5, limits=limits, strict=True),
        lambda limits: kprune.GradualPruning("l1", 0.5, limits=limits, strict=True),
        lambda limits: kprune.GradualPruning("l1", channels_per_round=7, until_epoch=2, limits=limits),
    ],
)
def test_callbacks_round_after_every_round(callback):
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(pruning.plan)

    pruning, model = callback(kprune.Limits(round_to=4)), compiled(stage())
    x, y = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32"), np.arange(8) % 3
    model.fit(x, y, epochs=4, verbose=0, callbacks=[pruning, Look()])
    assert all(is_rounded(plan, 4) for plan in seen)
    small = kprune.strip(model)
    assert kept(pruning.plan) == {e.path: e.channels for e in kprune.model_cost(small).layers if e.channels}
    assert removed(pruning.plan) > 0.1


class Mixes(layers.Layer):
    def call(self, x):
        return x + keras.ops.mean(x, axis=-1, keepdims=True)


def with_barrier():
    inputs = keras.Input((8, 8, 3))
    x = Mixes(name="mixes")(conv(inputs, 8, "before"))
    return keras.Model(inputs, conv(conv(x, 8, "after"), 4, "last"))


def test_the_search_space_names_every_reason():
    space = kprune.search_space(with_barrier(), kprune.Limits(min_channels=3))
    rows = {layer.path: layer for layer in space.layers}
    assert "'mixes' is a barrier" in rows["before"].reason and not rows["before"].prunable
    assert rows["last"].reason == "it is a model output" and list(space.barriers) == ["mixes"]
    assert rows["after"].prunable and rows["after"].fewest == 3
    excluded = kprune.search_space(with_barrier(), kprune.Limits(exclude="after"))
    assert excluded.layers[1].reason == "the limits leave it out" and excluded.reachable_flops == 0
    whole = kprune.search_space(with_barrier(), kprune.Limits(round_to=16))
    assert whole.layers[1].reason == "the limits ask for all its filters"


def test_the_search_space_is_a_table():
    text = str(kprune.search_space(build(residual)))
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "filters", "fewest"]
    assert lines[1].split() == ["stem", "8", "1", "with", "end"] and lines[2].split() == ["middle", "6", "1"]
    assert "3 of 4 layers can be pruned." in lines and lines[-1].startswith("parameters: ")


def test_the_search_space_of_a_model_of_any_size_knows_its_parameters():
    inputs = keras.Input((None, None, 3))
    space = kprune.search_space(keras.Model(inputs, conv(conv(inputs, 8, "a"), 4, "b")))
    assert np.isnan(space.reachable_flops) and space.reachable_params > 0.5 and "any size" in str(space)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: kprune.search_space(model, strict=True),
        lambda model: kprune.plan_rates(model, {"after": 0.5}, strict=True),
        lambda model: kprune.prune_iteratively(model, lambda small: None, 0.3, strict=True),
        lambda model: kprune.find_target(model, lambda small: True, strict=True),
        lambda model: kprune.prune_model(model, 0.3, strict=True),
    ],
)
def test_strict_refuses_a_barrier_everywhere(call):
    with pytest.raises(kprune.ModelError, match="mixes.*strict=True"):
        call(with_barrier())


# rates by hand -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["l1", "similarity", "random"])
def test_each_layer_loses_the_rate_that_is_given(staged, criterion):
    plan = kprune.plan_rates(staged, {"middle*": 0.5, "middle2": 0.26, "stem": 0.25}, criterion=criterion)
    assert kept(plan) == {"stem": 18, "middle1": 10, "end1": 18, "middle2": 15, "end2": 18, "logits": 3}
    assert plan.target == {"rates": {"middle*": 0.5, "middle2": 0.26, "stem": 0.25}}
    assert kprune.Plan.from_dict({"schema": 1, **dataclasses.asdict(plan)}) == plan
    assert kprune.model_cost(kprune.apply_plan(staged, plan)).flops == plan.flops[1]


def test_the_filters_that_go_are_those_of_the_lowest_score(staged):
    kernel = keras.ops.convert_to_numpy(staged.get_layer("middle1").kernel)
    smallest = np.argsort(np.abs(kernel).sum(axis=(0, 1, 2)))[:6]
    plan = kprune.plan_rates(staged, {"middle1": 0.3}, criterion="l1")
    assert set(range(20)) - set(plan.layers[1].keep) == set(smallest.tolist())


def test_rates_are_rounded_up_to_the_widths_that_limits_ask_for(staged):
    plan = kprune.plan_rates(staged, {"*": 0.4}, criterion="l1", limits=kprune.Limits(round_to=8))
    assert kept(plan) == {"stem": 16, "middle1": 16, "end1": 16, "middle2": 16, "end2": 16, "logits": 3}


def test_streams_of_two_widths_each_lose_their_own_rate():
    plan = kprune.plan_rates(build(option_a), {"a": 0.5, "b": 0.5}, criterion="l1")
    assert kept(plan)["a"] == 2 and kept(plan)["b"] == 4


def test_what_goes_several_at_a_time_loses_no_more_than_asked():
    plan = kprune.plan_rates(build(grouped), {"b": 0.5}, criterion="l1")
    assert kept(plan)["b"] == 8  # floor(12 * 0.5) = 6, four at a time


def test_depthwise_convs_follow_their_inputs():
    plan = kprune.plan_rates(build(inverted_residual), {"expand": 0.5})
    assert kept(plan)["expand"] == 6


@pytest.mark.parametrize(
    "rates, limits, message",
    [
        ({"stem": 0.5, "end1": 0.25}, None, r"'stem' shall lose 12 .* loses 6, for it is tied to 'end1' \(rate 0.25\)"),
        ({"stem": 0.0, "end*": 0.5}, None, "'end1' shall lose 12 .* loses 0, for it is tied to 'stem'"),
        ({"middle1": 1.0}, None, "leave 0 channels in 'middle1'"),
        ({"middle1": 0.5}, kprune.Limits(max_rate=0.4), "leave 10 channels in 'middle1'.*at least 12"),
        ({"middle1": 0.5}, kprune.Limits(exclude="middle1"), "no filter of 'middle1' may go: the limits"),
        ({"logits": 0.5}, None, "no filter of 'logits' may go: it is a model output"),
        ({"log*": 0.5}, None, "no filter of 'logits' may go"),
        ({"mid*": 0.5, "*dle1": 0.2}, None, "'mid[*]' gives middle1 the rate 0.5, and '[*]dle1' gives it 0.2"),
    ],
)
def test_rates_that_cannot_be_are_refused(staged, rates, limits, message):
    with pytest.raises(kprune.OptionError, match=f"{message}.*Fix"):
        kprune.plan_rates(staged, rates, limits=limits)


def test_a_layer_that_the_limits_leave_out_says_so_in_the_plan():
    model, limits = build(residual), kprune.Limits(exclude="stem")
    by_rate = kprune.plan_rates(model, {"*": 0.4}, criterion="l1", limits=limits)
    for plan in (kprune.plan_pruning(model, 0.1, criterion="l1", limits=limits), by_rate):
        reasons = {entry.path: (entry.rate, entry.reason) for entry in plan.layers}
        assert reasons["stem"] == (0.0, "the limits leave it out") and "the limits leave it out" in plan.summary()
        assert sum(reason == "the limits leave it out" for _, reason in reasons.values()) < len(reasons)


def wide():
    inputs = keras.Input((4, 4, 3))
    x = layers.ReLU()(conv(inputs, 128, "a"))
    x = layers.Add()([x, conv(layers.ReLU()(conv(x, 96, "b")), 128, "c")])
    x = layers.ReLU()(conv(x, 24, "d"))
    return randomize(keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))))


# What the kernels of each runtime are made for, written out by hand.
PRESET_WIDTHS = {
    "litert": {16, 32, 64, 96, 128},
    "litert-int8": {16, 32, 48, 64, 80, 96, 112, 128},
    "onnxruntime": {16, 32, 48, 64, 80, 96, 112, 128},
    "tensorrt-fp16": {8 * n for n in range(1, 17)},
    "tensorrt-int8": {32, 64, 96, 128},
}


@pytest.mark.parametrize("preset", PRESET_WIDTHS)
@pytest.mark.parametrize("criterion", ["l1", "similarity", "random"])
def test_presets_are_kept_to_the_letter_and_the_target_is_met(preset, criterion):
    model, limits = wide(), kprune.Limits(round_to=preset)
    reachable = kprune.search_space(model, limits).reachable_flops
    for target in (0.3, 0.6, reachable):
        plan = kprune.plan_pruning(model, target, criterion=criterion, limits=limits)
        widths = {entry.path: (len(entry.keep), entry.filters) for entry in plan.layers}
        assert all(kept in PRESET_WIDTHS[preset] or kept == filters for kept, filters in widths.values())
        assert removed(plan) >= target - 1e-9 and widths["a"] == widths["c"]


def test_a_layer_narrower_than_a_preset_stays_whole():
    limits = kprune.Limits(round_to="tensorrt-int8")
    plan = kprune.plan_pruning(wide(), kprune.search_space(wide(), limits).reachable_flops, limits=limits)
    assert kept(plan) == {"a": 32, "b": 32, "c": 32, "d": 24, "logits": 3}


def test_rates_by_hand_are_rounded_up_to_the_widths_of_a_preset():
    plan = kprune.plan_rates(wide(), {"a": 0.6, "b": 0.5}, criterion="l1", limits=kprune.Limits(round_to="litert"))
    # Of 128 filters 52 would stay, of 96 filters 48; c is tied to a.
    assert kept(plan) == {"a": 64, "b": 64, "c": 64, "d": 24, "logits": 3}
