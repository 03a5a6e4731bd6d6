"""BatchNormalization, Rescaling and Normalization."""

import keras
import numpy as np

from kprune import _keras
from kprune.channels import Barrier, along, spread
from kprune.rules.base import Call, Rule, Weight, register_rule

layers = keras.layers


@register_rule(layers.BatchNormalization)
class BatchNormalizationRule(Rule):
    """Every vector of it has one entry per channel."""

    def ids(self, call: Call) -> np.ndarray:
        axis = call.operation.axis
        return along(call.ids_in[0], axis, call.input_shapes[0][axis])

    def channels(self, call: Call, channels) -> list[np.ndarray]:
        self.ids(call)
        return [call.ids_in[0]]

    def weights(self, call: Call) -> list[Weight]:
        return [
            Weight(name, (self.ids(call),))
            for name, variable in _keras.variables_by_name(call.operation).items()
            if len(variable.shape) == 1
        ]

    def constants(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        layer, size = call.operation, call.input_shapes[0][call.operation.axis]
        own = {name: _keras.to_numpy(v).astype(float) for name, v in _keras.variables_by_name(layer).items()}
        gamma, beta = own.get("gamma", np.ones(size)), own.get("beta", np.zeros(size))
        value = along(values[0], layer.axis, size)
        scaled = gamma * (value - own["moving_mean"]) / np.sqrt(own["moving_variance"] + layer.epsilon)
        return [spread(np.where(gamma == 0, 0.0, scaled) + beta, values[0].ndim, layer.axis)]


@register_rule(layers.Rescaling)
class RescalingRule(Rule):
    """One scale and offset for all channels pass; a list of them is frozen."""

    def channels(self, call: Call, channels) -> list[np.ndarray]:
        if np.ndim(call.operation.scale) or np.ndim(call.operation.offset):
            raise Barrier("it rescales each channel by a number of its own")
        return [call.ids_in[0]]

    def constants(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [values[0] * call.operation.scale + call.operation.offset]


@register_rule(layers.Normalization)
class NormalizationRule(Rule):
    """Mean and variance per channel, given in the config or learnt from data."""

    def ids(self, call: Call) -> np.ndarray | None:
        """The ids along the one axis that is kept, or None for a single mean."""
        axes = [axis % len(call.input_shapes[0]) for axis in call.operation.axis]
        if len(axes) > 1:
            raise Barrier("it normalizes by a mean per place as well as per channel")
        return along(call.ids_in[0], axes[0], call.input_shapes[0][axes[0]]) if axes else None

    def channels(self, call: Call, channels) -> list[np.ndarray]:
        self.ids(call)
        return [call.ids_in[0]]

    def weights(self, call: Call) -> list[Weight]:
        ids = self.ids(call)
        names = _keras.variables_by_name(call.operation)
        return [Weight(name, (ids,)) for name in ("mean", "variance") if name in names and ids is not None]

    def config(self, call: Call, kept) -> dict:
        config, ids = call.operation.get_config(), self.ids(call)
        for name in ("mean", "variance"):
            if ids is not None and config[name] is not None and np.size(config[name]) > 1:
                config[name] = np.reshape(config[name], -1)[kept.mask[ids]].tolist()
        return config
