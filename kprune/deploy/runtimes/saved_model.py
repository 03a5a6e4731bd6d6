"""Opens and runs SavedModels with the installed TensorFlow."""

import pathlib

from kprune.deploy.runtimes.base import SIGNATURE, Runtime, quiet
from kprune.deploy.runtimes.samples import InputSpec, Samples
from kprune.utils.errors import ModelError
from kprune.utils.packages import missing_package


class SavedModel(Runtime):
    """The `serving_default` signature of a SavedModel. Attributes as those of `Runtime`."""

    def __init__(self, loaded):
        self._loaded = loaded  # holds the variables
        self._function = loaded.signatures[SIGNATURE]
        self._fed, self._results = {}, {}
        specs = self._function.structured_input_signature[1]
        self.inputs = [InputSpec(name, tuple(spec.shape[1:]), spec.dtype.name) for name, spec in specs.items()]
        self.outputs = list(self._function.structured_outputs)
        self.batch = max([1, *(spec.shape[0] or 1 for spec in specs.values())])

    def feed(self, samples: Samples) -> None:
        import tensorflow as tf

        self._fed = {spec.name: tf.constant(samples[spec.name], spec.dtype) for spec in self.inputs}

    def invoke(self) -> None:
        results = self._function(**self._fed)
        self._results = {name: value.numpy() for name, value in results.items()}

    def fetch(self) -> Samples:
        return self._results


def open_saved_model(path) -> SavedModel:
    """Opens the folder of a SavedModel.

    Raises:
      ModelError: TensorFlow is not installed, cannot read it, or it has no signature `serving_default`.
    """
    path = pathlib.Path(path)
    try:
        import tensorflow as tf
    except ImportError as error:
        raise missing_package("TensorFlow", "", "tensorflow") from error
    try:
        with quiet():
            return SavedModel(tf.saved_model.load(str(path)))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"{path} could not be opened: {' '.join(str(error).split()).rstrip('.')}.",
            f"A SavedModel with the signature {SIGNATURE}.",
            "Export the model again with kprune.export_saved_model.",
        ) from error
