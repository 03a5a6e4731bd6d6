"""Operations that treat every number of a tensor by itself: activations, dropout, unary operations."""

import keras
import numpy as np

from kprune.compat.variables import variables_by_name
from kprune.rules.activations import apply_elementwise, is_elementwise, maps_zero_to_zero
from kprune.rules.base import Call, Rule, Weight, bare, constant_along, register_rule
from kprune.rules.channels import Barrier, along, spread

layers = keras.layers


@register_rule(
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.Identity,
    *bare("Cast", "StopGradient", "Copy"),
)
class PassThrough(Rule):
    """Nothing happens to channels, and at inference nothing to their values."""

    relevance, transparent_to_probes = "pass_on", True

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0]

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return values


class Activating(Rule):
    """Shared by activations."""

    relevance = "pass_on"

    def activates(self, call: Call) -> bool:
        return getattr(call.operation, "activation", None) is not keras.activations.linear


@register_rule(
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    *bare(
        "ReLU", "Relu", "Relu6", "Sigmoid", "Silu", "Softplus", "Softsign", "Elu", "Selu", "Celu", "Gelu", "LeakyRelu"
    ),
    *bare("HardSigmoid", "HardSilu", "HardTanh", "HardShrink", "SoftShrink", "TanhShrink", "LogSigmoid", "Squareplus"),
    *bare("Tanh", "Exp", "Square", "Sqrt", "Absolute", "Abs", "Negative", "Clip", "Threshold", "Erf", "Log1p", "Expm1"),
    *bare(
        "Sin", "Cos", "Sinh", "Cosh", "Arctan", "Arcsinh", "Sign", "Floor", "Ceil", "Round", "Trunc", "SparseSigmoid"
    ),
    *bare(
        "ZerosLike",
        "OnesLike",
        "Fabs",
        "Arcsin",
        "Arctanh",
        "Cbrt",
        "Exp2",
        "Erfc",
        "Tan",
        "Sinc",
        "NanToNum",
        "SaturateCast",
        "SparsePlus",
    ),
)
class Elementwise(Activating):
    """An activation: channels pass, constants are mapped."""

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0] and maps_zero_to_zero(call.operation)

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [apply_elementwise(call.operation, values[0])]


@register_rule(layers.Activation)
class ActivationRule(Activating):
    """Any activation function; one that mixes channels (softmax, glu) is a barrier."""

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0] and maps_zero_to_zero(call.operation.activation)

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        if not is_elementwise(call.operation.activation):
            raise Barrier("its activation mixes channels")
        return [call.ids_in[0]]

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [apply_elementwise(call.operation.activation, values[0])]


@register_rule(layers.Softmax, *bare("Softmax"))
class SoftmaxRule(Rule):
    """Passes what does not lie along the axis of the softmax."""

    relevance, gives_probabilities = "pass_on", True

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        constant_along(call.ids_in[0], np.atleast_1d(call.operation.axis), "softmax")
        return [call.ids_in[0]]


@register_rule(*bare("LogSoftmax"))
class LogSoftmaxRule(SoftmaxRule):
    gives_probabilities = False


@register_rule(*bare("Glu"))
class GluRule(Rule):
    """Half of the channels, each scaled by the gate that lies as far behind: the two go together."""

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        axis = call.operation.axis
        first, gate = np.split(along(call.ids_in[0], axis, call.input_shapes[0][axis]), 2)
        channels.tie(first, gate)
        return [spread(first, call.ids_in[0].ndim, axis)]

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0]

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        return [np.concatenate([live[0], live[0]], axis=call.operation.axis)]


@register_rule(layers.PReLU)
class PReLURule(Activating):
    """A slope for each position that is not shared; f(0) is 0 whatever the slope."""

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0]

    def sliced_weights(self, call: Call) -> list[Weight]:
        ids = call.ids_in[0]
        alpha = variables_by_name(call.operation)["alpha"]
        sliced = (
            ids.reshape(-1) if ids.shape[axis] > 1 and size > 1 else None for axis, size in enumerate(alpha.shape, 1)
        )
        return [Weight("alpha", tuple(sliced))]

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [np.where(values[0] == 0, 0.0, np.nan)]
