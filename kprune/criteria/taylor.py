"""First-order Taylor expansion of the loss (Molchanov 2016)."""

from dataclasses import dataclass

import keras
import numpy as np

from kprune.criteria.base import register_criterion
from kprune.criteria.data_criterion import DataCriterion
from kprune.criteria.statistics.backward_passes import Gradients, check_losses
from kprune.criteria.statistics.collect import Measure, Seen, mean_over_places


@dataclass(frozen=True)
class GradientTimesActivation(Measure):
    """Size of the mean over places of `dL/dz * z`, summed over examples."""

    walk: Gradients

    def sums(self, seen: Seen) -> dict[str, np.ndarray]:
        change = mean_over_places(keras.ops.cast(seen.maps, "float32") * keras.ops.cast(seen.back, "float32"))
        return {"sum": np.abs(change).sum(axis=0), "count": len(change)}


@register_criterion("taylor", "molchanov2016")
class Taylor(DataCriterion):
    """How much the loss changes, to first order, when a channel becomes zero.

    `abs(mean over places of dL/dz * z)`, averaged over examples, divided by the L2 norm of the layer's scores; `z` is
    the map after the activation. Needs images and targets.

    Source: Molchanov et al. 2016, "Pruning Convolutional Neural Networks for Resource Efficient Inference", Eq. 8.

    Args:
      loss: a Keras loss, its name, or a function `(y_true, y_pred)`; None: what the model is compiled with, else the
        cross-entropy of class labels.
      ranking: see `Criterion`.
    """

    options = ("loss", "ranking")

    def __init__(self, loss=None, ranking: str = "global"):
        super().__init__(ranking)
        check_losses(loss)
        self.loss = loss
        self.needs = (GradientTimesActivation(Gradients(loss)),)

    def channel_scores(self, sums: dict[str, np.ndarray]) -> np.ndarray:
        return sums["sum"] / sums["count"]

    def layer_scale(self, scores: np.ndarray) -> float:
        return float(np.linalg.norm(scores))

    def get_config(self) -> dict:
        loss = self.loss if self.loss is None or isinstance(self.loss, str) else getattr(self.loss, "name", None)
        return {**super().get_config(), "loss": loss or getattr(self.loss, "__name__", None)}
