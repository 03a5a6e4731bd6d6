"""Pruning at once: compiled state, limits, plans on disk, strip, errors."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from models import build, chain, conv, inverted_residual, residual, run
from random_models import randomize

import kprune
from kprune.cost import CostModel
from kprune.graph import trace

layers = keras.layers


@pytest.fixture
def model():
    return build(residual)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 32)


def compiled(model, data, optimizer=None):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    model.fit(*data, epochs=2, batch_size=16, verbose=0)
    return model


def slot(model, name, which):
    """An optimizer variable of the kernel of a layer."""
    layer = model.get_layer(name)
    kernel = getattr(layer, "layer", layer).kernel
    index = [id(v) for v in model.trainable_variables].index(id(kernel))
    return keras.ops.convert_to_numpy(getattr(model.optimizer, which)[index])


def test_adam_moments_of_the_kept_filters_are_those_before(model, data):
    compiled(model, data)
    plan = kprune.plan_pruning(model, 0.4)
    small = kprune.apply_plan(model, plan)
    kept = {entry.path: list(entry.keep) for entry in plan.layers}
    for which in ("_momentums", "_velocities"):
        before = slot(model, "end", which)[:, :, kept["middle"]][..., kept["end"]]
        np.testing.assert_array_equal(slot(small, "end", which), before)
        assert np.abs(before).max() > 0
    assert int(small.optimizer.iterations) == int(model.optimizer.iterations)


@pytest.mark.parametrize("optimizer", ["Adam", "SGD", "RMSprop", "AdamW", "Lamb"])
def test_one_more_step_agrees_with_the_masked_model(model, data, optimizer):
    compiled(model, data, getattr(keras.optimizers, optimizer)(1e-3))
    plan = kprune.plan_pruning(model, 0.4)
    hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
    for either in (hard, soft):
        either.train_on_batch(*data)
    np.testing.assert_allclose(run(hard, data[0]), run(soft, data[0]), atol=1e-4)


def test_masks_of_a_soft_model_hold_while_it_trains_and_after_it_is_loaded(model, data, tmp_path):
    soft = kprune.prune_model(model, 0.4, mode="soft")
    soft.save(tmp_path / "soft.keras")
    loaded = compiled(keras.models.load_model(tmp_path / "soft.keras"), data)
    small = kprune.strip(loaded)
    assert kprune.model_cost(small).flops == kprune.model_cost(kprune.strip(soft)).flops
    np.testing.assert_allclose(run(small, data[0]), run(loaded, data[0]), atol=1e-5)
    assert np.abs(run(loaded, data[0]) - run(soft, data[0])).max() > 1e-3


def test_a_soft_model_trains_every_kept_weight(model, data):
    soft = kprune.prune_model(model, 0.4, mode="soft")
    assert len(soft.trainable_variables) == len(model.trainable_variables)


def test_the_input_model_is_never_changed(model, data):
    compiled(model, data)
    before = [np.copy(w) for w in model.get_weights()]
    for mode in ("hard", "soft"):
        kprune.prune_model(model, 0.5, mode=mode).fit(*data, verbose=0)
    kprune.strip(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_names_flags_and_regularizers_stay(data):
    model = build(chain)
    model.get_layer("a").trainable = False
    model.get_layer("b").kernel_regularizer = keras.regularizers.L2(1e-3)
    small = kprune.prune_model(model, 0.4)
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    assert not small.get_layer("a").trainable and small.get_layer("b").trainable
    assert float(small.get_layer("b").kernel_regularizer.l2) == pytest.approx(1e-3)
    assert type(small.get_layer("a").kernel_initializer) is type(model.get_layer("a").kernel_initializer)


def test_the_file_loads_in_a_process_that_never_imports_kprune(model, data, tmp_path):
    small = kprune.prune_model(model, 0.5)
    small.save(tmp_path / "small.keras")
    np.save(tmp_path / "x.npy", data[0])
    code = (
        "import sys, keras, numpy as np; m = keras.models.load_model('small.keras');"
        "np.save('y.npy', m.predict(np.load('x.npy'), verbose=0)); sys.exit('kprune' in sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), small.predict(data[0], verbose=0), atol=1e-5)


@pytest.mark.parametrize("criterion", ["similarity", "l1", "l2", "geometric_median", "random"])
def test_every_criterion_meets_the_target_deterministically(criterion):
    model = build(inverted_residual)
    first, second = (kprune.plan_pruning(model, 0.5, criterion=criterion) for _ in range(2))
    assert first == second
    assert first.flops[1] <= 0.5 * first.flops[0]


def test_parameters_can_be_the_target(model):
    plan = kprune.plan_pruning(model, target_params=0.6)
    assert plan.params[1] <= 0.4 * plan.params[0] and plan.target == {"params": 0.6}


@pytest.mark.parametrize("coupling", ["graph", "stage"])
@pytest.mark.parametrize("criterion", ["similarity", "l1"])
def test_limits_hold(model, coupling, criterion):
    if criterion == "similarity":
        criterion = kprune.criteria.Similarity(coupling=coupling)
    limits = kprune.Limits(exclude="stem", min_channels=3, max_rate=0.5)
    with pytest.raises(kprune.TargetError) as caught:
        kprune.plan_pruning(model, 0.9, criterion=criterion, limits=limits)
    plan = kprune.plan_pruning(model, caught.value.reachable - 1e-9, criterion=criterion, limits=limits)
    kept = {entry.path: (len(entry.keep), entry.filters) for entry in plan.layers}
    assert kept["stem"] == kept["end"] == (8, 8)
    assert kept["middle"][0] == 3
    included = kprune.plan_pruning(model, 0.2, criterion=criterion, limits=kprune.Limits(include=["mid*"]))
    assert [entry.path for entry in included.layers if entry.rate] == ["middle"]


def test_a_target_out_of_reach_names_the_reachable_one_and_that_one_succeeds(model):
    limits = kprune.Limits(min_channels=4)
    with pytest.raises(kprune.TargetError, match="at most") as caught:
        kprune.prune_model(model, 0.99, limits=limits)
    reachable = caught.value.reachable
    plan = kprune.plan_pruning(model, reachable - 1e-6, limits=limits)
    assert 1 - plan.flops[1] / plan.flops[0] == pytest.approx(reachable)


def test_a_plan_survives_json_and_gives_the_same_model(model, data, tmp_path):
    plan = kprune.plan_pruning(model, 0.5, criterion=kprune.criteria.Similarity(compensate=True))
    plan.save(tmp_path / "plan.json")
    again = kprune.Plan.load(tmp_path / "plan.json")
    assert again == plan and json.loads((tmp_path / "plan.json").read_text())["schema"] == 1
    np.testing.assert_array_equal(
        run(kprune.apply_plan(model, plan), data[0]), run(kprune.apply_plan(model, again), data[0])
    )


def test_a_plan_for_another_model_is_refused_with_the_difference(model):
    plan = kprune.plan_pruning(model, 0.5)
    with pytest.raises(kprune.PlanError, match=r"differ in .*stem|middle|a \(8"):
        kprune.apply_plan(build(chain), plan)


def changed(plan, path, keep):
    rows = tuple(
        kprune.selection.plan.LayerPlan(e.path, e.filters, keep if e.path == path else tuple(range(e.filters)))
        for e in plan.layers
    )
    return kprune.Plan(rows)


@pytest.mark.parametrize(
    "path, keep, message",
    [
        ("stem", (0, 1, 2), "tied"),
        ("logits", (0, 1), "frozen"),
        ("middle", (), "At least one"),
        ("middle", (0, 9), "At least one"),
        ("middle", (2, 1), "rising"),
    ],
)
def test_impossible_plans_are_refused(model, path, keep, message):
    plan = kprune.plan_pruning(model, 0.3)
    with pytest.raises(kprune.PlanError, match=message):
        kprune.apply_plan(model, changed(plan, path, keep))


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}', '{"schema": 1, "layers": 3}'])
def test_damaged_plan_files_are_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(kprune.PlanError, match="Expected"):
        kprune.Plan.load(tmp_path / "plan.json")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target_flops": 50},
        {"target_flops": 0},
        {"target_flops": "half"},
        {"target_flops": True},
        {"target_flops": 0.5, "target_params": 0.5},
        {"target_flops": 0.5, "criterion": "l7"},
        {"target_flops": 0.5, "criterion": 3},
        {"target_flops": 0.5, "mode": "medium"},
        {"target_flops": 0.5, "limits": 8},
        {"target_flops": 0.2, "limits": kprune.Limits(exclude="nothing_*")},
    ],
)
def test_wrong_options_are_refused(model, options):
    with pytest.raises(kprune.OptionError, match="Expected: .* Fix: "):
        kprune.prune_model(model, **options)


def test_nan_weights_are_refused(model):
    kernel = model.get_layer("middle").kernel
    kernel.assign(keras.ops.full(kernel.shape, np.nan))
    with pytest.raises(kprune.ModelError, match="middle.*NaN"):
        kprune.prune_model(model, 0.5)


def test_unknown_input_size_is_refused_for_flops_and_works_for_parameters():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(conv(conv(inputs, 8, "a"), 4, "b")))
    with pytest.raises(kprune.ModelError, match="any size"):
        kprune.prune_model(model, 0.5)
    assert kprune.prune_model(model, target_params=0.4).count_params() <= 0.6 * model.count_params()


class AnyLength(keras.layers.Layer):
    """Leaves out the empty places, as many as there may be; it cannot be opened for it has a weight of its own."""

    def build(self, shape):
        self.scale = self.add_weight(shape=())

    def call(self, x):
        return x * self.scale

    def compute_output_spec(self, x):
        return keras.KerasTensor((x.shape[0], None, *x.shape[2:]), x.dtype)


def test_a_layer_that_hides_a_size_is_named():
    inputs = keras.Input((8, 8, 3))
    x = AnyLength(name="sift")(keras.layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(4, 3)(x)))
    with pytest.raises(kprune.ModelError, match="What 'sift' in"):
        kprune.plan_pruning(model, 0.5)


def test_flops_that_cannot_be_counted_are_told(caplog):
    inputs = keras.Input((8, 8, 3))
    x = conv(inputs, 6, "a")
    x = layers.SpectralNormalization(layers.Conv2D(4, 3), name="hidden")(conv(x, 6, "b"))
    kprune.plan_pruning(keras.Model(inputs, layers.GlobalMaxPooling2D()(x)), 0.2, criterion="l1")
    assert "The FLOPs of 'hidden' are not counted" in caplog.text


@pytest.mark.tensorflow
def test_a_width_at_which_keras_misplaces_the_bias_is_told(caplog):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 4, 4))
    x = keras.layers.Conv2D(6, 3, padding="same", data_format="channels_first", name="conv")(inputs)
    outputs = keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D(data_format="channels_first")(x))
    model = keras.Model(inputs, outputs)
    model.get_layer("conv").bias.assign(np.arange(6.0))
    for left, told in ((4, True), (5, False)):
        caplog.clear()
        plan = kprune.plan_rates(model, {"conv": 1 - left / 6})
        hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
        images = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype("float32")
        assert np.allclose(hard(images), soft(images), atol=1e-5) == (not told)
        assert ("'conv' has now as many filters" in caplog.text) == told


# strip ---------------------------------------------------------------------------------------------------------------


def zero_filter(model, name, index, bias=0.0):
    layer = model.get_layer(name)
    kernel, bias_value = layer.get_weights()
    kernel[..., index], bias_value[index] = 0, bias
    layer.set_weights([kernel, bias_value])


def two_convs(activation):
    inputs = keras.Input((8, 8, 3))
    x = layers.Activation(activation)(conv(inputs, 8, "a"))
    return randomize(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(conv(x, 5, "b")))))


@pytest.mark.parametrize(
    "activation, bias, left",
    [("relu", 0.0, 7), ("relu", -1.0, 7), ("relu", 1.0, 8), ("sigmoid", 0.0, 8), ("tanh", 0.0, 7)],
)
def test_strip_removes_exact_zeros_and_keeps_constants(data, activation, bias, left):
    model = two_convs(activation)
    zero_filter(model, "a", 3, bias)
    small = kprune.strip(model)
    assert small.get_layer("a").filters == left
    np.testing.assert_allclose(run(small, data[0]), run(model, data[0]), atol=1e-5)


def test_strip_removes_a_constant_that_nobody_reads(data):
    model = two_convs("sigmoid")
    kernel, bias = model.get_layer("b").get_weights()
    kernel[:, :, 2] = 0
    model.get_layer("b").set_weights([kernel, bias])
    small = kprune.strip(model)
    assert small.get_layer("a").filters == 7
    np.testing.assert_allclose(run(small, data[0]), run(model, data[0]), atol=1e-5)


def test_strip_sees_through_batch_normalization(data):
    model = build(chain)
    norm = next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    gamma, beta, mean, variance = norm.get_weights()
    gamma[2] = beta[2] = 0
    norm.set_weights([gamma, beta, mean, variance])
    assert kprune.strip(model).get_layer("a").filters == 8  # sigmoid(0) is read by the next conv
    model.layers[3].activation = keras.activations.relu
    small = kprune.strip(model)
    assert small.get_layer("a").filters == 7
    np.testing.assert_allclose(run(small, data[0]), run(model, data[0]), atol=1e-5)


def test_strip_of_a_model_without_zeros_changes_nothing(model, data):
    same = kprune.strip(model)
    np.testing.assert_array_equal(run(same, data[0]), run(model, data[0]))
    assert same.count_params() == model.count_params()


def test_strip_leaves_a_channel_in_a_layer_that_is_all_zero(data):
    model = two_convs("relu")
    for index in range(8):
        zero_filter(model, "a", index)
    small = kprune.strip(model)
    assert small.get_layer("a").filters == 1
    np.testing.assert_allclose(run(small, data[0]), run(model, data[0]), atol=1e-6)


# repairs -------------------------------------------------------------------------------------------------------------


def test_compensation_restores_a_twin_exactly(data):
    model = two_convs("relu")
    kernel, bias = model.get_layer("a").get_weights()
    kernel[..., 5], bias[5] = 2 * kernel[..., 1], 2 * bias[1]
    bias[:] = 0
    model.get_layer("a").set_weights([kernel, bias])
    plan = kprune.plan_pruning(
        model,
        0.1,
        criterion=kprune.criteria.Similarity(3.0, 0.1, "cosine", compensate=True),
        limits=kprune.Limits(include="a"),
    )
    assert len(plan.layers[0].keep) == 7
    small = kprune.apply_plan(model, plan)
    np.testing.assert_allclose(run(small, data[0]), run(model, data[0]), rtol=1e-4, atol=1e-4)


def test_recalibration_gives_the_statistics_of_the_data_and_changes_nothing_else(data):
    model = build(chain)
    copy = kprune.recalibrate_batchnorm(model, data[0])
    entering = keras.Model(model.input, model.get_layer("a").output)
    x = keras.ops.convert_to_numpy(entering(data[0]))
    norm = next(layer for layer in copy.layers if isinstance(layer, layers.BatchNormalization))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(norm.moving_mean), x.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(norm.moving_variance), x.var((0, 1, 2)), rtol=1e-4)
    for one, other in zip(copy.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))


def test_recalibration_in_batches_pools_mean_and_variance(data):
    whole = kprune.recalibrate_batchnorm(build(chain), data[0])
    parts = kprune.recalibrate_batchnorm(build(chain), [(data[0][:20],), (data[0][20:], data[1][20:])])
    for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# structures ----------------------------------------------------------------------------------------------------------


def test_stage_coupling_takes_the_same_rate_from_every_layer_of_a_stage():
    inputs = keras.Input((8, 8, 3))
    x = conv(inputs, 24, "stem")
    for block in (1, 2):
        x = layers.Add()([x, conv(layers.ReLU()(conv(x, 24, f"middle{block}")), 24, f"end{block}")])
    model = randomize(keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))))
    graph = trace(model)
    comparison = kprune.selection.Comparison(graph, kprune.criteria.Similarity(alpha=0.2, ratio=0.3, coupling="stage"))
    bounds = kprune.selection.bind(None, graph)
    going, _, _ = comparison.candidates(CostModel(graph).everything(), bounds, 0.3)
    lost = [np.isin(w.axes[w.writes], going).sum() for w in graph.writers[:-1]]
    assert len(set(lost)) == 1 and lost[0] > 0
    middle = [w for w in graph.writers if "middle" in w.path]
    own = [comparison.criterion.redundant(w.value()).mean() for w in middle]  # of each middle layer, asked by itself
    assert own[0] != own[1] and lost[0] <= np.floor(min(own) * 24 + 1e-9)


def test_every_layer_of_a_stage_loses_its_share_rounded_down():
    """`floor(rate * N)` of each layer, the stream included, by the literal rule; the middle layers differ in width."""
    inputs = keras.Input((8, 8, 3))
    x = conv(inputs, 20, "stem")
    for block, filters in ((1, 24), (2, 37)):
        middle = layers.ReLU()(conv(x, filters, f"middle{block}"))
        x = layers.Add()([x, conv(middle, 20, f"end{block}")])
    model = randomize(keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))))
    graph, literal = trace(model), kprune.criteria.Similarity(alpha=0.2, ratio=0.3, coupling="stage", guard=False)
    comparison = kprune.selection.Comparison(graph, literal)
    going, _, _ = comparison.candidates(CostModel(graph).everything(), kprune.selection.bind(None, graph), 0.3)
    rate = min(literal.redundant(w.value()).mean() for w in graph.writers if "middle" in w.path)
    lost = {w.path: np.isin(w.axes[w.writes], going).sum() for w in graph.writers[:-1]}
    widths = {"stem": 20, "middle1": 24, "end1": 20, "middle2": 37, "end2": 20}
    assert 0 < rate < 1 and lost == {path: np.floor(rate * width + 1e-9) for path, width in widths.items()}


def clusters(count, size, others, rng):
    """A kernel `[1, 1, 64, filters]` with clusters of nearly the same filters, and others that lie far apart."""
    centres = rng.normal(size=(count, 64))
    near = np.concatenate([centre + 1e-3 * rng.normal(size=(size, 64)) for centre in centres])
    return np.concatenate([near, rng.normal(size=(others, 64))]).T[None, None]


@pytest.mark.parametrize("coupling", ["graph", "stage"])
def test_the_guard_leaves_one_of_each_cluster(coupling):
    inputs, rng = keras.Input((4, 4, 64)), np.random.default_rng(0)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(64, 1, name="clusters")(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    model.get_layer("clusters").set_weights([clusters(2, 20, 24, rng), np.zeros(64)])
    criterion, graph = kprune.criteria.Similarity(ratio=0.25, coupling=coupling), trace(model)
    comparison, bounds = kprune.selection.Comparison(graph, criterion), kprune.selection.bind(None, graph)
    going, _, relaxed = comparison.candidates(CostModel(graph).everything(), bounds, 0.25)
    lost = np.isin(graph.writers[0].axes[graph.writers[0].writes], going)
    assert relaxed is None and [lost[:20].sum(), lost[20:40].sum(), lost[40:].sum()] == [19, 19, 0]


def test_the_rate_of_a_stage_is_of_filters_not_of_the_inputs_of_a_dense_block():
    block = inputs = keras.Input((4, 4, 8))
    block = layers.Conv2D(16, 1, name="first")(block)
    for name in ("second", "third"):
        block = layers.Concatenate()([block, layers.Conv2D(16, 1, name=name)(block)])
    behind = layers.Conv2D(20, 1, name="behind")(layers.Conv2D(32, 1, name="reader")(block))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(behind)))
    graph = trace(randomize(model))
    literal = kprune.criteria.Similarity(alpha=0.5, ratio=0.2, coupling="stage", guard=False)
    comparison, everything = kprune.selection.Comparison(graph, literal), CostModel(graph).everything()
    views = comparison.views(everything)
    assert any(not view.writes for view in views)
    going, _, _ = comparison.candidates(everything, kprune.selection.bind(None, graph), 0.2)
    for view in views:
        if view.writes:
            alone = literal.redundant(np.moveaxis(view.weight.value(), view.weight.writes, -1)).mean()
            assert comparison.own_rate(view, 0.2) == alone
            assert np.isin(view.sets, going).mean() == pytest.approx(alone)


def test_dense_blocks_are_judged_by_what_their_readers_make_of_a_channel():
    from models import dense_block

    model = build(dense_block)
    layer = model.get_layer("transition")
    kernel, bias = layer.get_weights()
    kernel[:, :, 10:] = kernel[:, :, 10:11]  # the reader treats the channels of "two" and "three" after the first alike
    layer.set_weights([kernel, bias])
    plan = kprune.plan_pruning(model, 0.15)
    kept = {entry.path: set(entry.keep) for entry in plan.layers}
    gone = {path: set(range(4)) - kept[path] for path in ("two", "three")}
    assert gone["two"] | gone["three"]
