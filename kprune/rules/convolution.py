"""Convolutions of all kinds: plain, grouped, depthwise, separable and transposed, in one to three dimensions."""

import keras
import numpy as np

from kprune.compat.variables import read, to_numpy, variables_by_name
from kprune.rules.activations import apply_elementwise, is_elementwise, maps_zero_to_zero
from kprune.rules.base import Call, Rule, Weight, channel_axis, map_size, positions, register_rule, require_plain_kernel
from kprune.rules.channels import along, spread
from kprune.rules.linear_maps import ConvolutionMap, LinearMap, SeparableMap, TransposedMap
from kprune.rules.liveness import fold
from kprune.rules.operators import OperatorConfig

layers = keras.layers


class Writer(Rule):
    """Shared by the layers that make channels: kernel, bias, activation."""

    relevance = "contributions"

    def axis(self, call: Call) -> int:
        return channel_axis(call.operation, len(call.input_shapes[0]))

    def inputs(self, call: Call) -> np.ndarray:
        axis = self.axis(call)
        return along(call.ids_in[0], axis, call.input_shapes[0][axis])

    def outputs(self, call: Call) -> np.ndarray:
        axis = self.axis(call)
        return along(call.ids_out[0], axis, call.output_shapes[0][axis])

    def emit(self, call: Call, channels, ids: np.ndarray) -> list[np.ndarray]:
        """The output's ids, frozen if the layer's own activation mixes channels."""
        activation = getattr(call.operation, "activation", None)
        if activation is not None and not is_elementwise(activation):
            channels.freeze(ids, f"the activation of '{call.path}' mixes channels")
        return [spread(ids, len(call.output_shapes[0]), self.axis(call))]

    def zero_if_removed(self, call: Call) -> bool:
        activation = getattr(call.operation, "activation", None)
        return activation is None or (is_elementwise(activation) and maps_zero_to_zero(activation))

    def bias(self, call: Call) -> list[Weight]:
        return [Weight("bias", (self.outputs(call),))] if getattr(call.operation, "use_bias", False) else []

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        """A filter whose every live input slice is zero holds the activation of its bias."""
        axis = self.axis(call)
        silent = along(values[0] == 0, axis, call.input_shapes[0][axis])
        variables = {name: to_numpy(v) for name, v in variables_by_name(call.operation).items()}
        varies = self.connections(call, variables)[~silent].any(axis=0)
        value = variables.get("bias", np.zeros(len(varies))).astype(float)
        activation = getattr(call.operation, "activation", None)
        if activation is not None:
            value = apply_elementwise(activation, value) if is_elementwise(activation) else np.full_like(value, np.nan)
        return [spread(np.where(varies, np.nan, value), len(call.output_shapes[0]), axis)]

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        """The input channels from which a weight that is not zero leads to an output that matters."""
        variables = {name: read(v) for name, v in variables_by_name(call.operation).items()}
        axis, size = self.axis(call), call.input_shapes[0][self.axis(call)]
        used = self.connections(call, variables)[:, along(live[0], axis, call.output_shapes[0][axis])].any(axis=1)
        used = spread(used, len(call.input_shapes[0]), axis) & ~fold(
            values[0] == 0, (*(size if n == axis else 1 for n in range(values[0].ndim)),), np.all
        )
        return [fold(used, call.ids_in[0].shape)]

    def connections(self, call: Call, variables: dict) -> np.ndarray:
        """Which output channels depend on which input channels, by the weights that are not zero: bool `[in, out]`."""
        axis = self.axis(call)
        return np.ones((call.input_shapes[0][axis], call.output_shapes[0][axis]), dtype=bool)


@register_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
class Convolution(Writer):
    """Plain conv: reads all input channels, writes fresh ones. Grouped: the same position of every group goes together.

    With one input channel a group it is a depthwise conv, and so are its channels.
    """

    def depthwise(self, call: Call) -> bool:
        return call.operation.groups > 1 and call.operation.groups == call.input_shapes[0][self.axis(call)]

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        require_plain_kernel(call.operation)
        conv, ids_in = call.operation, self.inputs(call)
        if self.depthwise(call):
            return self.emit(call, channels, np.repeat(ids_in, conv.filters // conv.groups))
        ids = channels.fresh(conv.filters, call.owner)
        if conv.groups > 1:
            for group in (ids_in.reshape(conv.groups, -1), ids.reshape(conv.groups, -1)):
                channels.tie(group, group[:1])
        return self.emit(call, channels, ids)

    def sliced_weights(self, call: Call) -> list[Weight]:
        conv, ids_in, ids_out = call.operation, self.inputs(call), self.outputs(call)
        spatial = (None,) * len(conv.kernel_size)
        uses = positions(call.output_shapes[0], self.axis(call))
        if self.depthwise(call):
            return [Weight("kernel", (*spatial, None, ids_out), uses), *self.bias(call)]
        ids_in = ids_in[: len(ids_in) // conv.groups]
        rank = len(spatial)
        return [Weight("kernel", (*spatial, ids_in, ids_out), uses, reads=rank, writes=rank + 1), *self.bias(call)]

    def pruned_config(self, call: Call, kept) -> dict:
        config = {**call.operation.get_config(), "filters": kept.count(self.outputs(call))}
        return {**config, "groups": kept.count(self.inputs(call))} if self.depthwise(call) else config

    def linear_maps(self, call: Call) -> list[LinearMap]:
        return [ConvolutionMap()]

    def operator(self, call: Call) -> OperatorConfig | None:
        layer, size = call.operation, map_size(call)
        alone = self.depthwise(call) and layer.filters == layer.groups
        if not size or not (layer.groups == 1 or alone):
            return None
        return windowed("depthwise" if alone else "conv", layer, size)

    def connections(self, call: Call, variables: dict) -> np.ndarray:
        kernel, groups = variables["kernel"], call.operation.groups
        used = np.any(kernel != 0, axis=tuple(range(kernel.ndim - 2)))
        if groups == 1:
            return used
        used = used.reshape(kernel.shape[-2], groups, 1, -1)
        blocks = np.where(np.eye(groups, dtype=bool)[:, None, :, None], np.moveaxis(used, 1, 0), False)
        return blocks.reshape(groups * kernel.shape[-2], -1)


@register_rule(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
class TransposedConvolution(Writer):
    """Transposed conv: the kernel's axes are (..., out, in), and each input place meets the whole kernel."""

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        self.inputs(call)
        return self.emit(call, channels, channels.fresh(call.operation.filters, call.owner))

    def sliced_weights(self, call: Call) -> list[Weight]:
        rank = len(call.operation.kernel_size)
        axes = ((None,) * rank) + (self.outputs(call), self.inputs(call))
        uses = positions(call.input_shapes[0], self.axis(call))
        return [Weight("kernel", axes, uses, reads=rank + 1, writes=rank), *self.bias(call)]

    def pruned_config(self, call: Call, kept) -> dict:
        return {**call.operation.get_config(), "filters": kept.count(self.outputs(call))}

    def linear_maps(self, call: Call) -> list[LinearMap]:
        """None where the size of the output is given: then its places are not those that strides and padding say."""
        return [] if getattr(call.operation, "output_padding", None) is not None else [TransposedMap()]

    def connections(self, call: Call, variables: dict) -> np.ndarray:
        kernel = variables["kernel"]
        return np.any(kernel != 0, axis=tuple(range(kernel.ndim - 2))).T


@register_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
class DepthwiseConvolution(Writer):
    """Each input channel makes `depth_multiplier` output channels, which stay and go with it."""

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        return self.emit(call, channels, np.repeat(self.inputs(call), call.operation.depth_multiplier))

    def sliced_weights(self, call: Call) -> list[Weight]:
        axes = ((None,) * len(call.operation.kernel_size)) + (self.inputs(call), None)
        return [Weight("kernel", axes, positions(call.output_shapes[0], self.axis(call))), *self.bias(call)]

    def operator(self, call: Call) -> OperatorConfig | None:
        layer, size = call.operation, map_size(call)
        return windowed("depthwise", layer, size) if size and layer.depth_multiplier == 1 else None

    def connections(self, call: Call, variables: dict) -> np.ndarray:
        kernel = variables["kernel"]
        return each_to_its_own(np.any(kernel != 0, axis=tuple(range(kernel.ndim - 2))))


@register_rule(layers.SeparableConv1D, layers.SeparableConv2D)
class SeparableConvolution(Writer):
    """A depthwise conv and a pointwise one in a single layer; the pointwise kernel reads and writes."""

    def middle(self, call: Call) -> np.ndarray:
        return np.repeat(self.inputs(call), call.operation.depth_multiplier)

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        self.inputs(call)
        return self.emit(call, channels, channels.fresh(call.operation.filters, call.owner))

    def sliced_weights(self, call: Call) -> list[Weight]:
        spatial = (None,) * len(call.operation.kernel_size)
        uses = positions(call.output_shapes[0], self.axis(call))
        rank = len(spatial)
        pointwise = (*spatial, self.middle(call), self.outputs(call))
        return [
            Weight("depthwise_kernel", (*spatial, self.inputs(call), None), uses),
            Weight("pointwise_kernel", pointwise, uses, reads=rank, writes=rank + 1),
            *self.bias(call),
        ]

    def pruned_config(self, call: Call, kept) -> dict:
        return {**call.operation.get_config(), "filters": kept.count(self.outputs(call))}

    def linear_maps(self, call: Call) -> list[LinearMap]:
        return [SeparableMap()]

    def connections(self, call: Call, variables: dict) -> np.ndarray:
        depthwise, pointwise = variables["depthwise_kernel"], variables["pointwise_kernel"]
        spatial = tuple(range(depthwise.ndim - 2))
        used = np.any(depthwise != 0, axis=spatial)
        ends = np.any(pointwise != 0, axis=spatial).reshape(*used.shape, -1)
        return (used[:, :, None] & ends).any(axis=1)


def windowed(operation: str, layer, size: tuple[int, ...]) -> OperatorConfig:
    """A conv over a map of that height and width."""
    return OperatorConfig(operation, size, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)


def each_to_its_own(used: np.ndarray) -> np.ndarray:
    """bool `[in, in * multiplier]` from `[in, multiplier]`: each input channel leads to outputs of its own."""
    count, multiplier = used.shape
    return (np.eye(count, dtype=bool)[:, :, None] & used).reshape(count, count * multiplier)
