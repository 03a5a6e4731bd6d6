"""An L1 penalty on BatchNorm scales while training (Liu 2017, network slimming)."""

import keras

from kprune.compat.training import refresh_train_function
from kprune.graph import trace
from kprune.rules import find_rule
from kprune.utils.checks import check_amount
from kprune.utils.errors import OptionError


class ScalePenalty:
    """A regularizer of one variable: L1, beside the one that it had."""

    def __init__(self, strength: float, then=None):
        self.strength, self.then = strength, then

    def __call__(self, gamma):
        penalty = self.strength * keras.ops.sum(keras.ops.abs(gamma))
        return penalty if self.then is None else penalty + self.then(gamma)


class BatchNormPenalty(keras.callbacks.Callback):
    """Adds `strength * sum(abs(gamma))` to the loss while `fit` runs, so that scales of channels of little use become
    small; prune by criterion "batchnorm_scale" afterwards.

    It takes the scales of those BatchNorms whose channels can be removed. The penalty lies on the variables, not in the
    layers' configs: the saved model is plain, and the penalty ends with this `fit`. (An exception out of `fit`, such as
    Ctrl-C, leaves it on: then call `callback.on_train_end()`.) It counts in the `loss` that `fit` shows, as every
    regularizer does.

    Source: Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming", Eq. 1.

    Args:
      strength: the factor of the penalty. The paper takes 1e-4 (VGG16) and 1e-5 (ResNet-164, DenseNet-40).

    Raises:
      OptionError: the strength is not above zero; when training begins: there is no BatchNorm with a scale to remove.

    Example:
      >>> model.fit(x, y, epochs=160, callbacks=[kprune.BatchNormPenalty(1e-4)])
      >>> small = kprune.prune_model(model, target_flops=0.5, criterion="batchnorm_scale")
    """

    def __init__(self, strength=1e-4):
        super().__init__()
        check_amount("strength", strength)
        self.strength = float(strength)

    def on_train_begin(self, logs=None):
        """Puts the penalty on the variables, before the step is compiled."""
        scales = self.scales()
        if not scales:
            raise OptionError(
                f"'{self.model.name}' has no BatchNorm scale that could be removed.",
                "BatchNormalization(scale=True) on channels that are not frozen.",
                "Leave the callback out, and prune by a criterion such as 'l1'.",
            )
        for variable in scales:
            variable.regularizer = ScalePenalty(self.strength, before(variable))
        refresh_train_function(self.model)

    def on_train_end(self, logs=None):
        """Takes it off again."""
        for variable in self.scales():
            variable.regularizer = before(variable)
        refresh_train_function(self.model)

    def scales(self) -> list:
        """The trainable scales of channels that can be removed."""
        graph = trace(self.model)
        return [
            weight.variable
            for weight in graph.weights
            if weight.name == "gamma"
            and find_rule(weight.layer).normalizes_channels
            and weight.variable.trainable
            and graph.prunable[weight.axes[0]].any()
        ]


def before(variable):
    """The regularizer that a variable had before."""
    return variable.regularizer.then if isinstance(variable.regularizer, ScalePenalty) else variable.regularizer
