"""Operations that rearrange a tensor: each runs the same NumPy operation on the id array."""

import math

import keras
import numpy as np

from kprune.rules.base import Call, Rule, bare, channel_axis, constant_along, register_rule
from kprune.rules.channels import Barrier, along, compress, spread, varying_axes

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

    config_holds_channels, relevance = True, "transport"

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        return array

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        if not varying_axes(call.ids_in[0]):
            return [call.ids_in[0].reshape((1,) * len(call.output_shapes[0]))]
        return [self.move(call, call.ids_in[0])]

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0]

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [self.move(call, values[0])]

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        """The channels that come to lie where something matters."""
        ids = call.ids_in[0]
        moved = self.move(call, ids) if varying_axes(ids) else ids.reshape((1,) * live[0].ndim)
        shape = np.broadcast_shapes(moved.shape, live[0].shape)
        alive = np.broadcast_to(moved, shape)[np.broadcast_to(live[0], shape)]
        return [np.isin(ids, alive), *(np.zeros(other.shape, dtype=bool) for other in call.ids_in[1:])]

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
        if full.size != math.prod(shape[1:]):
            raise Barrier("it reshapes the batch too")
        if getattr(call.operation, "data_format", None) == "channels_first":  # Flatten puts channels last first
            full = np.moveaxis(full, 1, -1)
        return compress(full.reshape(1, *shape[1:]))

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        ids = super().output_ids(call, channels)[0]
        for axis in varying_axes(ids)[:-1]:
            first = np.take(ids, [0], axis=axis)
            channels.tie(ids, first)
            ids = first
        return [ids]

    def pruned_config(self, call: Call, kept) -> dict:
        config = call.operation.get_config()
        sizes = self.new_sizes(call, kept)
        if "target_shape" in config:
            old = config["target_shape"]
            config["target_shape"] = tuple(-1 if a == -1 else b for a, b in zip(old, sizes[1:], strict=True))
        elif "newshape" in config:
            old = np.atleast_1d(config["newshape"]).tolist()
            config["newshape"] = tuple(a if a in (-1, None) else b for a, b in zip(old, sizes, strict=True))
        return config


class AxisOrder(Rearrange):
    """Moves whole axes: what the operation does to a tensor it does to the ids."""

    config_holds_channels = False

    def order(self, operation, rank: int):
        """For each axis of the output, the axis of the input that it was."""
        raise NotImplementedError

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        order = [axis % array.ndim for axis in self.order(call.operation, array.ndim)]
        if order[0] != 0:
            raise Barrier("it moves the batch axis")
        return np.transpose(array, order)


@register_rule(layers.Permute)
class Permute(AxisOrder):
    def order(self, operation, rank: int):
        return (0, *operation.dims)


@register_rule(*bare("Transpose"))
class Transpose(AxisOrder):
    def order(self, operation, rank: int):
        return range(rank)[::-1] if operation.axes is None else operation.axes


@register_rule(*bare("Swapaxes"))
class SwapAxes(AxisOrder):
    def order(self, operation, rank: int):
        order = list(range(rank))
        one, other = operation.axis1, operation.axis2
        order[one], order[other] = order[other], order[one]
        return order


@register_rule(*bare("Moveaxis"))
class MoveAxis(AxisOrder):
    def order(self, operation, rank: int):
        numbered = np.empty(range(rank))  # axis n has size n
        return np.moveaxis(numbered, operation.source, operation.destination).shape


@register_rule(*bare("ExpandDims"))
class ExpandDims(Rearrange):
    """New axes of size 1."""

    config_holds_channels = False

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        rank = len(call.output_shapes[0])
        axes = [axis % rank for axis in np.atleast_1d(call.operation.axis)]
        if 0 in axes:
            raise Barrier("it makes another batch axis")
        return np.expand_dims(array, tuple(axes))


@register_rule(*bare("Squeeze"))
class Squeeze(Rearrange):
    """Drops axes of size 1: those that have it now, whatever sizes removal leaves to others."""

    def axes(self, call: Call) -> tuple[int, ...]:
        shape, axis = call.input_shapes[0], call.operation.axis
        if axis is None:
            return tuple(index for index, size in enumerate(shape) if size == 1)
        return tuple(int(index) % len(shape) for index in np.atleast_1d(axis))

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        return np.squeeze(array, self.axes(call))

    def pruned_config(self, call: Call, kept) -> dict:
        return {**call.operation.get_config(), "axis": self.axes(call)}


@register_rule(layers.RepeatVector)
class RepeatVector(Rearrange):
    """`[batch, channels]` again and again along a new axis."""

    config_holds_channels = False

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        return np.expand_dims(array, 1)


@register_rule(*bare("Flip"))
class Flip(Rearrange):
    """Reverses axes; what stays is reversed alike."""

    config_holds_channels = False

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        axis = call.operation.axis
        return np.flip(array, axis if axis is None or np.isscalar(axis) else tuple(axis))


@register_rule(*bare("Roll"))
class Roll(Rearrange):
    """Turns axes round: not that of the channels, for fewer would turn further."""

    config_holds_channels = False

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        axis, ids = call.operation.axis, call.ids_in[0]
        axes = [a % ids.ndim for a in (range(ids.ndim) if axis is None else np.atleast_1d(axis))]
        if 0 in axes:
            raise Barrier("it moves examples of the batch")
        constant_along(ids, axes, "Roll")
        return [ids]

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        return np.roll(array, call.operation.shift, call.operation.axis)


@register_rule(*bare("Tile"))
class Tile(Rearrange):
    """Copies side by side."""

    config_holds_channels = False

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        repeats = np.atleast_1d(call.operation.repeats).tolist()
        if len(repeats) > array.ndim:
            raise Barrier("it makes a new first axis")
        repeats = [1] * (array.ndim - len(repeats)) + repeats
        if repeats[0] != 1:
            raise Barrier("it repeats along the batch axis")
        return np.tile(array, [n if size > 1 else 1 for n, size in zip(repeats, array.shape, strict=True)])


@register_rule(*bare("Repeat"))
class Repeat(Rearrange):
    """Copies each slice along an axis."""

    config_holds_channels = False

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        repeats, axis = call.operation.repeats, call.operation.axis
        if axis is None or axis % array.ndim == 0:
            raise Barrier("it repeats along the batch axis")
        if array.shape[axis] == 1:
            return array
        if np.size(repeats) > 1:
            raise Barrier("it repeats each channel another number of times")
        return np.repeat(array, int(np.ravel(repeats)[0]), axis=axis)


def rearranged(call: Call, places: int) -> np.ndarray:
    """What the operation makes of the ids of one block, `[channels, places out]`: asked of the operation itself, for
    with channels first Keras orders them one way on TensorFlow and another on JAX and PyTorch.

    Args:
      places: how wide and high the block is before the operation.
    """
    rank = len(call.input_shapes[0])
    axis = channel_axis(call.operation, rank)
    ids = spread(along(call.ids_in[0], axis, call.input_shapes[0][axis]), rank, axis)
    shape = [1] + [places] * (rank - 1)
    shape[axis] = ids.shape[axis]
    block = keras.ops.convert_to_tensor(np.broadcast_to(ids, shape).astype("int32"))
    result = keras.ops.convert_to_numpy(call.operation(block)).astype(ids.dtype)
    return np.moveaxis(result, axis, 0).reshape(result.shape[axis], -1)


@register_rule(*bare("DepthToSpace"))
class DepthToSpace(Rule):
    """Blocks of channels become places: the channels that end up in one go together."""

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0]

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        rank = len(call.input_shapes[0])
        ids = rearranged(call, 1).T
        channels.tie(ids, ids[:1])
        return [spread(ids[0], rank, channel_axis(call.operation, rank))]

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        return [np.isin(call.ids_in[0], rearranged(call, 1).T[:, live[0].reshape(-1)])]


@register_rule(*bare("SpaceToDepth"))
class SpaceToDepth(Rule):
    """Places become blocks of channels."""

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0]

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        rank = len(call.input_shapes[0])
        ids = rearranged(call, call.operation.block_size)[:, 0]
        return [spread(ids, rank, channel_axis(call.operation, rank))]
