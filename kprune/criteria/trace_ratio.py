"""Trace ratio of between-class to within-class scatter (Hu 2021, CATRO)."""

from dataclasses import dataclass

import numpy as np

from kprune.criteria.base import register_criterion
from kprune.criteria.data_criterion import DataCriterion
from kprune.criteria.statistics.collect import Measure, Seen, mean_over_places
from kprune.utils.checks import is_number
from kprune.utils.errors import OptionError


@dataclass(frozen=True)
class ClassMoments(Measure):
    """Per class, sums and squares of each channel's mean over places."""

    labels = True

    def sums(self, seen: Seen) -> dict[str, np.ndarray]:
        features = mean_over_places(seen.maps)
        return {
            "sum": seen.one_hot.T @ features,
            "squares": (features**2).sum(axis=0),
            "examples": seen.one_hot.sum(axis=0),
        }


@register_criterion("trace_ratio", "catro")
class TraceRatio(DataCriterion):
    """Keeps the channels of a layer whose features part the classes best: the largest `tr(S_between) / tr(S_within)`.

    Features are means over places, so that both traces are sums over channels. The best subset of a size is found by
    turns of `ratio = trace ratio of the subset` and `subset = largest b - ratio * w`; the score is `b - ratio * w`.
    Needs images and class labels. Channels that part the classes worse than the subset does score the lower, the larger
    their features are: so, unlike criteria of size, it removes strong channels first.

    Source: Hu et al. 2021, "CATRO: Channel Pruning via Class-Aware Trace Ratio Optimization", arXiv 2110.10921,
    section 3 (the paper takes whole maps; here they are pooled, for bounded memory).

    Args:
      share: of the channels of a layer, 0..1; the best subset of that size gives the ratio.
      ranking: see `Criterion`.
    """

    options = ("share", "ranking")
    needs = (ClassMoments(),)

    def __init__(self, share: float = 0.5, ranking: str = "layer"):
        super().__init__(ranking)
        if not (is_number(share) and 0 < share <= 1):
            raise OptionError(f"share is {share!r}.", "A share above 0, up to 1.", "Pass 0.5.")
        self.share = float(share)

    def kept_scores(self, found: list[dict[str, np.ndarray]], kept: np.ndarray) -> np.ndarray:
        between, within = (scatter[kept] for scatter in scatters(*found))
        ratio = best_ratio(between, within, max(1, round(self.share * kept.sum())))
        return between - ratio * within


def scatters(sums: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Between-class and within-class scatter of each channel, the diagonals of `S_b` and `S_w`, per example."""
    present = sums["examples"] > 0
    examples, total = sums["examples"][present], sums["examples"].sum()
    means = sums["sum"][present] / examples[:, None]
    whole = sums["sum"].sum(axis=0) / total
    between = (examples[:, None] * (means - whole) ** 2).sum(axis=0) / total
    within = sums["squares"] / total - (examples[:, None] * means**2).sum(axis=0) / total
    return between, np.maximum(within, 0.0)


def best_ratio(between: np.ndarray, within: np.ndarray, size: int) -> float:
    """The largest trace ratio of any subset of so many channels; each turn raises it, so that it ends."""
    ratio = 0.0
    while True:
        best = np.argsort(ratio * within - between, kind="stable")[:size]
        found = between[best].sum() / max(within[best].sum(), np.finfo(float).tiny)
        if not found > ratio * (1 + 1e-12):
            return max(float(found), ratio)
        ratio = float(found)
