"""Files of Keras 2, also those that Keras 3 refuses."""

import pathlib

import keras

from kprune.compat.from_keras2 import from_tf_keras
from kprune.compat.to_keras2 import need_tf_keras
from kprune.errors import ModelError


def load_keras2(path, custom_objects: dict | None = None) -> keras.Model:
    """Reads a model file of Keras 2 as a Keras 3 model, also where Keras 3 itself refuses it.

    Keras 3 refuses every `.keras` file of tf_keras, and `.h5` files with `groups` in the config of a depthwise
    convolution, `/` in a name, or TensorFlow functions in the graph. Such a file is read by tf_keras and translated.

    Args:
      path: an `.h5`, `.hdf5` or `.keras` file.
      custom_objects: Keras 3 classes for layers of your own, by class name.

    Returns:
      The model, not compiled.

    Raises:
      ModelError: there is no such file; or Keras 3 refuses it and tf_keras is not installed or refuses it too; or a
        layer has no twin in Keras 3.

    Example:
      >>> model = kprune.load_keras2("mobilenet_2019.h5")
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ModelError(f"There is no model file {path}.", "An .h5 or .keras file.", "Check the path.")
    try:
        return keras.saving.load_model(path, custom_objects=custom_objects, compile=False)
    except Exception as error:  # whatever an old file makes Keras 3 stumble over
        refusal = error
    need_tf_keras()
    import tf_keras

    try:
        old = tf_keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ModelError(
            f"{path} is refused by Keras 3 ({_first_line(refusal)}) and by tf_keras ({_first_line(error)}).",
            "A whole model file, with its architecture.",
            "Save the model again with model.save; of weights alone, build the model and use load_weights.",
        ) from error
    return from_tf_keras(old, custom_objects)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(" .")
