"""What a criterion is, and the filters that it looks at."""

import logging
from collections.abc import Iterable

import numpy as np

from kprune.graph import Graph, SlicedWeight
from kprune.utils.errors import ModelError, OptionError
from kprune.utils.registry import Registry

logger = logging.getLogger("kprune")
criteria = Registry("criterion")
register_criterion = criteria.register


class Criterion:
    """Scores filters: one number each, low = remove first.

    A subclass overrides `filter_scores` (a score from the kernel alone), or `scores` (anything else), and keeps its
    arguments in attributes of the same names, so that `get_config` finds them. One that asks for data is a
    `DataCriterion`.

    Args:
      ranking: "layer" compares filters within their layers, so that every layer loses the same share; "global" compares
        scores, divided by the mean of their layer, over the whole network.

    Example:
      >>> @kprune.register_criterion("largest")
      ... class Largest(kprune.Criterion):
      ...     def filter_scores(self, filters):
      ...         return -np.abs(filters).max(axis=1)
    """

    name = "criterion"
    options: tuple[str, ...] = ("ranking",)
    over_gain = False  # whether scores count over what the removal saves of the budget
    selects_by = "score"  # how channels are chosen by it, a name of `kprune.selection.register_selection`
    images_only = False  # whether it looks at the images of a repair and at no more
    compensate = False  # whether what goes hands its outgoing weights on to what stays
    unjudged: tuple[str, ...] = ()  # the layers of which the last scores said nothing, see `pool`

    def __init__(self, ranking: str = "layer"):
        if ranking not in ("layer", "global"):
            raise OptionError(f"ranking is {ranking!r}.", "'layer' or 'global'.", "Choose one of them.")
        self.ranking = ranking

    def filter_scores(self, filters: np.ndarray) -> np.ndarray:
        """Scores of one layer.

        Args:
          filters: float64 `[N, weights of one filter]`, the filters still kept.

        Returns:
          float64 `[N]`, low = remove first.
        """
        raise TypeError(f"{type(self).__name__} defines neither filter_scores nor scores")

    def scores(self, graph: Graph, keep: np.ndarray) -> np.ndarray:
        """One score per channel set, from those of the filters of all its writers (see `pool`)."""
        writers = ((weight, weight.axes[weight.writes]) for weight in graph.writers)
        layers = ((sets[keep[sets]], self.filter_scores(filter_matrix(w, keep))) for w, sets in writers)
        return self.pool(graph, layers, keep)

    def check(self, graph: Graph, data):
        """Refuses a model, or data, that it cannot score; a look that is short beside a training."""
        self.scores(graph, np.ones(len(graph.sets), dtype=bool))

    def pool(self, graph: Graph, layers: Iterable[tuple[np.ndarray, np.ndarray]], keep=None) -> np.ndarray:
        """One score per channel set: the mean over its layers of the score there, divided by `layer_scale`.

        Sets that no layer scores are judged by the L1 norm of their filters, relative to the layer, times the mean of
        the other scores: not to know is no reason to remove them first. `unjudged` names the layers, and so does a
        warning.

        Args:
          graph: the traced model.
          layers: for each layer the channel sets that it scores, and their scores.
          keep: bool, one per channel set; of those that have gone nothing need be known. None: all are kept.
        """
        total, entries = np.zeros(len(graph.sets)), np.zeros(len(graph.sets))
        for sets, own in layers:
            np.add.at(total, sets, own / max(self.layer_scale(own), np.finfo(float).tiny))
            np.add.at(entries, sets, 1)
        unknown = graph.prunable & (entries == 0) & (True if keep is None else keep)
        usual = float(total.sum() / max(entries.sum(), 1)) or 1.0
        silent = [weight for weight in graph.writers if unknown[weight.axes[weight.writes]].any()]
        for weight in silent:
            own = unknown[weight.axes[weight.writes]]
            size = np.abs(np.moveaxis(weight.value(), weight.writes, 0)).reshape(len(own), -1).sum(axis=1)[own]
            np.add.at(total, weight.axes[weight.writes][own], usual * size / max(size.mean(), np.finfo(float).tiny))
            np.add.at(entries, weight.axes[weight.writes][own], 1)
        self.unjudged = tuple(weight.path for weight in silent)
        self.tell_unjudged()
        return total / np.maximum(entries, 1)

    def tell_unjudged(self):
        """Warns of the layers of which the scores said nothing."""
        if self.unjudged:
            names = ", ".join(self.unjudged)
            logger.warning("criterion '%s' says nothing of %s: judged by the L1 norm of filters", self.name, names)

    def layer_scale(self, scores: np.ndarray) -> float:
        """What the scores of a layer are divided by, so that layers compare: their mean size."""
        return float(np.abs(scores).mean()) if len(scores) else 1.0

    def get_config(self) -> dict:
        """Its arguments, as JSON can hold them."""
        return {name: getattr(self, name) for name in self.options}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_config().items())})"


def get_criterion(criterion) -> Criterion:
    """A criterion from its name or from an object.

    Raises:
      OptionError: it is neither.
    """
    if isinstance(criterion, str):
        return criteria.get(criterion)()
    if isinstance(criterion, Criterion):
        return criterion
    raise OptionError(f"criterion is {criterion!r}.", "A name or a Criterion object.", f"Names: {criteria.names()}.")


def filter_matrix(weight: SlicedWeight, keep: np.ndarray) -> np.ndarray:
    """The kept filters of one kernel as rows, over the input channels still kept.

    Args:
      weight: the kernel of a writer.
      keep: one boolean per channel set.

    Returns:
      float64 `[kept filters, weights]`.

    Raises:
      ModelError: the kernel holds NaN or infinity.
    """
    return slice_matrix(weight, weight.writes, keep)


def require_finite_weight(weight: SlicedWeight, value: np.ndarray):
    """Checks that a weight is made of numbers.

    Raises:
      ModelError: some are NaN or infinite.
    """
    if not np.isfinite(value).all():
        raise ModelError(
            f"The {weight.name} of '{weight.path}' holds NaN or infinity.",
            "Finite weights.",
            "Load weights from before the training diverged.",
        )


def slice_matrix(
    weight: SlicedWeight, axis: int, keep: np.ndarray, others: np.ndarray | None = None, dtype=np.float64
) -> np.ndarray:
    """The kept slices of one kernel along any of its axes, as rows.

    Args:
      weight: the kernel.
      axis: the axis whose slices become rows.
      keep: one boolean per channel set, for that axis.
      others: the same for the other axes; None: `keep`.
      dtype: of the result.
    """
    value = weight.value()
    require_finite_weight(weight, value)
    for index, sets in enumerate(weight.axes):
        if sets is not None:
            mask = (keep if index == axis or others is None else others)[sets]
            value = value if mask.all() else np.compress(mask, value, axis=index)
    rows = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
    return rows.astype(dtype, copy=False)
