"""tensorflow-model-optimization, imported without what it does to the process."""

import contextlib
import functools
import importlib
import importlib.util
import os

from kprune.utils.packages import need_package


@functools.cache
def load_tfmot():
    """The package; importing it leaves the environment and Keras as they were."""
    name, variable = "tensorflow_model_optimization", "TF_USE_LEGACY_KERAS"
    need_package(name, "which trains with quantization", "kprune[quantization]")
    import tensorflow as tf

    # TensorFlow decides which Keras `tf.keras` is when it is first touched, by the variable that tfmot sets.
    getattr(tf.keras, "version", None)
    before = os.environ.get(variable)
    try:
        return importlib.import_module(name)
    finally:
        with contextlib.suppress(KeyError):
            del os.environ[variable]
        if before is not None:
            os.environ[variable] = before
