"""Opens and runs .keras files on the Keras backend of this process."""

import pathlib

import keras

from kprune.deploy.runtimes.base import Runtime, quiet
from kprune.deploy.runtimes.samples import InputSpec, Samples
from kprune.utils.errors import ModelError


class KerasModel(Runtime):
    """A Keras model as `predict_on_batch` runs it, compiled by its backend. Attributes as those of `Runtime`."""

    def __init__(self, model):
        self._model, self._fed, self._results = model, None, None
        self.inputs = [InputSpec(tensor.name, tuple(tensor.shape[1:]), tensor.dtype) for tensor in model.inputs]
        self.outputs = [f"output_{index}" for index in range(len(model.outputs))]
        self.batch = model.inputs[0].shape[0] or 1

    def feed(self, samples: Samples) -> None:
        structure = self._model.inputs[0] if isinstance(self._model, keras.Sequential) else self._model.input
        self._fed = keras.tree.pack_sequence_as(structure, [samples[spec.name] for spec in self.inputs])

    def invoke(self) -> None:
        self._results = self._model.predict_on_batch(self._fed)

    def fetch(self) -> Samples:
        return dict(zip(self.outputs, keras.tree.flatten(self._results), strict=True))


def open_keras(path) -> KerasModel:
    """Opens a .keras file.

    Raises:
      ModelError: Keras cannot read it, or the model has no known inputs.
    """
    try:
        with quiet():
            return KerasModel(keras.saving.load_model(path, compile=False))
    except Exception as error:  # whatever a custom layer raises
        raise ModelError(
            f"{pathlib.Path(path).name} could not be opened: {' '.join(str(error).split()).rstrip('.')}.",
            "A functional or sequential model of layers that Keras knows in a new process.",
            "Export a model with layers of your own by kprune.export_saved_model and time the folder.",
        ) from error
