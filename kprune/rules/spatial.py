"""Operations on the places of a map: pooling, padding, cropping, up-sampling. Channels pass."""

import keras
import numpy as np

from kprune.rules.base import Call, Rule, bare, channel_axis, constant_along, map_size, register_rule
from kprune.rules.channels import along, spread
from kprune.rules.operators import OperatorConfig

layers = keras.layers


class Spatial(Rule):
    """Passes channels that lie along the channel axis of the layer."""

    transparent_to_probes = True

    def axis(self, call: Call) -> int:
        return channel_axis(call.operation, len(call.input_shapes[0]))

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        places = [axis for axis in range(1, len(call.input_shapes[0])) if axis != self.axis(call)]
        constant_along(call.ids_in[0], places, type(call.operation).__name__)
        return [self.move(call, call.ids_in[0])]

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0]

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        """The array of the output from that of the input."""
        return array

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        """A map that is the same number everywhere stays so."""
        return [self.move(call, values[0])]


@register_rule(*(getattr(layers, f"{kind}Pooling{n}D") for kind in ("Max", "Average") for n in (1, 2, 3)))
class Pooling(Spatial):
    """The largest number or the mean of each window."""

    def operator(self, call: Call) -> OperatorConfig | None:
        layer, size = call.operation, map_size(call)
        operation = "max_pool" if isinstance(layer, layers.MaxPooling2D) else "average_pool"
        return size and OperatorConfig(operation, size, layer.pool_size, layer.strides, (), layer.padding)


register_rule(
    *bare("MaxPool", "AveragePool", "AdaptiveMaxPool", "AdaptiveAveragePool"),
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

    transparent_to_probes = False

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [np.where(values[0] == 0, 0.0, np.nan)]


def those(*names: str) -> list[type]:
    """The layers of these names that this Keras has."""
    return [getattr(layers, name) for name in names if hasattr(layers, name)]


@register_rule(*those("Resizing", "CenterCrop", "RandomCrop", "RandomFlip", "RandomRotation", "RandomTranslation"))
@register_rule(*those("RandomZoom", "RandomShear", "RandomPerspective", "RandomElasticTransform", "RandomErasing"))
@register_rule(*bare("Resize", "PadImages", "CropImages"))
class Geometry(Spatial):
    """Moves places about, the same in every channel; what it fills in is zero or another number."""

    transparent_to_probes = False

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0] and not getattr(call.operation, "fill_value", 0.0)

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return Rule.constant_channels(self, call, values)


@register_rule(*those("RandomBrightness", "RandomContrast", "RandomGaussianBlur", "RandomSharpness", "RandomInvert"))
@register_rule(
    *those("RandomColorJitter", "RandomColorDegeneration", "RandomGrayscale", "RandomHue", "RandomSaturation")
)
@register_rule(*those("RandomPosterization", "RandAugment", "AutoContrast", "Equalization", "Solarization", "AugMix"))
class Colours(Rule):
    """Works on the colours of an image, of which none is removed."""

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        constant_along(call.ids_in[0], range(call.ids_in[0].ndim), type(call.operation).__name__)
        return [call.ids_in[0]]


@register_rule(*(getattr(layers, f"Global{kind}Pooling{n}D") for kind in ("Max", "Average") for n in (1, 2, 3)))
class GlobalPooling(Spatial):
    """One number per channel is left."""

    transparent_to_probes = False

    def operator(self, call: Call) -> OperatorConfig | None:
        size = map_size(call) if isinstance(call.operation, layers.GlobalAveragePooling2D) else None
        return OperatorConfig("mean", size) if size else None

    def move(self, call: Call, array: np.ndarray) -> np.ndarray:
        rank, axis = len(call.output_shapes[0]), self.axis(call)
        vector = along(array, axis, array.shape[axis])
        return spread(vector, rank, axis if rank == array.ndim else rank - 1)
