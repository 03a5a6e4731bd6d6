"""Refuses to go on where a package or backend is missing, and says how to get it."""

import importlib.util

import keras

from kprune.utils.errors import MissingPackageError, ModelError


def need_tensorflow(use: str, fix: str) -> None:
    """Refuses any other backend than TensorFlow, and says so where TensorFlow is not even installed.

    Args:
      use: what TensorFlow is needed for, as the end of "The TensorFlow backend, ...".
      fix: how to go on once it is installed.

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
        f"pip install tensorflow. {fix}" if missing else fix,
    )


def need_package(module: str, use: str, install: str) -> None:
    """Refuses to go on where a package is not installed.

    Args:
      module: the name by which it is imported, such as "onnx".
      use: what it is, or what it is needed for, as the end of "Expected: onnx, ..."; empty where the name says it.
      install: what pip installs, such as "kprune[export]".

    Raises:
      MissingPackageError: it is not there.
    """
    if importlib.util.find_spec(module) is None:
        raise missing_package(module.replace("_", "-") if module != "tf_keras" else module, use, install)


def missing_package(name: str, use: str, install: str) -> MissingPackageError:
    """The error that a package is not installed."""
    quoted = f"'{install}'" if "[" in install else install
    return MissingPackageError(f"{name} is not installed.", f"{name}{use and ', ' + use}.", f"pip install {quoted}")


def need_tf_keras() -> None:
    """Refuses to go on where tf_keras is not installed."""
    need_package("tf_keras", "which is Keras 2", "kprune[quantization]")
