"""Operations on the places of a map: pooling, padding, cropping, up-sampling. Channels pass."""

import keras
import numpy as np

from kprune.channels import along, spread
from kprune.rules.base import Call, Rule, channel_axis, constant_along, register_rule

layers = keras.layers


class Spatial(Rule):
    """Passes channels that lie along the channel axis of the layer."""

    def axis(self, call: Call) -> int:
        return channel_axis(call.operation, len(call.input_shapes[0]))

    def channels(self, call: Call, channels) -> list[np.ndarray]:
        places = [axis for axis in range(1, len(call.input_shapes[0])) if axis != self.axis(call)]
        constant_along(call.ids_in[0], places, type(call.operation).__name__)
        return [self.move(call, call.ids_in[0])]

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        """The array of the output from that of the input."""
        return array

    def constants(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        """A map that is the same number everywhere stays so."""
        return [self.move(call, values[0])]


register_rule(
    *(getattr(layers, f"{kind}Pooling{n}D") for kind in ("Max", "Average") for n in (1, 2, 3)),
    *(getattr(layers, f"UpSampling{n}D") for n in (1, 2, 3)),
    *(getattr(layers, f"Cropping{n}D") for n in (1, 2, 3)),
    *(
        getattr(layers, f"Adaptive{kind}Pooling{n}D")
        for kind in ("Max", "Average")
        for n in (1, 2, 3)
        if hasattr(layers, f"Adaptive{kind}Pooling{n}D")
    ),
)(Spatial)


@register_rule(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
class ZeroPadding(Spatial):
    """A padded map is constant only if it is zero."""

    def constants(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [np.where(values[0] == 0, 0.0, np.nan)]


@register_rule(*(getattr(layers, f"Global{kind}Pooling{n}D") for kind in ("Max", "Average") for n in (1, 2, 3)))
class GlobalPooling(Spatial):
    """One number per channel is left."""

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        rank, axis = len(call.output_shapes[0]), self.axis(call)
        vector = along(array, axis, array.shape[axis])
        return spread(vector, rank, axis if rank == array.ndim else rank - 1)
