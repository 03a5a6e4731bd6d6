"""Parts of a tensor: slices, splits, gathers, padding, and stacks of tensors along a new axis."""

import numpy as np

from kprune.rules.base import Call, Rule, bare, register_rule
from kprune.rules.channels import Barrier, varying_axes
from kprune.rules.liveness import fold
from kprune.rules.shape import Rearrange


def slices(call: Call) -> tuple:
    """The key of `x[key]`: one entry per axis of `x`, and None for each new axis."""
    key = call.arguments.args[1] if len(call.arguments.args) > 1 else call.arguments.kwargs["key"]
    key = tuple(key) if isinstance(key, (tuple, list)) else (key,)
    if not all(part is None or isinstance(part, (int, slice)) or part is Ellipsis for part in key):
        raise Barrier("it is indexed by something other than numbers and slices")
    if Ellipsis not in key:
        key = (*key, Ellipsis)
    at = key.index(Ellipsis)
    missing = len(call.input_shapes[0]) - sum(part is not None and part is not Ellipsis for part in key)
    key = (*key[:at], *[slice(None)] * missing, *key[at + 1 :])
    if key[0] != slice(None):
        raise Barrier("it slices the batch axis")
    return key


@register_rule(*bare("GetItem"))
class GetItem(Rearrange):
    """`x[:, ::2, 3:7, None]`: slices the ids where they depend on the axis.

    Along the channel axis a range stays a range; for every n-th channel, n neighbours go together; a single one stays.
    """

    def own(self, call: Call) -> list[int]:
        """For each axis of `x` its place in the key."""
        return [place for place, part in enumerate(slices(call)) if part is not None]

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        key, axes = list(slices(call)), self.own(call)
        for size, place in zip(array.shape, axes, strict=True):
            if size == 1:
                key[place] = 0 if isinstance(key[place], int) else slice(None)
        return array[tuple(key)]

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        ids = call.ids_in[0]
        for axis in varying_axes(ids):
            part, vector = slices(call)[self.own(call)[axis]], ids.reshape(-1)
            if isinstance(part, int):
                channels.freeze(vector[part], f"'{call.path}' takes this one channel")
            elif part.step not in (None, 1, -1) or (part.step == -1 and part != slice(None, None, -1)):
                self.tie_neighbours(channels, vector, part)
        return super().output_ids(call, channels)

    def tie_neighbours(self, channels, vector: np.ndarray, part: slice):
        """Every n-th channel stays every n-th as long as whole blocks of n go."""
        if part.step < 0 or part.stop is not None or not 0 <= (part.start or 0) < part.step:
            raise Barrier("it takes every n-th channel of a part")
        first = np.arange(len(vector)) // part.step * part.step
        channels.tie(vector, vector[first])

    def pruned_arguments(self, call: Call, kept, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        key = list(slices(call))
        for axis in varying_axes(call.ids_in[0]):
            place = self.own(call)[axis]
            vector = call.ids_in[0].reshape(-1)
            if isinstance(key[place], int):
                key[place] = kept.count(vector[: key[place] % len(vector)])
            elif key[place].step in (None, 1):
                start, stop, _ = key[place].indices(len(vector))
                key[place] = slice(kept.count(vector[:start]), kept.count(vector[: max(start, stop)]))
        tensor = args[0] if args else kwargs["x"]
        return (tensor, tuple(key)), {}


@register_rule(*bare("Split", "ArraySplit"))
class Split(Rule):
    """Parts one after the other along an axis; along the channel axis they may come out of different sizes."""

    config_holds_channels = True

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0]

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        ids, axis = call.ids_in[0], call.operation.axis % call.ids_in[0].ndim
        if axis == 0:
            raise Barrier("it splits the batch axis")
        if ids.shape[axis] == 1:
            return [ids for _ in call.output_shapes]
        return self.parts(call, ids)

    def parts(self, call: Call, array: np.ndarray) -> list[np.ndarray]:
        axis = call.operation.axis % array.ndim
        return np.split(array, np.cumsum([shape[axis] for shape in call.output_shapes])[:-1], axis=axis)

    def pruned_config(self, call: Call, kept) -> dict:
        config, axis = call.operation.get_config(), call.operation.axis % call.ids_in[0].ndim
        if call.ids_in[0].shape[axis] > 1:
            sizes = [kept.size(ids, axis, ids.shape[axis]) for ids in call.ids_out]
            config["indices_or_sections"] = tuple(np.cumsum(sizes)[:-1].tolist())
        return config

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        if values[0].shape[call.operation.axis] == 1:
            return [values[0] for _ in call.output_shapes]
        return self.parts(call, values[0])


@register_rule(*bare("Unstack"))
class Unstack(Rule):
    """Slices along an axis that holds no channels, each without that axis."""

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0]

    def parts(self, call: Call, array: np.ndarray) -> list[np.ndarray]:
        axis = call.operation.axis % array.ndim
        if axis == 0 or array.shape[axis] > 1:
            raise Barrier("it takes single channels, or single examples")
        return [np.squeeze(array, axis) for _ in call.output_shapes]

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        return self.parts(call, call.ids_in[0])

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return self.parts(call, values[0])


@register_rule(*bare("Stack"))
class Stack(Rule):
    """Tensors along a new axis: their channels go together."""

    def zero_if_removed(self, call: Call) -> bool:
        return all(call.resting)

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        axis = call.operation.axis % len(call.output_shapes[0])
        if axis == 0:
            raise Barrier("it makes another batch axis")
        for ids in call.ids_in[1:]:
            channels.tie(call.ids_in[0], ids)
        return [np.expand_dims(max(call.ids_in, key=np.size), axis)]

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        on = np.squeeze(live[0], call.operation.axis % live[0].ndim)
        return [fold(on, ids.shape) for ids in call.ids_in]


@register_rule(*bare("Take"))
class Take(Rearrange):
    """`ops.take` with fixed indices: a permutation or a choice of channels."""

    def indices(self, call: Call) -> np.ndarray:
        given = call.arguments.args[1] if len(call.arguments.args) > 1 else call.arguments.kwargs["indices"]
        if call.operation.axis is None or len(call.ids_in) > 1 or np.ndim(given) != 1:
            raise Barrier("it gathers by indices that are not a fixed list")
        return np.asarray(given)

    def axis(self, call: Call) -> int:
        axis = call.operation.axis % len(call.input_shapes[0])
        if axis == 0:
            raise Barrier("it gathers from the batch axis")
        return axis

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        axis = self.axis(call)
        return np.take(array, self.indices(call), axis=axis) if array.shape[axis] > 1 else array

    def pruned_arguments(self, call: Call, kept, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        ids, axis = call.ids_in[0], self.axis(call)
        if ids.shape[axis] == 1:
            return args, kwargs
        mask = kept.mask[ids.reshape(-1)]
        indices = self.indices(call) % len(mask)
        left = (np.cumsum(mask) - 1)[indices[mask[indices]]]
        return (args[0] if args else kwargs["x"], left), {}


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

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        ids, width = call.ids_in[0], self.own(call)
        if sum(map(sum, width)) and not self.zeros(call):
            raise Barrier("it pads channels by something other than zeros")
        padded = np.pad(ids, width, constant_values=-1)
        padded[padded < 0] = channels.fresh(int((padded < 0).sum()), call.owner)
        return [padded]

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        return Rule.live_inputs(self, call, live, values)

    def pruned_config(self, call: Call, kept) -> dict:
        width = self.width(call)
        for axis in varying_axes(call.ids_in[0]):
            ids, (front, back) = call.ids_out[0].reshape(-1), width[axis]
            width[axis] = (kept.count(ids[:front]), kept.count(ids[len(ids) - back :]))
        return {**call.operation.get_config(), "pad_width": tuple(width)}

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        value = values[0] if self.zeros(call) else np.full_like(values[0], np.nan)
        elsewhere = any(sum(a) > sum(b) for a, b in zip(self.width(call), self.own(call), strict=True))
        value = np.where(value == 0, 0.0, np.nan) if elsewhere else value
        shape = np.broadcast_shapes(value.shape, call.ids_in[0].shape)
        return [np.pad(np.broadcast_to(value, shape), self.own(call))]
