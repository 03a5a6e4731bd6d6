"""A Keras model as a TensorFlow SavedModel that needs no Keras, checked by loading it again."""

import pathlib
import tempfile

import keras

from kprune.deploy.export.check import Export, compare, reason
from kprune.deploy.export.metadata import SAVED_MODEL_FILE, dump
from kprune.deploy.export.source import RANDOM_SAMPLES, Source, save_frozen
from kprune.deploy.runtimes.base import quiet
from kprune.deploy.runtimes.samples import random_samples
from kprune.deploy.runtimes.saved_model import open_saved_model
from kprune.utils.errors import ExportError
from kprune.utils.files import write_folder_by_rename

MARK = "saved_model.pb"


def export_saved_model(
    model: keras.Model, path, *, check_data=None, batch_size: int | None = None, overwrite: bool = True
) -> Export:
    """Writes a Keras model as a SavedModel, for TensorFlow, TF Serving, TF-TRT and tf2onnx. The model does not change.

    The weights are constants of the graph, so that older TensorFlow on devices can read it too (2.6 was tried). Layers
    of mixed precision compute in float32. Grouped convolutions are plain operations, not calls into XLA.

    Args:
      model: a built model with known inputs (functional or sequential), on the TensorFlow backend.
      path: the folder to write. It appears whole, and only after the check.
      check_data: inputs to compare folder and model on, as in `export_tflite`; default: 16 random normal inputs.
      batch_size: samples that one run takes; default: that of the model, so any number where it has none.
      overwrite: whether an existing SavedModel may be replaced. Any other folder is never replaced.

    Returns:
      What was written and how close it is to the model.

    Raises:
      OptionError: data or a `batch_size` that does not fit the model.
      ModelError: a model without known inputs, another backend than TensorFlow, or outputs that are not finite.
      ExportError: `path` cannot be written, or what was written differs from the model by more than 0.001.

    Example:
      >>> print(kprune.export_saved_model(small, "small_saved_model"))
    """
    source = Source(model, batch_size)
    check = source.read(check_data, "check_data") or random_samples(source.inputs, RANDOM_SAMPLES)
    closeness = []

    def write(temporary: pathlib.Path) -> None:
        write_checked(source, temporary)
        closeness.extend(compare(source, lambda: open_saved_model(temporary), check, "SavedModel", exact=True))

    path = write_folder_by_rename(path, write, MARK, overwrite)
    count = len(next(iter(check.values())))
    return Export(path, "SavedModel", folder_bytes(path), *closeness, count)


def write_checked(source: Source, folder: pathlib.Path) -> None:
    """Writes the SavedModel and what it was made from."""
    try:
        with quiet():
            save_frozen(source, folder)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise ExportError(
            f"{source.name} could not be saved: {reason(error)}.",
            "A model that TensorFlow can trace.",
            "Replace the operation that the reason names.",
        ) from error
    file = folder / SAVED_MODEL_FILE
    file.parent.mkdir(exist_ok=True)
    file.write_text(dump(source.description()) + "\n", encoding="utf-8")


def folder_bytes(folder: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def temporary_folder():
    """A folder that goes when the `with` block ends."""
    return tempfile.TemporaryDirectory(prefix="kprune")
