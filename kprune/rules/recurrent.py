"""Recurrent layers read channels; their own units stay, for the state of each feeds all others."""

import math

import keras
import numpy as np

from kprune.compat.variables import variables_by_name
from kprune.rules.base import Call, Rule, Weight, register_rule
from kprune.rules.channels import Barrier, along
from kprune.rules.linear_maps import DenseMap, LinearMap

layers = keras.layers
CELLS = (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell)


@register_rule(layers.LSTM, layers.GRU, layers.SimpleRNN, layers.RNN)
class RecurrentRule(Rule):
    """The kernel of its cell is summed over the channels of each moment."""

    def cells(self, layer) -> list:
        """The cells that read the layer's input."""
        return [layer.cell]

    def inputs(self, call: Call) -> np.ndarray:
        return along(call.ids_in[0], -1, call.input_shapes[0][-1])

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        if any(type(cell) not in CELLS for cell in self.cells(call.operation)):
            raise Barrier("kprune does not know how its cell reads channels")
        if np.any([ids.shape[1:-1] != (1,) * (ids.ndim - 2) for ids in call.ids_in[:1]]):
            raise Barrier("its channels lie along the axis of time")
        self.inputs(call)
        reason = f"the units of '{call.path}' feed one another"
        for ids in call.ids_in[1:]:
            channels.freeze(ids, reason)
        return [channels.frozen(len(shape), reason) for shape in call.output_shapes]

    def linear_maps(self, call: Call) -> list[LinearMap]:
        """The input kernels; a GRU that resets after its recurrent product has a bias for each of the two products."""
        names = {id(v): name for name, v in variables_by_name(call.operation).items()}
        return [
            DenseMap(
                names[id(cell.kernel)],
                names.get(id(cell.bias), ""),
                row=(0,) if cell.bias is not None and len(cell.bias.shape) == 2 else (),
                inside=True,
            )
            for cell in self.cells(call.operation)
        ]

    def sliced_weights(self, call: Call) -> list[Weight]:
        names = {id(v): name for name, v in variables_by_name(call.operation).items()}
        moments = call.input_shapes[0][1]
        uses = math.nan if moments is None else float(moments)
        kernels = [(names[id(cell.kernel)], names[id(cell.recurrent_kernel)]) for cell in self.cells(call.operation)]
        return [
            weight
            for kernel, recurrent in kernels
            for weight in (
                Weight(kernel, (self.inputs(call), None), uses, reads=0),
                Weight(recurrent, (None, None), uses),
            )
        ]


@register_rule(layers.Bidirectional)
class BidirectionalRule(RecurrentRule):
    """Two recurrent layers on one input."""

    def cells(self, layer) -> list:
        inside = (layer.forward_layer, layer.backward_layer)
        return [getattr(one, "cell", None) for one in inside]
