"""Operations that leave one number for many: over places channels pass, over channels they stop."""

import numpy as np

from kprune.rules.base import Call, Rule, bare, constant_along, register_rule
from kprune.rules.channels import Barrier


class Reduction(Rule):
    """A mean, sum, maximum and their like over axes on which no channels lie."""

    def axes(self, call: Call) -> tuple[int, ...]:
        rank, axis = len(call.input_shapes[0]), call.operation.axis
        axes = range(rank) if axis is None else (int(a) % rank for a in np.atleast_1d(axis))
        return tuple(axes)

    def reduce(self, call: Call, array: np.ndarray) -> np.ndarray:
        return array if getattr(call.operation, "keepdims", False) else np.squeeze(array, self.axes(call))

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        axes = self.axes(call)
        if 0 in axes:
            raise Barrier("it reduces the batch axis")
        constant_along(call.ids_in[0], axes, f"its {type(call.operation).__name__.lower()}")
        return [self.reduce(call, call.ids_in[0])]


register_rule(*bare("Prod", "Std", "Var", "Median", "Logsumexp", "CountNonzero", "Any", "All"))(Reduction)
register_rule(*bare("Argmax", "Argmin", "Nansum", "Nanstd", "Nanvar"))(Reduction)


@register_rule(*bare("Mean", "Max", "Min", "Amax", "Amin", "Nanmean", "Nanmax", "Nanmin"))
class Average(Reduction):
    """Of equal numbers it is that number."""

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        if any(values[0].shape[axis] > 1 for axis in self.axes(call)):
            raise Barrier("its constants differ along the axes that it reduces")
        return [self.reduce(call, values[0])]


@register_rule(*bare("Sum"))
class Sum(Reduction):
    """Channels that are zero once removed may be summed over."""

    def sums_over_channels(self, call: Call) -> bool:
        return any(call.ids_in[0].shape[axis] > 1 for axis in self.axes(call))

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        if self.sums_over_channels(call) and call.resting[0] and 0 not in self.axes(call):
            return [channels.frozen(len(call.output_shapes[0]), f"'{call.path}' is a sum over channels")]
        return super().output_ids(call, channels)
