"""A small network that is pruned while it trains, for the tests of callbacks and of searches."""

import keras
import numpy as np
from models import conv, run
from random_models import randomize

import kprune

layers = keras.layers


def build():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization(name="bn0")(conv(inputs, 12, "stem", use_bias=False)))
    y = layers.Activation("sigmoid")(layers.BatchNormalization(name="bn1")(conv(x, 16, "middle")))
    x = layers.Add()([x, conv(y, 12, "end")])
    return randomize(keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))))


def compiled(optimizer="adam", model=None, **options):
    model = model or build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    return model


def fit(model, data, callback=None, epochs=3, extra=(), **options):
    callbacks = [*([callback] if callback else []), *extra]
    return model.fit(*data, epochs=epochs, batch_size=16, verbose=0, callbacks=callbacks, **options)


def pruning(target=0.5, kind="similarity", **options):
    return kprune.SimilarityPruning(target, **options) if kind == "similarity" else gradual(target, **options)


def gradual(target=0.5, criterion="l2", **options):
    return kprune.GradualPruning(criterion, target, **options)


def assert_masked(model, callback, data):
    """What the callback masked is zero, and the stripped model computes the same at the cost promised."""
    small = kprune.strip(model)
    before, after = (run(m, data[0]).astype("float32") for m in (model, small))
    np.testing.assert_allclose(after, before, rtol=2e-3, atol=2e-3)
    assert kprune.model_cost(small).flops == callback.plan.flops[1]
    assert callback.plan.flops[1] <= 0.5 * callback.plan.flops[0]
    shapes = {tuple(variable.shape) for variable in small.variables} | {()}
    assert {tuple(slot.shape) for slot in small.optimizer.variables} <= shapes  # sliced along, as the weights are
