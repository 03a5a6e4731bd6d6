"""How close a file is to the Keras model that it was made from."""

import dataclasses
import pathlib

import numpy as np

from kprune.deploy.export.choices import choices
from kprune.deploy.export.source import Source
from kprune.deploy.runtimes.base import quiet
from kprune.deploy.runtimes.samples import Samples
from kprune.utils.errors import ExportError, KpruneError

FLOAT32_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Export:
    """A file that was written, and how close it is to its Keras model.

    Attributes:
      path: the file, or the folder of a SavedModel.
      kind: what it is, in words.
      size_bytes: its size.
      error: the largest absolute difference to the Keras model's output, divided by the largest absolute Keras output;
        of several outputs the worst. None where the file could not be run here.
      agreement: of outputs that are a choice of classes, the share of samples (or pixels) whose largest output along
        the last axis is the Keras model's, 0..1; of several the worst. A choice is what a softmax gives, and logits of
        more than one class: those of a model that is compiled with a crossentropy of categories, or that is not
        compiled and ends with a Dense layer after a global pooling. None where no output is one, or the file could not
        be run here.
      samples: the number of samples that were compared.
      arena_bytes: the memory that TFLite Micro needs to run it, as `micro_memory` tells; None where nobody asked.
    """

    path: pathlib.Path
    kind: str
    size_bytes: int
    error: float | None
    agreement: float | None
    samples: int
    arena_bytes: int | None = dataclasses.field(default=None, kw_only=True)

    def to_json(self) -> dict:
        """Everything as plain numbers and texts."""
        return dataclasses.asdict(self) | {"path": str(self.path)}

    @classmethod
    def from_json(cls, data: dict) -> "Export":
        """What all exports have, from what `to_json` gave.

        Raises:
          KeyError: a part is missing.
        """
        data = {"arena_bytes": None} | data  # records of earlier versions have none
        values = {entry.name: data[entry.name] for entry in dataclasses.fields(Export)}
        return Export(**values | {"path": pathlib.Path(values["path"])})

    def __str__(self) -> str:
        arena = "" if self.arena_bytes is None else f", {self.arena_bytes / 1000:.1f} kB of arena under TFLite Micro"
        first = f"{self.path}: {self.kind}, {self.size_bytes / 1000:.1f} kB{arena}\n"
        if self.error is None:
            return f"{first}not compared with the Keras model: its runtime is not installed here"
        agreement = "" if self.agreement is None else f", same class for {self.agreement:.1%}"
        return (
            f"{first}against the Keras model on {self.samples} samples: "
            f"largest difference {self.error:.2g} of the largest output{agreement}"
        )


def compare(source: Source, open_runtime, check: Samples, kind: str, exact: bool) -> tuple:
    """The worst error and agreement over all outputs of a file.

    Args:
      source: the model.
      open_runtime: opens the file, without arguments.
      check: the samples to run both on.
      kind: what the file is, for messages.
      exact: whether a difference of more than 0.001 of the largest output is an error.

    Raises:
      ModelError: the model gives NaN or infinity.
      ExportError: the file does not run, lacks an output, or is out of bounds.
    """
    with quiet():
        wanted = source.outputs(check)
        try:
            got = open_runtime().run(source.renamed(check))
        except (ValueError, RuntimeError) as error:
            raise ExportError(
                f"The {kind} of {source.name} does not run: {reason(error)}.",
                "A file that the installed runtime can run.",
                "Replace the operation that the reason names, or update the runtime.",
            ) from error
    error = max(_relative_error(got[name], wanted[name]) for name in wanted)
    agreements = [
        float(np.mean(got[name].argmax(-1) == wanted[name].argmax(-1)))
        for name in choices(source.model)
        if got[name].shape == wanted[name].shape
    ]
    if not error <= (FLOAT32_TOLERANCE if exact else np.finfo("float64").max):
        raise ExportError(
            f"The {kind} of {source.name} differs by {error:.2g} of the largest output.",
            f"At most {FLOAT32_TOLERANCE:g}." if exact else "Finite outputs.",
            "Pass real inputs as check_data; if they differ too, export parts of the model to find the one at fault.",
        )
    return error, min(agreements, default=None)


def reason(error: Exception) -> str:
    """What a converter or runtime says, in its first line; of an error with advice, what happened."""
    text = (error.what if isinstance(error, KpruneError) else str(error).strip()) or type(error).__name__
    return text.splitlines()[0].rstrip(" .")


def _relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    got, wanted = got.astype("float64"), wanted.astype("float64")
    if got.shape != wanted.shape:
        return float("inf")
    return float(np.abs(got - wanted).max() / (np.abs(wanted).max() or 1.0))
