"""How often a channel is zero after its activation: APoZ and activation density."""

from dataclasses import dataclass

import keras
import numpy as np

from kprune.criteria.base import register_criterion
from kprune.criteria.data_criterion import DataCriterion
from kprune.criteria.statistics.collect import Measure, Seen, mean_over_places


@dataclass(frozen=True)
class ShareOfZeros(Measure):
    """The share of a channel's places that hold exactly zero, summed over examples."""

    def sums(self, seen: Seen) -> dict[str, np.ndarray]:
        share = mean_over_places(keras.ops.cast(keras.ops.equal(seen.maps, 0), "float32"))
        return {"sum": share.sum(axis=0), "count": len(share)}


@register_criterion("apoz", "hu2016")
class APoZ(DataCriterion):
    """Average percentage of zeros after the activation; channels that are mostly zero go first.

    The score is one minus it, relative to the layer. Needs images. It says nothing of activations that are never
    exactly zero, such as a sigmoid.

    Source: Hu et al. 2016, "Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient Deep
    Architectures", Eq. 1.
    """

    needs = (ShareOfZeros(),)

    def channel_scores(self, sums: dict[str, np.ndarray]) -> np.ndarray:
        return 1.0 - sums["sum"] / sums["count"]


@register_criterion("activation_density")
class ActivationDensity(DataCriterion):
    """Share of activations that are not zero, compared over the whole network as it is.

    A layer that is seldom active so loses more of its channels, as in the paper, where its width follows its density.
    Within one layer the order is that of `APoZ`. Needs images.

    Source: Foldy-Porto et al. 2020, "Activation Density driven Energy-Efficient Pruning in Training",
    arXiv 2002.02949.
    """

    needs = (ShareOfZeros(),)

    def __init__(self, ranking: str = "global"):
        super().__init__(ranking)

    def channel_scores(self, sums: dict[str, np.ndarray]) -> np.ndarray:
        return 1.0 - sums["sum"] / sums["count"]

    def layer_scale(self, scores: np.ndarray) -> float:
        return 1.0
