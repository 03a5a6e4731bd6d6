"""`TimeDistributed`: its layer, or model, works on all moments as on so many examples, between a fold and an unfold."""

import keras
import numpy as np

from kprune.rules.base import Call, register_rule
from kprune.rules.channels import Barrier
from kprune.rules.shape import Rearrange


class FoldTime(keras.Operation):
    """`[batch, time, ...]` to `[batch * time, ...]`."""

    def call(self, x):
        return keras.ops.reshape(x, (-1, *x.shape[2:]))

    def compute_output_spec(self, x):
        return keras.KerasTensor((None, *x.shape[2:]), dtype=x.dtype)


class UnfoldTime(keras.Operation):
    """`[batch * time, ...]` to `[batch, time, ...]`; batch and time are those of a second tensor."""

    def call(self, x, like):
        return keras.ops.reshape(x, (*keras.ops.shape(like)[:2], *x.shape[1:]))

    def compute_output_spec(self, x, like):
        return keras.KerasTensor((*like.shape[:2], *x.shape[1:]), dtype=x.dtype)


@register_rule(FoldTime)
class Fold(Rearrange):
    config_holds_channels = False

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        if array.shape[1] > 1:
            raise Barrier("its channels lie along the axis of time")
        return np.squeeze(array, 1)


@register_rule(UnfoldTime)
class Unfold(Rearrange):
    config_holds_channels = False

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        return np.expand_dims(array, 1)
