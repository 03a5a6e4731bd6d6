"""Files of Keras 2, also those that Keras 3 refuses."""

import contextlib
import importlib
import pathlib
import sys

import keras

from kprune.compat.keras2.contents import Contents, read_contents
from kprune.compat.keras2.from_tf_keras import from_tf_keras
from kprune.utils.checks import check_flag, check_path
from kprune.utils.errors import ModelError
from kprune.utils.packages import need_tf_keras

REBUILD = (
    "Build the network in code, with {instead}, and the other layers as they are in the file; then "
    "model.load_weights({path!r}) takes the weights out of it."
)


def load_keras2(path, custom_objects: dict | None = None, *, safe_mode: bool = True) -> keras.Model:
    """Reads a model file of Keras 2 as a Keras 3 model, also where Keras 3 itself refuses it.

    Keras 3 refuses every `.keras` file of tf_keras, and `.h5` files with `groups` in the config of a depthwise
    convolution, `/` in a name, or TensorFlow functions in the graph. Such a file is read by tf_keras and translated.

    Nothing in a file is run: a `Lambda` whose Python bytecode the file holds is an error, in each kind of file.

    Args:
      path: an `.h5`, `.hdf5` or `.keras` file.
      custom_objects: Keras 3 classes for layers of your own, by class name, and functions that a `Lambda` names.
      safe_mode: False runs the bytecode that the file holds, which can do whatever you can: for files that you trust.

    Returns:
      The model, not compiled.

    Raises:
      ModelError: there is no such file; or it holds Python bytecode, or names a class of a package that is not Keras
        and was not registered; or Keras 3 refuses it and tf_keras is not installed or refuses it too; or a layer has
        no twin in Keras 3.
      OptionError: `safe_mode` is no boolean.

    Example:
      >>> model = kprune.load_keras2("mobilenet_2019.h5")
    """
    check_flag("safe_mode", safe_mode)
    check_path("path", path)
    path, custom_objects = pathlib.Path(path), custom_objects or {}
    if not path.is_file():
        raise ModelError(f"There is no model file {path}.", "An .h5 or .keras file.", "Check the path.")
    contents = read_contents(path)
    if safe_mode:
        refuse_code(path, contents, custom_objects)
    try:
        if contents.is_keras2 and contents.mentions("hard_sigmoid"):
            raise ValueError("hard_sigmoid is another function in Keras 2")
        return keras.saving.load_model(path, custom_objects=custom_objects, compile=False, safe_mode=safe_mode)
    except Exception as error:  # whatever an old file makes Keras 3 stumble over
        refusal = error
    need_tf_keras()
    return from_tf_keras(load_by_tf_keras(path, contents, custom_objects, safe_mode, refusal), custom_objects)


def load_by_tf_keras(path, contents: Contents, custom_objects: dict, safe_mode: bool, refusal: Exception):
    """The tf_keras model in a file.

    Raises:
      ModelError: tf_keras refuses the file, as Keras 3 has.
    """
    tf_keras = importlib.import_module("tf_keras")
    functions = {name: one for name, one in custom_objects.items() if not isinstance(one, type)}
    try:
        with safe_scope() if safe_mode else contextlib.nullcontext():
            return tf_keras.models.load_model(path, functions, compile=False, safe_mode=safe_mode)
    except Exception as error:  # whatever a file makes tf_keras stumble over
        both = f"{path} is refused by Keras 3 ({_first_line(refusal)}) and by tf_keras ({_first_line(error)})"
        code, named = contents.code(), {k: v for k, v in contents.functions().items() if v not in custom_objects}
        if code:
            raise ModelError(f"{both}. {describe(contents, code)}", *without_code(path, code)) from error
        if named:
            raise ModelError(
                f"{both}. Its Lambda layers call functions that are not in it: {_listed(named)}.",
                "The functions.",
                f"Pass custom_objects={{{next(iter(named.values()))!r}: function, ...}}.",
            ) from error
        raise ModelError(
            f"{both}.",
            "A whole model file, with its architecture.",
            REBUILD.format(instead="Keras layers", path=str(path)),
        ) from error


def safe_scope():
    """A scope in which tf_keras makes no function of bytecode, in whatever kind of file."""
    return importlib.import_module("tf_keras.src.saving.serialization_lib").SafeModeScope(True)


def refuse_code(path, contents: Contents, custom_objects: dict):
    """Refuses a file that would run code of whoever wrote it.

    Raises:
      ModelError: it holds Python bytecode, or a class is to be imported from a package that is not Keras.
    """
    code, foreign = contents.code(), contents.foreign(custom_objects)
    if code:
        expected, mend = without_code(path, code)
        here = " If you trust the file, and this Python can run the code, load_keras2(..., safe_mode=False) does so."
        raise ModelError(f"{path}: {describe(contents, code)}", expected, mend + here)
    if foreign:
        kind, module = next(iter(foreign.items()))
        raise ModelError(
            f"{path} wants classes imported: {_listed(foreign)}.",
            "Layers of Keras, and your own where they are given.",
            f"Pass custom_objects={{{kind!r}: {kind}}}, or import {module} so that it registers {kind}.",
        )


def describe(contents: Contents, code: dict[str, str | None]) -> str:
    """Who wrote the code in a file, as far as it says so."""
    layers = ", ".join(
        f"'{layer}' (compiled by Python {python})" if python else f"'{layer}' (compiled by an unknown Python)"
        for layer, python in code.items()
    )
    wrote = f"Keras {contents.version} wrote it" if contents.version else "it does not say which Keras wrote it"
    current = ".".join(map(str, sys.version_info[:2]))
    return f"It holds Python bytecode in {layers}; {wrote}; this is Python {current}."


def without_code(path, code: dict[str, str | None]) -> tuple[str, str]:
    """What was expected in the place of code, and how to go on without it."""
    names = ", ".join(f"'{layer}'" for layer in code)
    expected = "Layers that say what they compute. Bytecode can do anything, and only the Python that made it reads it."
    return expected, REBUILD.format(instead=f"a layer such as Rescaling or Activation for {names}", path=str(path))


def _listed(names: dict) -> str:
    return ", ".join(f"{one} ({other})" for one, other in names.items())


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(" .")
