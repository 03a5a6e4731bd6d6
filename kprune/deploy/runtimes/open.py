"""Files of every kind opened for running."""

import pathlib

from kprune.deploy.runtimes.base import Runtime
from kprune.deploy.runtimes.litert import open_tflite
from kprune.deploy.runtimes.onnxruntime import open_onnx
from kprune.deploy.runtimes.saved_model import open_saved_model
from kprune.utils.checks import check_whole
from kprune.utils.errors import ModelError, OptionError


def open_file(path, threads: int = 1) -> Runtime:
    """Opens a TFLite file, an ONNX file or the folder of a SavedModel.

    Args:
      path: the file or folder.
      threads: CPU threads that one run may use. TensorFlow decides that for the whole process, when it starts, so a
        SavedModel runs with what the process has.

    Raises:
      OptionError: there is no such file, or `threads` is below 1.
      ModelError: it is none of these, it is broken, or its runtime is not installed.
    """
    path, kind = pathlib.Path(path), kind_of(path)
    check_whole("threads", threads, 1)
    if kind == "tflite":
        return open_tflite(path, threads)
    if kind == "onnx":
        return open_onnx(path, threads)
    return open_saved_model(path)


def kind_of(path) -> str:
    """ "tflite", "onnx", "saved_model" or "keras", by the suffix, or for a folder by what is in it.

    Raises:
      OptionError: there is no such file.
      ModelError: it is none of these.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise OptionError(f"There is no file {path}.", "A model file.", "Check the path, or export the model first.")
    kinds = {".tflite": "tflite", ".onnx": "onnx", ".keras": "keras"}
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return "saved_model"
    if path.is_file() and path.suffix in kinds:
        return kinds[path.suffix]
    raise ModelError(
        f"{path} is no model that can be run.",
        "A .tflite, .onnx or .keras file, or a folder with saved_model.pb.",
        "Export the model with kprune.export_tflite, export_onnx or export_saved_model.",
    )
