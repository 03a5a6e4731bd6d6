"""Pruning while training: the target, its schedule, and that masks survive what people do with `fit`."""

import logging

import keras
import numpy as np
import pytest
from models import run
from random_models import randomize
from training_runs import assert_masked, build, compiled, fit, gradual, pruning

import kprune
from kprune.graph.dead_channels import masked_sets
from kprune.pruning.callbacks.schedule import EpochSchedule

either = pytest.mark.parametrize("kind", ["similarity", "gradual"])


def several():
    """Two optimizers, of which one writes an average over the weights when training ends."""
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    optimizers = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.05, momentum=0.9))
    optimizers["middle.*"] = keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9)
    return keras.optimizers.MultiOptimizer(optimizers)


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=1e-2),
    "adamw": lambda: keras.optimizers.AdamW(1e-2),
    "ema": lambda: keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9),
    "ema_overwrites": lambda: keras.optimizers.Adam(1e-2, use_ema=True, ema_overwrite_frequency=2),
    "accumulation": lambda: keras.optimizers.Adam(1e-2, gradient_accumulation_steps=2),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2)),
    "several": several,
}


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "similarity") for name in OPTIMIZERS), ("sgd", "gradual"), ("ema", "gradual")]
)
def test_the_target_is_met_and_masks_hold_with_every_optimizer(data, name, kind):
    model, callback = compiled(OPTIMIZERS[name]()), pruning(kind=kind)
    fit(model, data, callback)
    assert_masked(model, callback, data)


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"steps_per_execution": 3}, {"jit_compile": False}])
def test_masks_hold_however_the_step_is_run(data, options):
    if options.get("steps_per_execution") and keras.backend.backend() == "torch":
        pytest.skip("Keras runs one step at a time on PyTorch")
    model, callback = compiled(**options), pruning()
    fit(model, data, callback)
    assert_masked(model, callback, data)


@pytest.mark.parametrize("criterion", [None, "relevance"])
def test_mixed_precision(data, criterion):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, callback = compiled(), pruning() if criterion is None else gradual(criterion=criterion, data=data)
        fit(model, data, callback)
        assert_masked(model, callback, data)
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_target_is_reached_after_two_thirds_and_the_rest_fine_tunes(data):
    model = compiled()
    history = fit(model, data, pruning(), epochs=6).history["pruned_flops"]
    assert history[0] == 0 < history[1] < 0.5 <= history[4] == history[5]


@either
def test_progress_is_at_least_linear(data, kind):
    callback = pruning(0.6, kind, until_epoch=6)
    history = fit(compiled(), data, callback, epochs=6).history["pruned_flops"]
    assert all(share >= 0.6 * epoch / 6 - 1e-9 for epoch, share in enumerate(history))
    assert callback.plan.flops[1] <= 0.4 * callback.plan.flops[0]


@pytest.mark.parametrize(
    "options, epochs, rounds",
    [
        ({}, 6, [0, 1, 2, 3]),
        ({"until_epoch": 2}, 6, [0, 1]),
        ({"start_epoch": 2}, 6, [2, 3]),
        ({"every_epochs": 2, "until_epoch": 5}, 6, [0, 2, 4]),
        ({}, 1, [0]),
    ],
)
def test_schedule(options, epochs, rounds):
    assert EpochSchedule(**options).rounds(0, epochs) == rounds


@pytest.mark.parametrize(
    "options", [{"start_epoch": -1}, {"every_epochs": 0}, {"until_epoch": 1.5}, {"start_epoch": 3, "until_epoch": 2}]
)
def test_wrong_schedules_are_refused(options):
    with pytest.raises(kprune.OptionError, match="Fix"):
        kprune.SimilarityPruning(0.5, **options)


def test_a_second_fit_without_the_callback_keeps_the_masks(data):
    model, callback = compiled(), pruning()
    fit(model, data, callback)
    fit(model, data)
    assert_masked(model, callback, data)


@either
def test_a_second_fit_with_the_callback_goes_on_from_the_masks(data, kind):
    model, callback = compiled(), pruning(0.5, kind, until_epoch=4)
    fit(model, data, callback, epochs=2)
    first = callback.plan
    fit(model, data, callback, epochs=4, initial_epoch=2)
    for before, after in zip(first.layers, callback.plan.layers, strict=True):
        assert set(after.keep) <= set(before.keep)
    assert_masked(model, callback, data)


def test_validation_data_sees_the_masked_model(data):
    model, callback = compiled(), pruning()
    history = fit(model, data, callback, validation_data=data).history
    assert history["val_loss"][-1] == pytest.approx(model.evaluate(*data, verbose=0)[0], rel=1e-3)


def test_a_run_that_ends_early_says_how_far_it_came(data, caplog):
    model, callback = compiled(), pruning(0.6, until_epoch=6)
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=100.0)
    with caplog.at_level(logging.WARNING, "kprune"):
        fit(model, data, callback, epochs=6, extra=[stop])
    assert "Training ended before the target" in caplog.text and "60.00 %" in caplog.text
    assert 0 < 1 - callback.plan.flops[1] / callback.plan.flops[0] < 0.6


@either
def test_a_checkpoint_strips_after_it_is_loaded(data, tmp_path, kind):
    model, callback = compiled(), pruning(kind=kind)
    fit(model, data, callback, extra=[keras.callbacks.ModelCheckpoint(tmp_path / "c.keras")])
    loaded = keras.models.load_model(tmp_path / "c.keras")
    np.testing.assert_allclose(run(kprune.strip(loaded), data[0]), run(model, data[0]), atol=1e-4)
    assert kprune.model_cost(kprune.strip(loaded)).flops == callback.plan.flops[1]


@pytest.mark.parametrize(("order", "kind"), [(1, "similarity"), (-1, "similarity"), (1, "gradual")])
def test_weights_put_back_by_early_stopping_keep_the_masks_of_their_epoch(data, order, kind):
    model, callback = compiled(), pruning(0.6, kind, until_epoch=4)
    stop = keras.callbacks.EarlyStopping("loss", mode="max", patience=1, restore_best_weights=True, start_from_epoch=1)
    fit(model, data, epochs=6, extra=[callback, stop][::order])
    small = kprune.strip(model)
    assert 0 < 1 - callback.plan.flops[1] / callback.plan.flops[0]
    assert kprune.model_cost(small).flops == callback.plan.flops[1]
    np.testing.assert_allclose(run(small, data[0]), run(model, data[0]), atol=1e-4)


def test_weights_put_back_from_before_the_last_round_are_told(data, caplog):
    model, callback = compiled(), pruning(0.5, until_epoch=3)
    stop = keras.callbacks.EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True)
    with caplog.at_level(logging.WARNING, "kprune"):
        fit(model, data, epochs=4, extra=[stop, callback])
    assert 1 - callback.plan.flops[1] / callback.plan.flops[0] < 0.5
    assert "were put back" in caplog.text


def test_a_metric_of_many_numbers_is_left_out_of_the_record(data):
    model, callback = build(), pruning()
    metrics = [keras.metrics.F1Score(average=None)]
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=metrics)
    fit(model, (data[0], np.eye(3, dtype="float32")[data[1]]), callback)
    assert "f1_score" not in callback.record.history and callback.record.history["loss"][-1] > 0


def test_two_pruning_callbacks_in_one_fit_are_refused(data):
    model = compiled()
    with pytest.raises(kprune.OptionError, match="Two callbacks prune"):
        fit(model, data, pruning(), extra=[gradual()])
    fit(model, data, pruning())  # and one after the other is fine


@either
def test_a_schedule_that_is_over_before_fit_begins_is_refused(data, kind):
    model, callback = compiled(), pruning(kind=kind, until_epoch=2)
    with pytest.raises(kprune.OptionError, match="initial_epoch=4"):
        fit(model, data, callback, epochs=6, initial_epoch=4)
    fit(model, data, callback, epochs=2)
    fit(model, data, callback, epochs=6, initial_epoch=4)  # now that the target is met
    assert_masked(model, callback, data)


class Killed(Exception):
    pass


class KillAfter(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.last = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.last:
            raise Killed


SIMILARITY = {"target_flops": 0.5}
RELEVANCE = {"criterion": "relevance", "channels_per_round": 3}


@pytest.mark.parametrize(
    ("order", "until", "options"),
    [
        *((order, until, SIMILARITY) for order in (1, -1) for until in (4, None)),
        (1, None, RELEVANCE),
    ],
)
def test_a_killed_run_resumes_with_the_same_masks(data, tmp_path, order, until, options):
    def run_once(folder, extra=()):
        keras.utils.set_random_seed(3)
        kind = kprune.GradualPruning if "criterion" in options else kprune.SimilarityPruning
        given = {"data": data} if "criterion" in options else {}
        model, callback = compiled(), kind(**options, **given, until_epoch=until)
        backup = keras.callbacks.BackupAndRestore(folder)
        fit(model, data, epochs=6, extra=[*[callback, backup][::order], *extra], shuffle=False)
        return model, callback

    whole, expected = run_once(tmp_path / "whole")
    with pytest.raises(Killed):
        run_once(tmp_path / "killed", [KillAfter(2)])
    resumed, callback = run_once(tmp_path / "killed")
    assert [e.keep for e in callback.plan.layers] == [e.keep for e in expected.plan.layers]
    np.testing.assert_allclose(run(resumed, data[0]), run(whole, data[0]), rtol=1e-3, atol=1e-3)


@either
def test_the_model_is_the_users_own_and_saves_without_kprune(data, tmp_path, kind):
    model = compiled()
    before = [id(v) for v in model.weights]
    fit(model, data, pruning(kind=kind))
    assert [id(v) for v in model.weights] == before
    model.save(tmp_path / "m.keras")
    assert "kprune" not in str(keras.models.load_model(tmp_path / "m.keras").get_config())


def test_a_constraint_of_the_users_goes_on_working(data):
    model = build()
    model.get_layer("middle").kernel.constraint = keras.constraints.MaxNorm(0.3, axis=[0, 1, 2])
    callback = pruning()
    fit(compiled(model=model), data, callback)
    kernel = keras.ops.convert_to_numpy(model.get_layer("middle").kernel)
    assert np.sqrt(np.square(kernel).sum((0, 1, 2))).max() <= 0.3 + 1e-5
    assert_masked(model, callback, data)


def test_limits_and_parameters_as_a_target(data):
    callback = kprune.SimilarityPruning(target_params=0.4, limits=kprune.Limits(exclude="middle"))
    fit(compiled(), data, callback)
    assert callback.plan.params[1] <= 0.6 * callback.plan.params[0]
    assert next(e for e in callback.plan.layers if e.path == "middle").rate == 0


def test_options_of_the_method_reach_the_plan_and_compensation_is_refused(data):
    callback = kprune.SimilarityPruning(0.3, alpha=0.8, ratio=0.25, coupling="stage")
    fit(compiled(), data, callback)
    options = callback.plan.criterion
    assert (options["alpha"], options["ratio"], options["coupling"]) == (0.8, 0.25, "stage")
    with pytest.raises(kprune.OptionError, match="compensate"):
        kprune.SimilarityPruning(0.3, compensate=True)


def test_the_record_has_a_round_each_with_rates_costs_and_the_metrics_of_the_training_after_it(data):
    model, callback = compiled(), pruning(0.5, every_epochs=2, until_epoch=5)
    history = fit(model, data, callback, epochs=7).history
    record = callback.record.history
    assert record["epoch"] == [0, 2, 4]
    assert record["loss"] == [history["loss"][epoch] for epoch in (2, 4, 6)]
    assert record["pruned_flops"] == [history["pruned_flops"][epoch] for epoch in (2, 4, 6)]
    assert record["rates"][-1] == {entry.path: entry.rate for entry in callback.plan.layers if entry.reason is None}
    assert (record["flops"][-1], record["params"][-1]) == (callback.plan.flops[1], callback.plan.params[1])


@pytest.mark.parametrize(
    ("target", "kind", "options"),
    [(0.5, "similarity", {}), (0.5, "gradual", {}), (None, "gradual", {"channels_per_round": 9})],
)
def test_an_unreachable_target_is_refused_before_the_first_step(data, target, kind, options):
    model = compiled()
    before = model.get_weights()
    with pytest.raises(kprune.TargetError, match="(?i)at most"):
        fit(model, data, pruning(target, kind, limits=kprune.Limits(min_channels=11), **options))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_masks_are_read_from_whole_zeros_only():
    model = build()
    kernel, bias = model.get_layer("middle").get_weights()
    kernel[..., 4] = 0
    model.get_layer("middle").set_weights([kernel, bias])
    assert not masked_sets(kprune.graph.trace(model)).any()  # its reader still has weights for it


@either
def test_frozen_layers_are_pruned_as_the_others_are(data, kind):
    model = build()
    for name in ("stem", "bn0", "middle", "bn1"):
        model.get_layer(name).trainable = False
    callback = pruning(kind=kind)
    history = fit(compiled(model=model), data, callback).history
    assert_masked(model, callback, data)
    small, (whole, left) = kprune.model_cost(kprune.strip(model)), callback.plan.flops
    assert small.flops == left
    assert history["pruned_flops"][-1] == pytest.approx(1 - left / whole)
    assert callback.record.history["flops"][-1] == left
    for name in ("stem", "bn0", "middle", "bn1"):
        model.get_layer(name).trainable = True
    fit(compiled(model=model), data)
    assert kprune.model_cost(kprune.strip(model)).flops == left


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_round_follows_from_the_weights_alone(data, seed, guard):
    def model():
        return compiled(keras.optimizers.SGD(0.0), randomize(build(), seed=seed))

    options = {"target": 0.6, "guard": guard, "until_epoch": 5}
    whole, parts = model(), model()
    fit(whole, data, pruning(**options), epochs=5)
    fit(parts, data, pruning(**options), epochs=2)
    fit(parts, data, pruning(**options), epochs=5, initial_epoch=2)
    for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_array_equal(one == 0, other == 0)


def test_masks_do_not_pile_up_over_fits(data):
    model, callback = compiled(), pruning()
    counts = []
    for epoch in range(3):
        fit(model, data, callback, epochs=epoch + 1, initial_epoch=epoch)
        counts.append(len(callback._masks._masks))
    assert len(set(counts)) == 1
