"""Feature relevance scores (Aketi 2020): what a channel contributes to the true class."""

from dataclasses import dataclass

import numpy as np

from kprune.criteria.base import register_criterion
from kprune.criteria.data_criterion import DataCriterion
from kprune.criteria.statistics.backward_passes import Relevance
from kprune.criteria.statistics.collect import Measure, Seen, mean_over_places
from kprune.utils.checks import is_number
from kprune.utils.errors import OptionError


@dataclass(frozen=True)
class RelevanceOfClasses(Measure):
    """Per class, the relevance of each channel (its mean over places), and how many examples the network names."""

    walk: Relevance
    labels = True

    def sums(self, seen: Seen) -> dict[str, np.ndarray]:
        return {
            "relevance": seen.one_hot.T @ mean_over_places(seen.back),
            "examples": seen.one_hot.sum(axis=0),
            "correct": seen.one_hot.T @ seen.correct,
        }


@register_criterion("relevance", "frs", "aketi2020")
class FeatureRelevance(DataCriterion):
    """The relevance of a channel for the true class, by layer-wise relevance propagation; harder classes weigh more.

    Per class the mean of `R` over places and examples, times `sigmoid(largest accuracy / accuracy of the class)`,
    averaged over the classes; its size, divided by the L2 norm of the layer's scores. Needs images and class labels.

    Source: Aketi, Roy, Raghunathan, Roy 2020, "Gradual Channel Pruning while Training using Feature Relevance Scores
    for Convolutional Neural Networks", arXiv 2002.09958, section 3. How relevance passes each operation:
    `kprune.criteria.statistics.relevance_propagation`.

    Args:
      alpha, beta: of the alpha-beta rule; `alpha - beta` is 1, so that relevance is kept.
      ranking: see `Criterion`.

    Raises:
      OptionError: alpha and beta do not go together.

    Example:
      >>> kprune.prune_model(model, target_flops=0.5, criterion="relevance", data=(x_train, y_train))
    """

    options = ("alpha", "beta", "ranking")

    def __init__(self, alpha: float = 2.0, beta: float = 1.0, ranking: str = "global"):
        super().__init__(ranking)
        if not (is_number(alpha) and is_number(beta) and beta >= 0 and abs(alpha - beta - 1.0) < 1e-6):
            raise OptionError(
                f"alpha is {alpha!r} and beta is {beta!r}.", "beta >= 0 and alpha = 1 + beta.", "Pass alpha=2, beta=1."
            )
        self.alpha, self.beta = float(alpha), float(beta)
        self.needs = (RelevanceOfClasses(Relevance(self.alpha, self.beta)),)

    def channel_scores(self, sums: dict[str, np.ndarray]) -> np.ndarray:
        present = sums["examples"] > 0
        examples = sums["examples"][present]
        accuracy = sums["correct"][present] / examples
        weights = harder_weigh_more(accuracy)
        per_class = sums["relevance"][present] / examples[:, None]
        return np.abs((weights[:, None] * per_class).mean(axis=0))

    def layer_scale(self, scores: np.ndarray) -> float:
        return float(np.linalg.norm(scores))


def harder_weigh_more(accuracy: np.ndarray) -> np.ndarray:
    """`sigmoid(max(accuracy) / accuracy)` per class: 0.73 for the easiest, 1 for one that is never named."""
    ratio = accuracy.max(initial=0.0) / np.maximum(accuracy, np.finfo(float).tiny)
    return np.where(accuracy > 0, 1.0 / (1.0 + np.exp(-ratio)), 1.0)
