"""Criteria that look at data: what they ask for, and how they get it."""

import numpy as np

from kprune.criteria.base import Criterion
from kprune.criteria.statistics.collect import Measure, Statistics, collect
from kprune.graph import Graph
from kprune.graph.batches import first_of, require_end, require_rereadable
from kprune.utils.errors import OptionError


class DataCriterion(Criterion):
    """Scores channels by what data make of them.

    A subclass names in `needs` the measures that it asks for, and overrides `channel_scores`, `kept_scores` where those
    of a layer depend on each other, or `scores` for anything beyond one layer. Where a channel set has several writers,
    or is seen in several places, scores are pooled as those of weights are (see `Criterion.pool`).

    Attributes:
      needs: measures; those of all criteria are collected in one pass over the data.
    """

    needs: tuple[Measure, ...] = ()

    def channel_scores(self, *sums: dict[str, np.ndarray]) -> np.ndarray:
        """Scores of one layer.

        Args:
          *sums: what each measure of `needs` has added up, by name.

        Returns:
          float64 `[N]`, one per filter, low = remove first.
        """
        raise TypeError(f"{type(self).__name__} defines neither channel_scores nor scores")

    def scores(self, graph: Graph, keep: np.ndarray, statistics: Statistics | None = None) -> np.ndarray:
        """One score per channel set.

        A layer to which nothing is carried back, such as one that only a comparison listens to, is not judged (see
        `Criterion.pool`).

        Args:
          graph: the traced model.
          keep: bool, one per channel set.
          statistics: what `collect` found for `needs`.

        Raises:
          OptionError: there are no statistics.
        """
        if statistics is None:
            raise missing_data(self)
        layers = []
        for weight in graph.writers:
            found = [statistics.of(measure, weight) for measure in self.needs]
            if all(found):
                kept = keep[weight.axes[weight.writes]]
                own = self.kept_scores(found, kept)
                if own.any() or not any(measure.walk for measure in self.needs):
                    layers.append((weight.axes[weight.writes][kept], own))
        return self.pool(graph, layers, keep)

    def kept_scores(self, found: list[dict[str, np.ndarray]], kept: np.ndarray) -> np.ndarray:
        """Scores of those channels of a layer that are kept; to be overridden where they depend on each other."""
        return self.channel_scores(*found)[kept]

    def check(self, graph: Graph, data):
        """Refuses data that it cannot use, from the first batch: before hours of training, after which it is asked.

        Raises:
          OptionError: they are not of the model's shape, have no labels, never end, or something else is wrong.
        """
        if any(measure.images is None for measure in self.needs):
            require_end(data)
        self.scores_from(graph, np.ones(len(graph.sets), dtype=bool), first_of(data), 0)

    def scores_from(self, graph: Graph, keep: np.ndarray, data, verbose) -> np.ndarray:
        """The same from data themselves (see `kprune.graph.batches.batches_of`)."""
        return self.scores(graph, keep, collect(graph, data, self.needs, verbose))


class Informed(Criterion):
    """A criterion that collects what it needs when its scores are asked for.

    Args:
      criterion: a `DataCriterion`.
      data: see `kprune.graph.batches.batches_of`.
      verbose: see `collect`.
    """

    def __init__(self, criterion: DataCriterion, data, verbose):
        super().__init__(criterion.ranking)
        self.name, self.over_gain, self.selects_by = criterion.name, criterion.over_gain, criterion.selects_by
        self.criterion, self.data, self.verbose = criterion, data, verbose

    @property
    def unjudged(self) -> tuple[str, ...]:
        return self.criterion.unjudged

    def scores(self, graph: Graph, keep: np.ndarray) -> np.ndarray:
        return self.criterion.scores_from(graph, keep, self.data, self.verbose)

    def get_config(self) -> dict:
        return self.criterion.get_config()


def missing_data(criterion: Criterion) -> OptionError:
    """The error of a criterion that has no data."""
    return OptionError(
        f"criterion '{criterion.name}' looks at data, and data is None.",
        "Images, or (images, labels) where it needs classes.",
        "Pass data=(x_train, y_train), or a criterion such as 'l1' that looks at weights alone.",
    )


def inform(criterion: Criterion, data, verbose=1, again: bool = False) -> Criterion:
    """A criterion with its data; one that looks at weights alone as it is.

    Args:
      criterion: the criterion.
      data: see `kprune.graph.batches.batches_of`.
      verbose: see `collect`.
      again: whether the data will be read more than once.

    Raises:
      OptionError: it needs data and there are none, or they can be read only once and that is not enough.
    """
    if not isinstance(criterion, DataCriterion):
        return criterion
    if data is None:
        raise missing_data(criterion)
    if again:
        require_rereadable(data)
    return Informed(criterion, data, verbose)
