"""Refuses to go on where a package or backend is missing, and says how to get it."""

import importlib.util

import keras

from kprune.utils.errors import ModelError


def need_tensorflow(use: str, mend: str) -> None:
    """Refuses any other backend than TensorFlow, and says so where TensorFlow is not even installed.

    Args:
      use: what TensorFlow is needed for, as the end of "The TensorFlow backend, ...".
      mend: how to go on once it is installed.

    Raises:
      ModelError: another backend is in use.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return
    missing = importlib.util.find_spec("tensorflow") is None
    raise ModelError(
        f"The Keras backend is {backend}{', and TensorFlow is not installed' if missing else ''}.",
        f"The TensorFlow backend, {use}.",
        f"pip install tensorflow. {mend}" if missing else mend,
    )


def need_tf_keras() -> None:
    """Refuses to go on where tf_keras is not installed."""
    if importlib.util.find_spec("tf_keras") is None:
        raise ModelError("tf_keras is not installed.", "tf_keras (Keras 2).", "pip install 'kprune[quantization]'")
