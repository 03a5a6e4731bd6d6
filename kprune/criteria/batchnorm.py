"""What BatchNorm says of its channels: network slimming, and the probability of being active."""

from collections.abc import Iterator

import keras
import numpy as np

from kprune.compat.variables import to_numpy, variables_by_name
from kprune.criteria.base import Criterion, register_criterion
from kprune.graph import Graph
from kprune.rules import find_rule
from kprune.utils.errors import ModelError


class BatchNormCriterion(Criterion):
    """Scores channels by the BatchNorms that they pass, wherever these stand: after the conv, or after additions and
    concatenations. Scores compare over layers as they are.

    Channels that pass none are judged by the L1 norm of their filters, relative to the layer, times the mean of the
    other scores.
    """

    def batchnorm_scores(self, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """Scores of the channels of one BatchNorm, from its scale and offset."""
        raise TypeError(f"{type(self).__name__} does not define batchnorm_scores")

    def scores(self, graph: Graph, keep: np.ndarray) -> np.ndarray:
        layers = [
            (sets[keep[sets]], self.batchnorm_scores(gamma, beta)[keep[sets]])
            for sets, gamma, beta in scales_and_offsets(graph)
        ]
        if not layers:
            raise ModelError(
                f"'{graph.model.name}' has no BatchNorm, by which criterion '{self.name}' judges channels.",
                "A network with BatchNormalization layers.",
                "Choose another criterion, such as 'l1' or 'similarity'.",
            )
        return self.pool(graph, layers, keep)

    def tell_unjudged(self):
        """As announced: no warning."""

    def layer_scale(self, scores: np.ndarray) -> float:
        return 1.0


def scales_and_offsets(graph: Graph) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The channel sets, gamma and beta of each BatchNorm; one without a scale has ones, one without an offset zeros."""
    for weight in graph.weights:
        if weight.name == "moving_mean" and find_rule(weight.layer).normalizes_channels:
            own = {name: to_numpy(v).astype(float) for name, v in variables_by_name(weight.layer).items()}
            ones = np.ones(weight.shape)
            yield weight.axes[0], own.get("gamma", ones), own.get("beta", 0 * ones)


@register_criterion("batchnorm_scale", "slimming", "liu2017")
class BatchNormScale(BatchNormCriterion):
    """Size of BatchNorm's scale, `abs(gamma)`. Train with `kprune.BatchNormPenalty` first: it drives scales to zero.

    Source: Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming", section 3, which
    compares scales over the whole network as they are. Channels that pass no BatchNorm are judged by the L1 norm of
    their filters, relative to the layer; where there is no BatchNorm at all that is an error.

    Args:
      ranking: "global" or "layer", see `Criterion`.

    Raises:
      ModelError: when asked for scores: the model has no BatchNorm.

    Example:
      >>> model.fit(x, y, epochs=30, callbacks=[kprune.BatchNormPenalty()])
      >>> small = kprune.prune_model(model, target_flops=0.5, criterion="batchnorm_scale")
    """

    def __init__(self, ranking: str = "global"):
        super().__init__(ranking)

    def batchnorm_scores(self, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
        return np.abs(gamma)


@register_criterion("channel_active_probability", "bwcp")
class ChannelActiveProbability(BatchNormCriterion):
    """The probability that a channel is positive after BatchNorm, `0.5 * (1 + erf(beta / (sqrt(2) * abs(gamma))))`,
    were its normalized input Gaussian. A scale and offset of zero is never active.

    Source: Shao et al. 2021, "BWCP: Probabilistic Learning-to-Prune Channels for ConvNets via Batch Whitening",
    arXiv 2105.06423 (without the whitening). Channels that pass no BatchNorm: see `BatchNormScale`.

    Args:
      ranking: "global" or "layer", see `Criterion`.

    Raises:
      ModelError: when asked for scores: the model has no BatchNorm.

    Example:
      >>> small = kprune.prune_model(model, target_flops=0.5, criterion="channel_active_probability")
    """

    def batchnorm_scores(self, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = beta / (np.sqrt(2.0) * np.abs(gamma))
        ratio = np.where(np.isnan(ratio), -np.inf, ratio).clip(-10, 10)  # where erf is one to the last digit
        error = to_numpy(keras.ops.erf(keras.ops.convert_to_tensor(ratio, "float32")))
        return 0.5 * (1.0 + error.astype(float))
