"""What users build into their models: augmentation, blocks of their own, adapters, branches that are stretched."""

import keras
import numpy as np
import pytest
from models import run
from random_models import randomize

import kprune
from kprune.graph import trace

layers, ops = keras.layers, keras.ops


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(64, 12, 12, 3)).astype("float32")


def classifier(begin=lambda x: x):
    x = begin(inputs := keras.Input((12, 12, 3)))
    for filters in (8, 10):
        x = layers.Conv2D(filters, 3, activation="relu")(x)
    return randomize(keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x))))


def augmented(x):
    return layers.RandomBrightness(0.9, value_range=(-1, 1))(layers.RandomRotation(0.5)(layers.RandomFlip()(x)))


def test_layers_that_augment_images_rest_while_data_are_looked_at(images):
    plain, model = classifier(), classifier(augmented)
    for target, value in zip([w for w in model.weights if "seed" not in w.path], plain.weights, strict=True):
        target.assign(value)
    small, expected = (kprune.prune_model(m, 0.4, data=images) for m in (model, plain))
    soft = kprune.prune_model(model, 0.4, data=images, mode="soft")
    found, from_soft, wanted = (m.predict(images[:4], verbose=0) for m in (small, soft, expected))
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(from_soft, found, rtol=1e-4, atol=1e-5)


BRANCHES = {
    "one place": lambda x: layers.Conv2D(10, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x)),
    "one channel": lambda x: layers.Conv2D(1, 1)(x),
}


@pytest.mark.parametrize("branch_first", [True, False])
@pytest.mark.parametrize("branch", BRANCHES.values(), ids=BRANCHES)
def test_branches_that_are_stretched_over_others_are_repaired(branch, branch_first, images):
    images[:, :4, :4] += 3  # what a branch lacks is not that of its first place
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(inputs)
    both = [branch(x), layers.Conv2D(10, 3, padding="same")(x)]
    x = layers.ReLU()(layers.Add()(both if branch_first else both[::-1]))
    model = randomize(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))
    plan = kprune.plan_pruning(model, 0.3, criterion="l1")
    wanted = run(model, images)
    bare, repaired = (run(kprune.apply_plan(model, plan, **options), images) for options in ({}, {"data": images}))
    assert np.square(repaired - wanted).mean() < 0.1 * np.square(bare - wanted).mean()


@keras.saving.register_keras_serializable("kprune_tests")
class Unit(layers.Layer):
    """A conv of which Keras makes up the name, anew in every copy, and a Sequential inside."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = layers.Conv2D(filters, 3, padding="same")
        self.head = keras.Sequential(
            [layers.Conv2D(filters, 1), layers.BatchNormalization(), layers.Conv2D(filters, 1)]
        )

    def build(self, shape):
        self.conv.build(shape)
        self.head.build((*shape[:-1], self.filters))
        super().build(shape)

    def call(self, x):
        return ops.relu(self.head(ops.relu(self.conv(x))))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


def units():
    x = inputs = keras.Input((12, 12, 3))
    for filters in (12, 16, 16):
        x = Unit(filters)(x)
    return randomize(keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x))))


@pytest.mark.parametrize("include", ["{first}/*", "*sequential/conv2d"], ids=["one layer", "a conv of each"])
def test_a_plan_of_layers_made_of_others_fits_copies_and_files(include, images, tmp_path):
    model = units()
    limits = kprune.Limits(include=include.format(first=model.layers[1].name))
    plan = kprune.plan_pruning(model, 0.1, criterion="l1", limits=limits)
    wanted = run(kprune.apply_plan(model, plan), images[:4])
    model.save(tmp_path / "model.keras")
    plan.save(tmp_path / "plan.json")
    for other in (kprune.recalibrate_batchnorm(model, images), keras.saving.load_model(tmp_path / "model.keras")):
        other.set_weights(model.get_weights())
        small = kprune.apply_plan(other, kprune.Plan.load(tmp_path / "plan.json"))
        np.testing.assert_allclose(run(small, images[:4]), wanted, rtol=1e-5, atol=1e-6)


def test_rounds_go_on_where_a_layer_made_of_others_loses_nothing(images, tmp_path):
    model = units()
    limits, calls = kprune.Limits(exclude=[f"{model.layers[1].name}/*"]), []

    def fit(model):
        if len(calls) == 2:
            calls.append(None)
            raise KeyboardInterrupt
        calls.append(model)

    options = {"criterion": "l1", "rounds": 4, "limits": limits, "directory": tmp_path, "verbose": False}
    with pytest.raises(KeyboardInterrupt):
        kprune.prune_iteratively(model, fit, 0.3, **options)
    result = kprune.prune_iteratively(model, fit, 0.3, **options)
    assert len(result.record) == 4 and kprune.model_cost(result.model).flops <= 0.7 * kprune.model_cost(model).flops
    np.testing.assert_allclose(
        run(kprune.apply_plan(model, result.plan), images[:4]), run(result.model, images[:4]), rtol=1e-4, atol=1e-5
    )


def test_a_conv_with_an_adapter_stays_as_it_is_and_is_told(images, caplog):
    model = classifier()
    conv = model.layers[1]
    if not hasattr(conv, "enable_lora"):
        pytest.skip("this Keras has no LoRA for convs")
    conv.enable_lora(2)
    conv.lora_kernel_b.assign(np.random.default_rng(0).normal(size=conv.lora_kernel_b.shape))
    assert "LoRA" in trace(model).barriers[conv.name]
    with caplog.at_level("WARNING", "kprune"):
        hard, soft = (kprune.prune_model(model, 0.2, mode=mode) for mode in ("hard", "soft"))
    assert f"The FLOPs of '{conv.name}' are not counted" in caplog.text
    assert conv.filters == hard.layers[1].filters
    np.testing.assert_allclose(run(hard, images[:4]), run(soft, images[:4]), rtol=1e-4, atol=1e-5)
