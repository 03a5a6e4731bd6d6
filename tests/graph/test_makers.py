"""Every layer that makes channels is told, with a reason where none may go; FLOPs of models for inputs of any size."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from independent_cost import count_flops

import kprune
from kprune import OptionError, PlanError

layers, ops = keras.layers, keras.ops


def model_of(shape, build, **options):
    inputs = keras.Input(shape, **options)
    return keras.Model(inputs, build(inputs), name="net")


def keyword_spotter():
    def build(x):
        x = layers.Conv1D(12, 3, activation="relu", name="front")(x)
        x = layers.Bidirectional(layers.GRU(6, return_sequences=True), name="both")(x)
        return layers.Dense(3, name="words")(layers.LSTM(5, name="last")(x))

    return model_of((20, 4), build)


def text_classifier():
    def build(x):
        x = layers.Embedding(30, 8, mask_zero=True, name="letters")(x)
        x = layers.SimpleRNN(7, return_sequences=True, name="simple")(x)
        x = layers.RNN([layers.LSTMCell(6), layers.GRUCell(9)], name="cells")(x)
        return layers.Dense(2, name="head")(layers.Dense(10, activation="relu", name="hidden")(x))

    return model_of((15,), build, dtype="int32")


def video():
    def build(x):
        x = layers.TimeDistributed(layers.Conv2D(6, 3, padding="same", name="frame"), name="frames")(x)
        x = layers.ConvLSTM2D(5, 3, name="moving")(x)
        return layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x))

    return model_of((4, 8, 8, 2), build)


def nested():
    inner = keras.Sequential(
        [keras.Input((10, 6)), layers.LSTM(5, return_sequences=True, name="inside")], name="encoder"
    )
    return model_of((10, 6), lambda x: layers.Dense(3, name="head")(layers.GRU(4, name="outside")(inner(x))))


def unknown_layer():
    class Own(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 7), name="kernel")

        def call(self, x):
            return ops.matmul(ops.sort(x, axis=-1), self.kernel)

    return model_of(
        (6, 6, 3), lambda x: layers.Conv2D(2, 1, name="head")(Own(name="own")(layers.PReLU(name="slope")(x)))
    )


# {structure: (model, {layer that cannot lose a channel: (channels, what its reason says)})}.
FIXED = {
    "keyword spotter": (keyword_spotter, {"both": (12, "feed one another"), "last": (5, "feed one another")}),
    "text classifier": (
        text_classifier,
        {"letters": (8, "'letters' whole"), "simple": (7, "feed one another"), "cells": (9, "barrier")},
    ),
    "video": (video, {"moving": (5, "ConvLSTM2D")}),
    "nested": (nested, {"encoder/inside": (5, "feed one another"), "outside": (4, "feed one another")}),
    "a layer of one's own": (unknown_layer, {"own": (7, "no rule for Own")}),
}


@pytest.mark.parametrize("structure", FIXED)
def test_every_layer_that_makes_channels_is_listed(structure):
    build, expected = FIXED[structure]
    model = build()
    space = kprune.search_space(model)
    found = {entry.path: entry for entry in space.layers}
    for path, (channels, words) in expected.items():
        assert found[path].filters == found[path].fewest == channels and words in found[path].reason
        assert f"{path} " in str(space)
    names = [entry.path.split("/")[0] for entry in space.layers]
    order = [layer.name for layer in model.layers]
    assert names == sorted(names, key=order.index) and "slope" not in names


@pytest.mark.parametrize("structure", ["keyword spotter", "text classifier"])
def test_plans_list_them_and_are_replayed(structure, tmp_path):
    build, expected = FIXED[structure]
    model = build()
    plan = kprune.plan_pruning(model, target_params=0.02)
    rows = {entry.path: entry for entry in plan.layers}
    for path, (channels, words) in expected.items():
        assert len(rows[path].keep) == channels and words in rows[path].reason and path in plan.summary()
    plan.save(tmp_path / "plan.json")
    small = kprune.apply_plan(model, kprune.Plan.load(tmp_path / "plan.json"))
    assert small.count_params() == plan.params[1] < model.count_params()
    second = kprune.plan_pruning(small, target_params=0.005)
    assert kprune.apply_plan(model, plan.followed_by(second)).count_params() == second.params[1]
    report = kprune.Report([kprune.Measurement("net")], plan).html()
    assert all(path in report for path in expected)


def test_a_plan_from_before_they_were_listed_still_applies():
    model = keyword_spotter()
    plan = kprune.plan_pruning(model, target_params=0.05)
    before = dataclasses.replace(plan, layers=tuple(e for e in plan.layers if e.path not in ("both", "last")))
    assert kprune.apply_plan(model, before).count_params() == plan.params[1]


def test_a_plan_that_takes_their_channels_is_refused():
    model = keyword_spotter()
    plan = kprune.plan_pruning(model, target_params=0.05)
    rows = [dataclasses.replace(e, keep=e.keep[1:]) if e.path == "last" else e for e in plan.layers]
    with pytest.raises(PlanError, match="4 of the 5 channels of 'last'.*feed one another"):
        kprune.apply_plan(model, dataclasses.replace(plan, layers=tuple(rows)))


def test_they_can_be_named():
    model = keyword_spotter()
    assert kprune.plan_pruning(model, target_params=0.05, limits=kprune.Limits(exclude=["last", "both"]))
    with pytest.raises(OptionError, match="no filter of 'last' may go.*feed one another"):
        kprune.plan_rates(model, {"last": 0.5})
    assert kprune.plan_rates(model, {"front": 0.5, "l*": 0.0})


# ---------------------------------------------------------------------------------------------- inputs of any size


def any_size(shape):
    def build(x):
        x = layers.BatchNormalization()(layers.Conv2D(16, 3, strides=2, padding="same", name="stem")(x))
        y = layers.ReLU()(layers.DepthwiseConv2D(3, padding="same", name="depth")(x))
        x = x + layers.Conv2D(16, 1, name="point")(y)
        x = layers.UpSampling2D(2)(
            layers.Conv2DTranspose(8, 2, 2, name="up")(layers.SeparableConv2D(12, 3, name="sep")(x))
        )
        return layers.Dense(4, name="per_pixel")(x)

    return model_of((*shape, 3), build)


def classifier(shape):
    return model_of(
        (*shape, 3),
        lambda x: layers.Dense(5, name="head")(
            layers.Dense(9, name="hidden")(layers.GlobalAveragePooling2D()(layers.Conv2D(10, 3, name="conv")(x)))
        ),
    )


def with_a_model_inside(shape):
    inner = any_size((None, None))
    inner.name = "backbone"
    return model_of(
        (*shape, 3), lambda x: layers.Conv2D(2, 3, name="after")(inner(layers.Conv2D(3, 3, name="before")(x)))
    )


def sequence(shape):
    def build(x):
        x = layers.LSTM(5, return_sequences=True)(layers.Conv1D(8, 3, name="front")(x))
        return layers.TimeDistributed(layers.Dense(3), name="each")(x)

    return model_of((shape[0], 4), build)


SIZED = {"any size": any_size, "classifier": classifier, "a model inside": with_a_model_inside, "sequence": sequence}


def assert_same_cost(found, wanted):
    """Equal but for the names that Keras gives anew."""
    assert dataclasses.replace(found, layers=()) == dataclasses.replace(wanted, layers=())
    assert [(x.flops, x.params, x.channels) for x in found.layers] == [
        (x.flops, x.params, x.channels) for x in wanted.layers
    ]


@pytest.mark.parametrize("size", [(20, 28), (33, 17)])
@pytest.mark.parametrize("structure", SIZED)
def test_flops_are_those_of_the_model_made_for_that_size(structure, size):
    build = SIZED[structure]
    model, fixed = build((None, None)), build(size)
    shape = tuple(fixed.inputs[0].shape[1:])
    wanted, found = kprune.model_cost(fixed), kprune.model_cost(model, shape)
    assert_same_cost(found, wanted)
    assert found.flops == count_flops(fixed)
    data = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    for options in ({"data": data}, {"input_shape": shape}, {"data": [(data[:2],), (data[2:],)]}):
        plan = kprune.plan_pruning(model, 0.2, criterion="l1", **options)
        assert plan.flops[0] == wanted.flops and plan.input_shapes == (shape,)
        small = kprune.apply_plan(model, plan)
        assert kprune.model_cost(small, shape).flops == plan.flops[1] <= 0.8 * wanted.flops
        assert small.input_shape == model.input_shape
        assert " x ".join(map(str, shape)) in plan.summary()
    assert plan == kprune.Plan.from_dict(json.loads(plan.to_json()))
    again = kprune.plan_pruning(fixed, 0.2, criterion="random")
    assert [e.keep for e in again.layers] == [
        e.keep for e in kprune.plan_pruning(model, 0.2, criterion="random", data=data).layers
    ]


def test_every_way_of_pruning_takes_the_size(tmp_path):
    model = any_size((None, None))
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype("float32")
    y = model.predict(x, verbose=0)
    shape, flops = (12, 12, 3), kprune.model_cost(any_size((12, 12))).flops
    small = kprune.prune_model(model, 0.3, data=x)
    assert kprune.model_cost(small, shape).flops <= 0.7 * flops
    assert kprune.search_space(model, input_shape=shape).flops[0] == flops
    assert "12 x 12 x 3" in str(kprune.search_space(model, input_shape=shape))
    assert kprune.plan_rates(model, {"stem": 0.5}, input_shape=shape).flops[0] == flops
    assert kprune.plan_rates(model, {"stem": 0.5}, data=x, criterion="l1").flops[0] == flops
    run = kprune.prune_iteratively(model, lambda small: None, 0.3, rounds=2, input_shape=shape, verbose=False)
    assert run.plan.flops[0] == flops and run.plan.input_shapes == (shape,)
    found = kprune.find_target(
        model, lambda small: True, criterion="l1", input_shape=shape, verbose=False, tolerance=0.4
    )
    assert found.plan.flops[0] == flops
    for callback in (
        kprune.SimilarityPruning(0.3, input_shape=shape, until_epoch=1),
        kprune.GradualPruning("l1", 0.3, data=x, until_epoch=1),
        kprune.GradualPruning("l1", channels_per_round=2, input_shape=shape, until_epoch=1),
    ):
        fresh = any_size((None, None))
        fresh.compile("sgd", "mse")
        history = fresh.fit(x, y, epochs=2, verbose=0, callbacks=[callback]).history
        assert callback.plan.flops[0] == flops and history["pruned_flops"][-1] > 0


def test_several_inputs_by_order_or_by_name():
    def build(size):
        image, other = keras.Input((*size, 3), name="image"), keras.Input((*size, 1), name="depth")
        x = layers.Concatenate()([layers.Conv2D(6, 3, name="a")(image), layers.Conv2D(4, 3, name="b")(other)])
        return keras.Model([image, other], layers.Conv2D(2, 1, name="c")(x))

    wanted = kprune.model_cost(build((9, 11)))
    for shape in ([(9, 11, 3), (9, 11, 1)], {"depth": (9, 11, 1), "image": (9, 11, 3)}):
        assert kprune.model_cost(build((None, None)), shape) == wanted


@pytest.mark.parametrize(
    "shape, words",
    [
        ((20, 20, 4), r"input_shape is \[\(20, 20, 4\)\].*takes"),
        ((20, 20), "input_shape is"),
        ((None, 20, 3), r"input_shape is \(None, 20, 3\)"),
        (224, "input_shape is 224"),
        ("224", "input_shape is '224'"),
        ((20.0, 20, 3), "input_shape is"),
        ({"image": (20, 20, 3)}, "has the keys"),
    ],
)
def test_a_size_that_the_model_does_not_take_is_refused(shape, words):
    model = any_size((None, None))
    for call in (kprune.model_cost, lambda m, s: kprune.prune_model(m, 0.3, input_shape=s)):
        with pytest.raises(OptionError, match=words):
            call(model, shape)
    with pytest.raises(OptionError, match="input_shape is"):
        kprune.model_cost(any_size((12, 12)), (20, 20, 3))


def test_without_a_size_the_error_names_the_ways():
    with pytest.raises(kprune.ModelError, match="any size.*input_shape=.*or data, or give target_params"):
        kprune.prune_model(any_size((None, None)), 0.3)
