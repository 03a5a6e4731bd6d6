"""Normalizations: by statistics of the data, of each example, of groups of channels; and scales per channel."""

import keras
import numpy as np

from kprune.compat.functional import application_layer
from kprune.compat.variables import to_numpy, variables_by_name
from kprune.rules.base import Call, Rule, Weight, register_rule
from kprune.rules.channels import Barrier, along, spread, varying_axes
from kprune.rules.merge import product

layers = keras.layers


@register_rule(layers.BatchNormalization)
class BatchNormalizationRule(Rule):
    """Every vector of it has one entry per channel."""

    relevance, transparent_to_probes, normalizes_channels = "pass_on", True, True

    def channel_scale(self, layer) -> np.ndarray:
        """`gamma / sqrt(var + eps)`."""
        own = {name: to_numpy(v).astype(float) for name, v in variables_by_name(layer).items()}
        deviation = np.sqrt(own["moving_variance"] + layer.epsilon)
        return own.get("gamma", np.ones_like(deviation)) / deviation

    def ids(self, call: Call) -> np.ndarray:
        axis = call.operation.axis
        return along(call.ids_in[0], axis, call.input_shapes[0][axis])

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        self.ids(call)
        return [call.ids_in[0]]

    def zero_if_removed(self, call: Call) -> bool:
        return call.operation.scale  # then a removed channel has gamma and beta zero

    def sliced_weights(self, call: Call) -> list[Weight]:
        return [
            Weight(name, (self.ids(call),))
            for name, variable in variables_by_name(call.operation).items()
            if len(variable.shape) == 1
        ]

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        layer, size = call.operation, call.input_shapes[0][call.operation.axis]
        own = {name: to_numpy(v).astype(float) for name, v in variables_by_name(layer).items()}
        gamma, beta = own.get("gamma", np.ones(size)), own.get("beta", np.zeros(size))
        value = along(values[0], layer.axis, size)
        scaled = gamma * (value - own["moving_mean"]) / np.sqrt(own["moving_variance"] + layer.epsilon)
        return [spread(np.where(gamma == 0, 0.0, scaled) + beta, values[0].ndim, layer.axis)]


@register_rule(layers.Rescaling)
class RescalingRule(Rule):
    """One scale and offset for all channels pass; a list of them is frozen."""

    relevance, transparent_to_probes = "pass_on", True

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        if np.ndim(call.operation.scale) or np.ndim(call.operation.offset):
            raise Barrier("it rescales each channel by a number of its own")
        return [call.ids_in[0]]

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [values[0] * call.operation.scale + call.operation.offset]


@register_rule(layers.Normalization)
class NormalizationRule(Rule):
    """Mean and variance per channel, given in the config or learnt from data."""

    relevance = "pass_on"

    def ids(self, call: Call) -> np.ndarray | None:
        """The ids along the one axis that is kept, or None for a single mean."""
        axes = [axis % len(call.input_shapes[0]) for axis in call.operation.axis]
        if len(axes) > 1:
            raise Barrier("it normalizes by a mean per place as well as per channel")
        return along(call.ids_in[0], axes[0], call.input_shapes[0][axes[0]]) if axes else None

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        self.ids(call)
        return [call.ids_in[0]]

    def sliced_weights(self, call: Call) -> list[Weight]:
        ids = self.ids(call)
        names = variables_by_name(call.operation)
        return [Weight(name, (ids,)) for name in ("mean", "variance") if name in names and ids is not None]

    def pruned_config(self, call: Call, kept) -> dict:
        config, ids = call.operation.get_config(), self.ids(call)
        for name in ("mean", "variance"):
            if ids is not None and config[name] is not None and np.size(config[name]) > 1:
                config[name] = np.reshape(config[name], -1)[kept.mask[ids]].tolist()
        return config


@register_rule(layers.LayerNormalization, *([layers.RMSNormalization] if hasattr(layers, "RMSNormalization") else []))
class LayerNormalizationRule(Rule):
    """Over places it lets channels pass. Over channels nothing can go: each output depends on how many there are."""

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        if any(call.ids_in[0].shape[axis] > 1 for axis in np.atleast_1d(call.operation.axis)):
            raise Barrier("it normalizes by statistics of all channels")
        return [call.ids_in[0]]


@register_rule(layers.UnitNormalization)
class UnitNormalizationRule(Rule):
    """Divides by the norm, to which channels that are zero once removed give nothing."""

    def sums_over_channels(self, call: Call) -> bool:
        return any(call.ids_in[0].shape[axis] > 1 for axis in np.atleast_1d(call.operation.axis))

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        if self.sums_over_channels(call) and not call.resting[0]:
            raise Barrier("it divides by a norm to which removed channels would add")
        return [call.ids_in[0]]

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0]


@register_rule(layers.GroupNormalization)
class GroupNormalizationRule(Rule):
    """The channels of a group share their statistics, so that a group stays or goes as a whole."""

    def ids(self, call: Call) -> np.ndarray:
        axis = call.operation.axis
        return along(call.ids_in[0], axis, call.input_shapes[0][axis])

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        if varying_axes(call.ids_in[0]):
            ids = self.ids(call).reshape(call.operation.groups, -1)
            channels.tie(ids, ids[:, :1])
        return [call.ids_in[0]]

    def zero_if_removed(self, call: Call) -> bool:
        return call.operation.scale or call.resting[0]

    def sliced_weights(self, call: Call) -> list[Weight]:
        ids = self.ids(call)
        return [Weight(name, (ids,)) for name in variables_by_name(call.operation)]

    def pruned_config(self, call: Call, kept) -> dict:
        config = call.operation.get_config()
        if varying_axes(call.ids_in[0]):
            config["groups"] = kept.count(self.ids(call).reshape(call.operation.groups, -1)[:, 0])
        return config

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        """All of a group, where one of it matters."""
        if not varying_axes(call.ids_in[0]):
            return live
        groups = live[0].reshape(call.operation.groups, -1)
        return [np.broadcast_to(groups.any(axis=1, keepdims=True), groups.shape).reshape(live[0].shape)]


@register_rule(*application_layer("convnext", "LayerScale"))
class LayerScaleRule(Rule):
    """A learnt factor per channel."""

    def ids(self, call: Call) -> np.ndarray:
        return along(call.ids_in[0], -1, call.input_shapes[0][-1])

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        self.ids(call)
        return [call.ids_in[0]]

    def zero_if_removed(self, call: Call) -> bool:
        return True

    def sliced_weights(self, call: Call) -> list[Weight]:
        return [Weight(name, (self.ids(call),)) for name in variables_by_name(call.operation)]

    def pruned_config(self, call: Call, kept) -> dict:
        return {**call.operation.get_config(), "projection_dim": kept.count(self.ids(call))}

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        (gamma,) = variables_by_name(call.operation).values()
        return [product(values[0], to_numpy(gamma))]
