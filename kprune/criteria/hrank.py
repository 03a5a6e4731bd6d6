"""The rank of feature maps (Lin 2020, HRank)."""

from dataclasses import dataclass

import keras
import numpy as np

from kprune.compat.variables import to_numpy
from kprune.criteria.base import register_criterion
from kprune.criteria.data_criterion import DataCriterion
from kprune.criteria.statistics.collect import Measure, Seen
from kprune.utils.checks import check_whole


@dataclass(frozen=True)
class Ranks(Measure):
    """The rank of each channel's map, summed over examples."""

    images: int

    def sums(self, seen: Seen) -> dict[str, np.ndarray]:
        maps = to_numpy(keras.ops.cast(seen.maps, "float32"))
        rows, channels = maps.shape[1] if maps.ndim > 2 else 1, maps.shape[-1]
        matrices = np.moveaxis(maps, -1, 1).reshape(len(maps), channels, rows, -1)
        return {"sum": np.linalg.matrix_rank(matrices).sum(axis=0), "count": len(maps)}


@register_criterion("hrank", "lin2020")
class HRank(DataCriterion):
    """Mean rank of the channel's feature map after the activation; low ranks carry little and go first. Needs images.

    A map with more than two dimensions is taken as a matrix of its first against the others; one with a single
    dimension, or of a dense layer, has rank one or zero.

    Source: Lin et al. 2020, "HRank: Filter Pruning using High-Rank Feature Map".

    Args:
      images: how many of the data are looked at, evenly spaced ones of arrays, else the first; the paper takes 500, and
        ranks hardly vary.
      ranking: see `Criterion`.
    """

    options = ("images", "ranking")

    def __init__(self, images: int = 500, ranking: str = "layer"):
        super().__init__(ranking)
        check_whole("images", images, 1, example=500)
        self.images = int(images)
        self.needs = (Ranks(self.images),)

    def channel_scores(self, sums: dict[str, np.ndarray]) -> np.ndarray:
        return sums["sum"] / sums["count"]
