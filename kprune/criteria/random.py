"""The baseline that every claim must beat."""

import numpy as np

from kprune.criteria.base import Criterion, register_criterion
from kprune.utils.checks import check_whole


@register_criterion("random")
class Random(Criterion):
    """Random scores.

    Args:
      seed: of the generator; the same seed gives the same plan.
      ranking: see `Criterion`.

    Raises:
      OptionError: the seed is no whole number of at least 0.
    """

    options = ("seed", "ranking")

    def __init__(self, seed: int = 0, ranking: str = "layer"):
        super().__init__(ranking)
        check_whole("seed", seed, 0)
        self.seed = int(seed)

    def scores(self, graph, keep: np.ndarray) -> np.ndarray:
        return np.random.default_rng(self.seed).random(len(graph.sets))
