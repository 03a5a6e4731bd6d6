"""Functions written as operations that 8-bit files and TFLite Micro have, where Keras takes others."""

import contextlib
import functools
import importlib

import keras

TENSORFLOW = "keras.src.backend.tensorflow"
NORMALIZATIONS = (keras.layers.LayerNormalization, keras.layers.GroupNormalization)


@contextlib.contextmanager
def negation_as_product():
    """Lets `-x` be `x * -1` in what is traced meanwhile: the same values, and TFLite has NEG in integers nowhere.

    That is what `keras.ops.negative` computes, and the operator inside normalizations. The operator stays as it is
    elsewhere: TFLite's converter knows the exact GELU by its NEG.
    """
    module = importlib.import_module(f"{TENSORFLOW}.numpy")
    plain, calls = module.negative, {cls: cls.call for cls in NORMALIZATIONS}
    module.negative = lambda x: _product(x, plain)
    for cls, call in calls.items():
        cls.call = _with_products(call)
    try:
        yield
    finally:
        module.negative = plain
        for cls, call in calls.items():
            cls.call = call


def _with_products(call):
    """A layer's `call` whose operator of negation is a product."""
    import tensorflow as tf

    @functools.wraps(call)
    def wrapped(*args, **kwargs):
        plain = tf.Tensor.__neg__
        tf.Tensor.__neg__ = lambda x: _product(x, plain)
        try:
            return call(*args, **kwargs)
        finally:
            tf.Tensor.__neg__ = plain

    return wrapped


def _product(x, negative):
    return x * -1.0 if getattr(x, "dtype", None) == "float32" else negative(x)


@contextlib.contextmanager
def gelu_as_products():
    """Lets the approximate GELU be products and a LOGISTIC in what is traced meanwhile, as TFLite Micro has no GELU.

    `0.5 * x * (1 + tanh(z))` is `x * sigmoid(2 * z)`. The exact one stays: it needs the error
    function, which TFLite does not have.
    """
    import tensorflow as tf

    module = importlib.import_module(f"{TENSORFLOW}.nn")
    plain = module.gelu

    def gelu(x, approximate=True):
        if not approximate:
            return plain(x, approximate=approximate)
        twice = 2 * (2 / 3.141592653589793) ** 0.5
        # Not a square: TFLite's converter has SQUARE in float only.
        return x * tf.sigmoid(x * (x * (twice * 0.044715) * x + twice))

    module.gelu = gelu
    try:
        yield
    finally:
        module.gelu = plain
