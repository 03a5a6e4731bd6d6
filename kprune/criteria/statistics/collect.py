"""One pass over the data for all criteria that ask: sums per layer and channel, in memory that does not grow."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import keras
import numpy as np

from kprune.compat.variables import to_numpy
from kprune.criteria.statistics.backward_passes import Walk, class_indices, gives_probabilities
from kprune.criteria.statistics.probe_points import View, observe
from kprune.criteria.statistics.tape import Tape
from kprune.graph import Graph, SlicedWeight
from kprune.graph.batches import Batch, batches_of, check_inputs, examples_in, require_end, require_finite, spread
from kprune.utils.progress import Progress

BATCH_BYTES = 2**30  # of maps that a part of a batch may make

ops = keras.ops


@dataclass(frozen=True)
class Seen:
    """What one batch shows of the channels of one layer, in one of its calls.

    Attributes:
      maps: tensor `[n, *places, C]`, after the activation.
      back: gradient or relevance of the maps, float32 of their shape, or None where the measure asks for none.
      labels: int `[n]`, the class of each example, or None.
      correct: bool `[n]`, whether the network names it, or None.
      classes: how many classes there are, or 0.
    """

    maps: object = field(repr=False)
    back: object = field(repr=False, default=None)
    labels: np.ndarray | None = field(repr=False, default=None)
    correct: np.ndarray | None = field(repr=False, default=None)
    classes: int = 0

    @cached_property
    def one_hot(self) -> np.ndarray:
        """float64 `[n, classes]`."""
        return np.eye(self.classes)[self.labels]


def mean_over_places(tensor) -> np.ndarray:
    """The mean of each channel of each example: float64 `[n, C]` from a tensor `[n, *places, C]`."""
    axes = tuple(range(1, len(tensor.shape) - 1))
    tensor = ops.cast(tensor, "float32")
    return to_numpy(ops.mean(tensor, axis=axes) if axes else tensor).astype(np.float64)


class Measure:
    """What is added up over the data, for each layer. Subclasses are frozen dataclasses: equal ones are taken once.

    Attributes:
      labels: whether the classes of the examples are needed.
      walk: what is carried back to the maps (`Gradients`, `Relevance`), or None.
      images: after how many examples it has seen enough, or None. Of arrays they are evenly spaced where no measure
        that is collected with it takes all.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Largest(Measure):
      ...     def sums(self, seen):
      ...         peaks = keras.ops.convert_to_numpy(keras.ops.max(seen.maps, axis=(1, 2)))
      ...         return {"sum": peaks.sum(axis=0), "count": len(peaks)}
    """

    labels: bool = False
    walk: Walk | None = None
    images: int | None = None

    def sums(self, seen: Seen) -> dict[str, np.ndarray]:
        """Sums over the examples of one batch; those of all batches are added up.

        Returns:
          NumPy arrays by name, their shapes the same in every batch.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Statistics:
    """The sums of each measure, for each layer that was looked at.

    Attributes:
      examples: how many the data had.
    """

    sums: dict = field(repr=False)
    examples: int

    def of(self, measure: Measure, weight: SlicedWeight) -> dict[str, np.ndarray] | None:
        """The sums of a measure for a writer, or None where no filter of it may go."""
        return self.sums[measure].get((weight.path, weight.name))


def collect(graph: Graph, data, measures: Iterable[Measure], verbose=1) -> Statistics:
    """Runs the model over the data once, in inference mode, and adds up what the measures ask for.

    Args:
      graph: the traced model.
      data: whatever `kprune.graph.batches.batches_of` takes.
      measures: what is asked for.
      verbose: 0 for no progress bar; else one appears when it takes more than a few seconds.

    Returns:
      `Statistics`.

    Raises:
      OptionError: the data are empty, not of the model's shape, never end though a measure takes all of them, or have
        no labels where they are needed.
    """
    collector = Collector(graph, tuple(dict.fromkeys(measures)))
    limits = [measure.images for measure in collector.measures]
    if None in limits:
        require_end(data)
    elif limits:
        data = spread(data, max(limits))
    progress = Progress(examples_in(data), "example", verbose)
    for batch in batches_of(data, labels=collector.labels, graph=graph):
        check_inputs(graph, batch.inputs)
        for part in parts_of(batch, examples_at_once(graph)):
            collector.add(part)
            progress.show(collector.examples)
        if collector.satisfied:
            break
    progress.finish(collector.examples)
    return Statistics(collector.sums, collector.examples)


class Collector:
    """Adds up measures over batches."""

    def __init__(self, graph: Graph, measures: tuple[Measure, ...]):
        self.graph, self.measures, self.views = graph, measures, observe(graph)
        self.labels = any(m.labels or (m.walk and m.walk.labels) for m in measures)
        self.classified = any(m.labels for m in measures)
        self.walks = {m.walk: m.walk.on(graph) for m in measures if m.walk}
        self.places = {view.place for views in self.views.values() for view in views}
        self.sums: dict[Measure, dict] = {measure: {} for measure in measures}
        self.examples = 0

    @property
    def satisfied(self) -> bool:
        """Whether no measure wants more examples."""
        return not any(self.wants(measure) for measure in self.measures)

    def wants(self, measure: Measure) -> int:
        """How many more examples a measure takes; -1: all."""
        return -1 if measure.images is None else max(measure.images - self.examples, 0)

    def add(self, batch: Batch):
        """One batch: forward, each walk back, the sums."""
        asking = [measure for measure in self.measures if self.wants(measure)]
        walks = {measure.walk for measure in asking if measure.walk}
        tape = Tape(self.graph, batch.inputs, self.places, record=bool(walks))
        require_finite("data hold", batch.inputs)
        require_finite("The model computes", [to_numpy(ops.cast(y, "float32")) for y in tape.outputs])
        backs = {walk: self.walk(walk, tape, batch) for walk in walks}
        known = self.classes_of(tape.outputs, batch) if self.classified else (None, None, 0)
        for key, views in self.views.items():
            for view in (view for view in views if view.place in tape.values):
                self.add_view(key, view, asking, (tape, backs, known))
        self.examples += len(batch.inputs[0])

    def walk(self, walk: Walk, tape: Tape, batch: Batch) -> dict:
        prepared = self.walks[walk]
        return tape.walk_back(prepared.seeds(tape.outputs, batch.targets), prepared.back, self.places)

    def classes_of(self, outputs: Sequence, batch: Batch) -> tuple[np.ndarray, np.ndarray, int]:
        """Labels, which of them the network names, and the number of classes."""
        labels = class_indices(batch.targets, outputs)
        scores = to_numpy(ops.cast(outputs[0], "float32"))
        even = 0.5 if gives_probabilities(self.graph) else 0.0
        named = scores.argmax(axis=1) if scores.shape[1] > 1 else (scores[:, 0] > even).astype(int)
        return labels, named == labels, max(scores.shape[1], 2)

    def add_view(self, key: tuple[str, str], view: View, asking: Sequence[Measure], known: tuple):
        """The sums of all measures for one map."""
        tape, backs, (labels, correct, classes) = known
        maps = channels_last(tape.values[view.place], view)
        carried = {walk: channels_last(found[view.place], view) for walk, found in backs.items() if view.place in found}
        for measure in asking:
            if measure.walk and measure.walk not in carried:
                continue  # nothing is carried back so far: of this map it knows nothing
            seen = Seen(maps, carried.get(measure.walk), labels, correct, classes)
            own = self.sums[measure].setdefault(key, {})
            for name, value in measure.sums(first(seen, self.wants(measure))).items():
                own[name] = own.get(name, 0.0) + np.asarray(value, dtype=np.float64)


def channels_last(tensor, view: View):
    """The channels of one layer out of a map, along the last axis."""
    tensor = tensor if view.axis == len(tensor.shape) - 1 else ops.moveaxis(tensor, view.axis, -1)
    return tensor if view.index is None else ops.take(tensor, view.index, axis=-1)


def first(seen: Seen, count: int) -> Seen:
    """The first examples of a batch; all of them where `count` is negative or larger."""
    if not 0 <= count < seen.maps.shape[0]:
        return seen
    cut = (None if x is None else x[:count] for x in (seen.maps, seen.back, seen.labels, seen.correct))
    return Seen(*cut, seen.classes)


def examples_at_once(graph: Graph) -> int:
    """How many examples make `BATCH_BYTES` of maps; sizes that are unknown count as 64."""
    sizes = (math.prod(size or 64 for size in shape[1:]) for call in graph.calls for shape in call.output_shapes)
    return max(1, int(BATCH_BYTES / (4 * sum(sizes))))


def parts_of(batch: Batch, size: int) -> Iterator[Batch]:
    """A batch in parts of at most so many examples."""
    for start in range(0, len(batch.inputs[0]), size):
        part = slice(start, start + size)
        yield Batch(tuple(x[part] for x in batch.inputs), tuple(y[part] for y in batch.targets))
