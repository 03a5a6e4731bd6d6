"""Dense layers."""

import math

import keras
import numpy as np

from kprune.rules.base import Call, Weight, positions, register_rule, require_plain_kernel
from kprune.rules.convolution import Writer
from kprune.rules.linear_maps import DenseMap, LinearMap
from kprune.rules.operators import OperatorConfig


@register_rule(keras.layers.Dense)
class DenseRule(Writer):
    """Reads the last axis, writes fresh channels; one product per place of a sequence or map."""

    def axis(self, call: Call) -> int:
        return len(call.input_shapes[0]) - 1

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        require_plain_kernel(call.operation)
        self.inputs(call)
        return self.emit(call, channels, channels.fresh(call.operation.units, call.owner))

    def sliced_weights(self, call: Call) -> list[Weight]:
        axes = (self.inputs(call), self.outputs(call))
        uses = positions(call.output_shapes[0], self.axis(call))
        return [Weight("kernel", axes, uses, reads=0, writes=1), *self.bias(call)]

    def pruned_config(self, call: Call, kept) -> dict:
        return {**call.operation.get_config(), "units": kept.count(self.outputs(call))}

    def linear_maps(self, call: Call) -> list[LinearMap]:
        return [DenseMap()]

    def operator(self, call: Call) -> OperatorConfig | None:
        shape = call.input_shapes[0][1:]
        return None if None in shape else OperatorConfig("dense", (math.prod(shape[:-1]),))

    def connections(self, call: Call, variables: dict) -> np.ndarray:
        return variables["kernel"] != 0
