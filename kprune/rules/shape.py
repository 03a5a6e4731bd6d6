"""Operations that rearrange a tensor: each runs the same NumPy operation on the id array."""

import keras
import numpy as np

from kprune.channels import Barrier, compress, varying_axes
from kprune.rules.base import Call, Rule, bare, register_rule

layers = keras.layers


def expand(array: np.ndarray, shape: tuple) -> np.ndarray:
    """An id array at the full size of its tensor, batch axis 1.

    Raises:
      Barrier: a size is unknown.
    """
    if None in shape[1:]:
        raise Barrier("it reshapes a tensor of unknown size")
    return np.broadcast_to(array, (1, *shape[1:]))


class Rearrange(Rule):
    """A pure rearrangement: `move` does to any array what the operation does to the tensor."""

    resizes = True

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        return array

    def channels(self, call: Call, channels) -> list[np.ndarray]:
        if not varying_axes(call.ids_in[0]):
            return [call.ids_in[0].reshape((1,) * len(call.output_shapes[0]))]
        return [self.move(call, call.ids_in[0])]

    def constants(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [self.move(call, values[0])]

    def new_sizes(self, call: Call, kept) -> list:
        """The sizes of the output after removal, batch axis included."""
        ids, shape = call.ids_out[0], call.output_shapes[0]
        return [kept.size(ids, axis, size) for axis, size in enumerate(shape)]


@register_rule(layers.Reshape, layers.Flatten, *bare("Reshape"))
class Reshape(Rearrange):
    """Where the new shape spreads channels over two axes, those that share a place on the last one go together."""

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        shape = call.output_shapes[0]
        if None in shape[1:]:
            raise Barrier("it reshapes to an unknown size")
        full = expand(array, call.input_shapes[0])
        if getattr(call.operation, "data_format", None) == "channels_first":  # Flatten puts channels last first
            full = np.moveaxis(full, 1, -1)
        return compress(full.reshape(1, *shape[1:]))

    def channels(self, call: Call, channels) -> list[np.ndarray]:
        ids = super().channels(call, channels)[0]
        for axis in varying_axes(ids)[:-1]:
            first = np.take(ids, [0], axis=axis)
            channels.tie(ids, first)
            ids = first
        return [ids]

    def config(self, call: Call, kept) -> dict:
        config = call.operation.get_config()
        sizes = self.new_sizes(call, kept)
        if "target_shape" in config:
            old = config["target_shape"]
            config["target_shape"] = tuple(-1 if a == -1 else b for a, b in zip(old, sizes[1:], strict=True))
        elif "newshape" in config:
            old = np.atleast_1d(config["newshape"]).tolist()
            config["newshape"] = tuple(a if a in (-1, None) else b for a, b in zip(old, sizes, strict=True))
        return config


@register_rule(layers.Permute, *bare("Transpose"))
class Transpose(Rearrange):
    """Swaps axes."""

    resizes = False

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        layer = call.operation
        order = (0, *layer.dims) if isinstance(layer, layers.Permute) else layer.axes
        order = tuple(reversed(range(array.ndim))) if order is None else tuple(order)
        if order[0] != 0:
            raise Barrier("it moves the batch axis")
        return np.transpose(array, order)


def slices(call: Call) -> tuple:
    """The key of `x[key]` with one entry per axis of `x`, new axes refused."""
    key = call.arguments.args[1] if len(call.arguments.args) > 1 else call.arguments.kwargs["key"]
    key = tuple(key) if isinstance(key, (tuple, list)) else (key,)
    if not all(isinstance(part, (int, slice)) or part is Ellipsis for part in key):
        raise Barrier("it is indexed by something other than numbers and slices")
    if Ellipsis not in key:
        key = (*key, Ellipsis)
    at = key.index(Ellipsis)
    missing = len(call.input_shapes[0]) - (len(key) - 1)
    return (*key[:at], *[slice(None)] * missing, *key[at + 1 :])


@register_rule(*bare("GetItem"))
class GetItem(Rearrange):
    """`x[:, ::2, 3:7]`: slices the ids where they depend on the axis."""

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        parts = slices(call)
        if parts[0] != slice(None):
            raise Barrier("it slices the batch axis")
        here = [slice(None) if size == 1 else part for size, part in zip(array.shape, parts, strict=True)]
        dropped = tuple(axis for axis, part in enumerate(parts) if isinstance(part, int))
        here = [slice(part, part + 1 or None) if isinstance(part, int) else part for part in here]
        return np.squeeze(array[tuple(here)], axis=dropped)

    def channels(self, call: Call, channels) -> list[np.ndarray]:
        for axis in varying_axes(call.ids_in[0]):
            part = slices(call)[axis]
            if isinstance(part, int) or part.step not in (None, 1):
                raise Barrier("it takes single channels, or every n-th")
        return super().channels(call, channels)

    def arguments(self, call: Call, kept, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        key = list(slices(call))
        for axis in varying_axes(call.ids_in[0]):
            ids = call.ids_in[0].reshape(-1)
            start, stop, _ = key[axis].indices(len(ids))
            key[axis] = slice(kept.count(ids[:start]), kept.count(ids[: max(start, stop)]))
        tensor = args[0] if args else kwargs["x"]
        return (tensor, tuple(key)), {}


@register_rule(*bare("Pad"))
class Pad(Rearrange):
    """`ops.pad` with zeros: along the channel axis it makes channels of its own that hold nothing."""

    def width(self, call: Call) -> list[tuple[int, int]]:
        width, rank = call.operation.pad_width, len(call.input_shapes[0])
        return [tuple(pair) for pair in (width * rank if len(width) == 1 else width)]

    def zeros(self, call: Call) -> bool:
        """Whether what is padded is zero."""
        given = [x for x in (*call.arguments.args[1:], *call.arguments.kwargs.values()) if np.isscalar(x)]
        return call.operation.mode == "constant" and not any(given)

    def own(self, call: Call) -> list[tuple[int, int]]:
        """The padding along the axes on which the ids depend; none along the others."""
        return [pair if size > 1 else (0, 0) for pair, size in zip(self.width(call), call.ids_in[0].shape, strict=True)]

    def channels(self, call: Call, channels) -> list[np.ndarray]:
        ids, width = call.ids_in[0], self.own(call)
        if sum(map(sum, width)) and not self.zeros(call):
            raise Barrier("it pads channels by something other than zeros")
        padded = np.pad(ids, width, constant_values=-1)
        padded[padded < 0] = channels.fresh(int((padded < 0).sum()), call.owner)
        return [padded]

    def config(self, call: Call, kept) -> dict:
        width = self.width(call)
        for axis in varying_axes(call.ids_in[0]):
            ids, (front, back) = call.ids_out[0].reshape(-1), width[axis]
            width[axis] = (kept.count(ids[:front]), kept.count(ids[len(ids) - back :]))
        return {**call.operation.get_config(), "pad_width": tuple(width)}

    def constants(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        value = values[0] if self.zeros(call) else np.full_like(values[0], np.nan)
        elsewhere = any(sum(a) > sum(b) for a, b in zip(self.width(call), self.own(call), strict=True))
        value = np.where(value == 0, 0.0, np.nan) if elsewhere else value
        shape = np.broadcast_shapes(value.shape, call.ids_in[0].shape)
        return [np.pad(np.broadcast_to(value, shape), self.own(call))]
