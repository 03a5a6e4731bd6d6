"""Masks: constraints that hold removed weights at zero, and the wrapper that carries them in a saved model."""

import keras
import numpy as np

from kprune.compat.variables import to_numpy, variables_by_name
from kprune.graph import Graph, SlicedWeight
from kprune.rules import find_rule
from kprune.utils.errors import OptionError


def weight_mask(weight: SlicedWeight, keep: np.ndarray) -> np.ndarray:
    """Which elements of a weight stay: the product over its axes, size 1 where an axis is not sliced.

    A removed channel is zero where it is made *and* where it is read, so that no constant (a BatchNorm beta, an
    activation with f(0) != 0) ever reaches a reader, and masked equals removed whatever lies between.
    """
    rank = len(weight.shape)
    mask = np.ones((1,) * rank, dtype=bool)
    for axis, sets in enumerate(weight.axes):
        if sets is not None:
            shape = [1] * rank
            shape[axis] = -1
            mask = mask & keep[sets].reshape(shape)
    return mask


@keras.saving.register_keras_serializable("kprune")
class FilterMask(keras.constraints.Constraint):
    """Multiplies a variable by a mask after each optimizer step, after the constraint that the variable had before.

    Args:
      mask: array or variable that broadcasts to the variable, 1 = keep.
      then: the variable's own constraint, applied first, or None.
    """

    def __init__(self, mask, then=None):
        self.mask, self.then = mask, then

    def __call__(self, w):
        w = w if self.then is None else self.then(w)
        return w * keras.ops.cast(self.mask, w.dtype)

    def get_config(self):
        return {"mask": np.asarray(to_numpy(self.mask)).tolist(), "then": self.then}


def set_mask(variable, mask):
    """Gives a variable a mask, in the place of one that it has."""
    before = variable.constraint
    variable.constraint = FilterMask(mask, before.then if isinstance(before, FilterMask) else before)


def pack(mask: np.ndarray) -> dict:
    """A boolean array as JSON: its shape and a string of 0 and 1."""
    return {"shape": list(mask.shape), "bits": "".join("1" if bit else "0" for bit in mask.ravel())}


def unpack(packed: dict) -> np.ndarray:
    return np.array([bit == "1" for bit in packed["bits"]]).reshape(packed["shape"])


@keras.saving.register_keras_serializable("kprune")
class MaskedLayer(keras.layers.Wrapper):
    """A layer some of whose weights are held at zero. It costs no time in a forward pass: the zeros are in the weights.

    Args:
      layer: the wrapped layer.
      masks: per variable name of the layer, a packed boolean array (see `pack`) that broadcasts to the variable.
    """

    transparent = True

    def __init__(self, layer, masks: dict, **kwargs):
        super().__init__(layer, **kwargs)
        if not isinstance(masks, dict):
            raise OptionError(f"masks is {masks!r}.", "Packed arrays by the name of a variable.", "Use kprune.strip.")
        self.masks = dict(masks)

    def build(self, input_shape=None):
        super().build(input_shape)
        for name, variable in variables_by_name(self.layer).items():
            if name in self.masks:  # where it is frozen too: it may be trained later
                set_mask(variable, unpack(self.masks[name]).astype("float32"))

    def call(self, inputs, **kwargs):
        return self.layer(inputs, **kwargs)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def compute_output_spec(self, *args, **kwargs):
        return self.layer.compute_output_spec(*args, **kwargs)  # also where the layer has no `compute_output_shape`

    def get_config(self):
        return {**super().get_config(), "masks": self.masks}


@keras.saving.register_keras_serializable("kprune")
class MaskedAttention(MaskedLayer):
    """The same around a layer that takes query, value and key as arguments of their own."""

    def build(self, query_shape, value_shape, key_shape=None):
        if not self.layer.built:
            self.layer.build(query_shape, value_shape, key_shape)
        super().build(query_shape)

    def call(self, query, value, key=None, **kwargs):
        return self.layer(query, value, key=key, **kwargs)

    def compute_output_shape(self, query_shape, value_shape, key_shape=None):
        return self.layer.compute_output_shape(query_shape, value_shape, key_shape)


def wrap(layer, weights: list[SlicedWeight], keep: np.ndarray):
    """The layer in a `MaskedLayer`, or as it is where it loses nothing or has no weights."""
    masks = {weight.name: weight_mask(weight, keep) for weight in weights}
    packed = {name: pack(mask) for name, mask in masks.items() if not mask.all()}
    kind = MaskedAttention if find_rule(layer).separate_inputs else MaskedLayer
    return kind(layer, packed, name=layer.name) if packed else layer


def zero_filters(graph: Graph, keep: np.ndarray):
    """Zeroes removed filters where they are made and nowhere else, so that training can bring them back: a filter whose
    readers are zero as well gets no gradient any more, nor one whose bias is zero too, before a ReLU.
    """
    for weight in graph.writers:
        if weight.variable.trainable:
            value = weight.value().copy()
            np.moveaxis(value, weight.writes, 0)[~keep[weight.axes[weight.writes]]] = 0
            weight.variable.assign(value)


def is_statistic(weight: SlicedWeight) -> bool:
    """Whether a weight is updated by the layer itself, as a moving mean is; one that is merely frozen is not."""
    kernel = weight.writes is not None or weight.reads is not None
    return not (kernel or weight.variable.trainable) and weight.layer.trainable


class TrainingMasks:
    """The masks of a model in training: one variable each, seen by the compiled step.

    Args:
      graph: the traced model; its variables get constraints, nothing else of it changes.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self._masks: list[tuple[SlicedWeight, object]] = []

    def attach(self, keep: np.ndarray):
        """Puts a constraint on each sliced variable but the statistics that training itself updates."""
        self._masks.clear()
        for weight in self.graph.weights:
            if not is_statistic(weight):
                mask = keras.Variable(weight_mask(weight, keep).astype("float32"), trainable=False, name="filter_mask")
                set_mask(weight.variable, mask)
                self._masks.append((weight, mask))

    def assign(self, keep: np.ndarray):
        """Changes the masks and zeroes what they remove."""
        for weight, mask in self._masks:
            mask.assign(weight_mask(weight, keep).astype("float32"))
        self.enforce(keep)

    def enforce(self, keep: np.ndarray):
        """Zeroes the removed weights (again), as after averages were written back."""
        for weight, _ in self._masks:
            mask = weight_mask(weight, keep)
            if not mask.all():
                value = weight.value()
                weight.variable.assign(value * mask.astype(value.dtype))
