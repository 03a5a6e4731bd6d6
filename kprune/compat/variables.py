"""The variables of layers: by name, as NumPy arrays, and what must follow when they change."""

import re

import keras
import numpy as np

from kprune.compat.functional import time_distributed

UNNAMED = re.compile(r"variable(_\d+)?")


def variables_by_name(layer) -> dict:
    """The variables of a layer by name, such as `kernel`; those of a layer inside it with that one's place before the
    name, as in `0/kernel`. Names that Keras made up itself count from `variable` in each layer anew.
    """
    own = (*layer._trainable_variables, *layer._non_trainable_variables)
    unnamed = [id(v) for v in own if UNNAMED.fullmatch(v.name)]
    found = {f"variable_{unnamed.index(id(v))}" if id(v) in unnamed else v.name: v for v in own}
    for place, inside in enumerate(layer._layers):
        found.update((f"{place}/{name}", v) for name, v in variables_by_name(inside).items())
    return found


def projections(layer) -> dict:
    """The layers inside a `MultiHeadAttention` or `GroupQueryAttention` by what they make: query, key, value,
    output, and gate where it has one.
    """
    names = ("query", "key", "value", "gate", "output")
    found = {name: getattr(layer, f"_{name}_dense", None) for name in names}
    return {name: inside for name, inside in found.items() if inside is not None}


def copy_trainable(source, target):
    """Carries over the `trainable` flags of a layer and of those inside it, outermost first."""
    if isinstance(target, keras.Model) or time_distributed(target) is not None:
        if not source.trainable:
            target.trainable = False
        return
    for one, other in zip(source._flatten_layers(), target._flatten_layers(), strict=True):
        if other.trainable != one.trainable:
            other.trainable = one.trainable


def after_assignment(layer):
    """Lets a layer that derives constants from its weights (`Normalization`) do so again."""
    if hasattr(layer, "finalize_state") and layer.built:
        layer.finalize_state()


def to_numpy(variable) -> np.ndarray:
    """The value of a variable or tensor as a NumPy array."""
    return keras.ops.convert_to_numpy(variable)


def read(variable) -> np.ndarray:
    """The value of a variable, to be read only: its own memory where the backend allows that. What is assigned to the
    variable later does not show in it.
    """
    tensor = getattr(variable.value, "read_value", None)  # TensorFlow's, whose tensors never change once they are read
    return to_numpy(variable) if tensor is None else np.asarray(tensor())
