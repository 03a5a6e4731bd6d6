"""Soft models that were saved when `MaskedLayer` lay in `kprune.masking` load as ever: its registered name counts."""

import zipfile

import keras
import numpy as np
from models import build, residual, run

import kprune
from kprune.rules import Rule, Weight
from kprune.rules.channels import along

# As Keras 3.15 saved it then.
SAVED = {
    "module": "kprune.masking",
    "class_name": "MaskedLayer",
    "config": {
        "name": "logits",
        "trainable": True,
        "dtype": "float32",
        "layer": {
            "module": "keras.layers",
            "class_name": "Dense",
            "config": {"name": "logits", "units": 2},
            "registered_name": None,
            "build_config": {"input_shape": [None, 3]},
        },
        "masks": {"kernel": {"shape": [3, 1], "bits": "101"}},
    },
    "registered_name": "kprune>MaskedLayer",
    "build_config": {"input_shape": [None, 3]},
}


def test_a_layer_saved_before_is_read():
    layer = keras.saving.deserialize_keras_object(SAVED)
    assert isinstance(layer, kprune.MaskedLayer) and layer.get_config()["masks"] == SAVED["config"]["masks"]


def test_a_model_saved_before_computes_the_same(tmp_path):
    model = build(residual)
    soft = kprune.apply_plan(model, kprune.plan_pruning(model, 0.5), mode="soft")
    soft.save(tmp_path / "now.keras")
    with zipfile.ZipFile(tmp_path / "now.keras") as now, zipfile.ZipFile(tmp_path / "then.keras", "w") as then:
        for name in now.namelist():
            content = now.read(name)
            if name == "config.json":
                assert b'"kprune.surgery.masks"' in content
                content = content.replace(b'"kprune.surgery.masks"', b'"kprune.masking"')
            then.writestr(name, content)
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
    loaded = keras.saving.load_model(tmp_path / "then.keras")
    np.testing.assert_array_equal(run(loaded, images), run(soft, images))


@keras.saving.register_keras_serializable("kprune_tests")
class Factor(keras.layers.Layer):
    """As users write layers: the shape of its output is left to Keras."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")

    def call(self, x):
        return keras.ops.tanh(x * self.factor)


@kprune.register_rule(Factor)
class FactorRule(Rule):
    def zero_if_removed(self, call):
        return call.resting[0]

    def sliced_weights(self, call):
        return [Weight("factor", (along(call.ids_in[0], -1, call.input_shapes[0][-1]),))]


def test_a_layer_that_does_not_say_its_output_shape_is_masked(tmp_path):
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 1)(Factor(name="factor")(keras.layers.Conv2D(8, 3)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    plan, images = kprune.plan_pruning(model, 0.4), np.random.default_rng(0).normal(size=(4, 6, 6, 3))
    soft, hard = kprune.apply_plan(model, plan, mode="soft"), kprune.apply_plan(model, plan)
    soft.save(tmp_path / "soft.keras")
    assert isinstance(soft.get_layer("factor"), kprune.MaskedLayer)
    np.testing.assert_allclose(run(soft, images), run(hard, images), atol=1e-5)
    np.testing.assert_array_equal(run(keras.saving.load_model(tmp_path / "soft.keras"), images), run(soft, images))
