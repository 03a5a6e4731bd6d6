"""One TensorFlow function in the graph of a Keras 2 model, called on what Keras 3 has in the place of its tensors."""

import contextlib
import difflib
from collections.abc import Callable

import numpy as np
from keras import KerasTensor

from kprune.compat.keras2 import sizes
from kprune.compat.keras2.functions import BATCHWISE, FOLDED, FUNCTIONS, slices
from kprune.utils.errors import ModelError

# Functions that make, or reshape to, a size which may be open, with TensorFlow's arguments.
SIZED = {
    "reshape": lambda layer: lambda tensor, shape: sizes.reshape(tensor, shape, layer),
    "tile": lambda layer: lambda input, multiples: sizes.tile(input, multiples, layer),
    "broadcast_to": lambda layer: lambda input, shape: sizes.for_each_example(input, shape, layer),
    "fill": lambda layer: lambda dims, value: sizes.for_each_example(np.asarray(value, "float32"), dims, layer),
    "zeros": lambda layer: lambda shape, dtype="float32": sizes.for_each_example(_number(0, dtype), shape, layer),
    "ones": lambda layer: lambda shape, dtype="float32": sizes.for_each_example(_number(1, dtype), shape, layer),
}
GETITEM, SHAPES = "__operators__.getitem", ("shape", "compat.v1.shape", "shape_v2")
KNOWN = sorted({*FUNCTIONS, *SIZED, *SHAPES, GETITEM})


class TensorFlowFunction:
    """Calls the twin of a function.

    Args:
      layer: the layer of tf_keras that stands for the function.
      batch_of: gives, for a tensor, one with the same examples.
    """

    def __init__(self, layer, batch_of: Callable):
        self.layer, self.name, self.batch_of = layer, layer.get_config()["function"], batch_of

    @property
    def keeps_batch(self) -> bool:
        """Whether its outputs are of the same examples as its inputs."""
        return self.name in BATCHWISE

    def __call__(self, args: tuple, kwargs: dict):
        """What it gives: tensors, arrays, or sizes (see `_sizes`).

        Raises:
          ModelError: it has no twin, or its twin does not take these arguments.
        """
        kwargs = {key: value for key, value in kwargs.items() if key != "name"}
        args, kwargs = _plain(args), _plain(kwargs)
        try:
            return self._call(args, kwargs)
        except ModelError:
            raise
        except (TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
            raise ModelError(
                f"The function tf.{self.name} in '{self.layer.name}' cannot be computed in Keras 3: {error}",
                "Arguments that both TensorFlow's function and that of Keras take.",
                "Replace it by a layer before translating.",
            ) from error

    def _call(self, args: tuple, kwargs: dict):
        name, both = self.name, (args, kwargs)
        if name in SHAPES:
            tensor = args[0] if args else kwargs["input"]
            return sizes.shape_of(tensor, self.batch_of(tensor))
        if name == GETITEM:
            spec = slices(args[1] if len(args) > 1 else kwargs["slice_spec"])
            return args[0][_single(spec) if isinstance(args[0], sizes.Sizes) else spec]
        symbolic = _any(both, KerasTensor)
        is_open = sizes.is_open(list(both))
        if is_open and not symbolic and name in sizes.FUNCTIONS:
            with contextlib.suppress(TypeError, ValueError, IndexError, AttributeError):
                return sizes.FUNCTIONS[name](*args, **kwargs)
        if name in SIZED and (symbolic or is_open):
            return SIZED[name](self.layer.name)(*args, **kwargs)
        if is_open:
            sizes.known([x for x in _leaves(both) if isinstance(x, sizes.Open | sizes.Sizes)], self.layer.name)
        if not symbolic and name in FOLDED:
            return _plain(self.layer.function(*args, **kwargs))
        if name not in FUNCTIONS:
            near = difflib.get_close_matches(name, KNOWN, 5, 0.5)
            raise ModelError(
                f"The function tf.{name} in '{self.layer.name}' has no twin in keras.ops.",
                f"One of the {len(KNOWN)} functions in kprune.compat.keras2"
                + (f", such as {', '.join(near)}." if near else "."),
                "Replace it by a layer before translating.",
            )
        return FUNCTIONS[name](*args, **kwargs)


def _number(value: int, dtype) -> np.ndarray:
    return np.asarray(value, getattr(dtype, "name", dtype) or "float32")


def _single(spec):
    """The only part of what stands between the brackets of a vector."""
    return spec[0] if isinstance(spec, tuple) else spec


def _leaves(value) -> list:
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for part in value for leaf in _leaves(part)] if isinstance(value, (list, tuple)) else [value]


def _any(value, kind: type) -> bool:
    return any(isinstance(leaf, kind) for leaf in _leaves(value))


def _plain(value):
    """Arguments with arrays in the place of TensorFlow's constants, and of lists of lists of numbers."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        nested = bool(value) and isinstance(value[0], (list, tuple))
        if nested and all(isinstance(leaf, (int, float)) for leaf in _leaves(value)):
            array = np.array(value)
            return array.astype("float32") if array.dtype == "float64" else array
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else tuple(map(_plain, value))
    return value.numpy() if hasattr(value, "numpy") else value
