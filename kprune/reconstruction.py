"""Least-squares repair: after pruning, each reader's weights are fitted to what it gave in the unpruned network.

ThiNet (Luo 2017), channel pruning (He 2017) and "Pruning with Compensation" (2108.13728), over any traced graph.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass

import keras
import numpy as np

from kprune import _keras
from kprune._autodiff import without_gradients
from kprune.criteria.elimination import RIDGE, as_float, images_for, linear_readers, some_places, to_unit
from kprune.execution import Step, walk
from kprune.graph import Graph, trace
from kprune.linear import LinearMap, Places
from kprune.progress import Progress
from kprune.structure import Landing, landings, scale_of
from kprune.surgery import rebuild

SMALLEST_SCALE = 1e-3  # of a BatchNorm; below it nothing that the layer does is heard
logger = logging.getLogger("kprune")


def reconstruct(
    graph: Graph, keep: np.ndarray, data, values: dict | None = None, verbose=None
) -> dict[int, np.ndarray]:
    """Fits the readers of a pruned network, one after the other from the input on, to the unpruned one.

    For each conv or dense layer: `W = argmin ||Y - X W||^2 + ridge ||W - W_0||^2`, `X` what the layer sees in the
    network pruned and repaired so far, `Y` what it gave in the original network, both at output places drawn by lot.
    Where its output is added to a stream, `Y` also makes up for what the stream lacks by then (as He 2017 do for
    residual blocks). Means are fitted apart and go into the bias, or into the BatchNorm that follows.

    Args:
      graph: the traced model; only read.
      keep: the decision, one boolean per channel set.
      data: images, see `kprune.data.batches_of`; labels are not needed. At most 1024 of them are used, and fewer where
        the activations of both networks would take more than 2 GB.
      values: weights that stand for the model's own, by the id of the variable, or None.
      verbose: 0 for no progress bar; None: as `keras.config` has it.

    Returns:
      New weights by the id of the variable, in the original shapes, `values` among them.

    Raises:
      OptionError: the images do not fit the model.
    """
    small = rebuild(graph, keep, values=values)
    pruned = trace(small)
    images = images_for(graph, data)
    work = Repair(graph, pruned, keep)
    ours, theirs = walk(graph, images), walk(pruned, images)
    before, after = next(ours), next(theirs)
    progress = Progress(len(work.readers), "layer", verbose)
    with without_gradients():
        while before is not None:
            output = before.run()
            work.fit(before, after, output)
            result = after.run()
            work.remember(before.call, output, result)
            before, after = proceed(ours, output), proceed(theirs, result)
            progress.show(len(work.fitted))
    progress.finish(len(work.fitted))
    others = {w.path for w in graph.readers if id(w.layer) not in work.readers and not keep[w.axes[w.reads]].all()}
    left = f"; left as they are, for they are no matrix products: {', '.join(sorted(others))}" if others else ""
    logger.info("repaired %d layers from %d images%s", len(work.fitted), len(images[0]), left)
    return {**(values or {}), **work.values()}


def proceed(walking, outputs) -> Step | None:
    """The next step of a walk, or None at its end."""
    try:
        return walking.send(outputs)
    except StopIteration:
        return None


@dataclass(frozen=True)
class Reader:
    """One layer to fit: how its kernel acts, and which of its filters stay."""

    linear: LinearMap
    kept: np.ndarray


class Repair:
    """The fits of one network.

    Args:
      graph: the traced original.
      pruned: the traced smaller model, whose weights are changed here.
      keep: the decision between the two.
    """

    def __init__(self, graph: Graph, pruned: Graph, keep: np.ndarray):
        self.graph, self.pruned, self.keep = graph, pruned, keep
        self.landings = landings(graph)
        self.wanted: dict[int, set[int]] = defaultdict(set)
        for landing in self.landings.values():
            for place in landing.others:
                self.wanted[place].add(landing.total)
        self.streams: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.twin = {call.path: new.operation for call, new in zip(graph.calls, pruned.calls, strict=True)}
        self.rng = np.random.default_rng(0)
        self.fitted: set[int] = set()
        self.readers = {
            owner: Reader(linear, keep[weight.axes[weight.writes]])
            for owner, (weight, linear) in linear_readers(graph).items()
        }

    def remember(self, call, outputs, results):
        """Keeps both networks' tensors that will be added to a layer's output, until they are."""
        both = zip(call.outputs, _keras.flatten(outputs), _keras.flatten(results), strict=True)
        self.streams.update((place, (as_float(x), as_float(y))) for place, x, y in both if place in self.wanted)
        for place in self.wanted.keys() & set(call.inputs):
            self.wanted[place] -= set(call.outputs)
            if not self.wanted[place]:
                self.streams.pop(place, None)

    def fit(self, before: Step, after: Step, output):
        """Fits the layer that is about to run in the pruned network; a shared layer at its first call.

        Args:
          before, after: the call in the original and in the pruned network.
          output: what the layer gave in the original.
        """
        reader, owner = self.readers.get(before.call.owner), before.call.owner
        if reader is None or owner in self.fitted:
            return
        whole, seen = as_float(before.input), as_float(after.input)
        if whole.shape == seen.shape and np.array_equal(whole, seen):
            return
        self.fitted.add(owner)
        layer, linear, output = after.call.operation, reader.linear, as_float(output)
        variables = _keras.variables_by_name(layer)
        kernel = as_float(variables[linear.weight])
        start = linear.matrix(layer, kernel)
        places = some_places(linear, layer, seen, output, self.rng)
        landing = self.landings.get(before.call.outputs[0], Landing())
        target = self.target(reader, before.call.operation, whole, output, places)
        target = target + self.missing(reader, landing, before.call.operation, places, output.shape)
        rows = linear.rows(layer, seen, places)
        target = np.moveaxis(target.reshape(len(target), len(rows), -1), 1, 0)
        into = self.intercept(variables, landing, before.call.operation)
        means = [x.mean(axis=1, keepdims=True) if into else np.float32(0) for x in (rows, target)]
        fitted = least_squares(rows - means[0], target - means[1], start)
        variables[linear.weight].assign(linear.kernel(layer, fitted, kernel.shape))
        if into:
            variable, sign = into
            variable.assign(as_float(variable) + sign * (means[0] @ fitted - means[1]).reshape(-1))

    def target(self, reader: Reader, layer, x: np.ndarray, output: np.ndarray, places: Places) -> np.ndarray:
        """What the layer's kernel made of its input in the original, for the filters that stay: `[rows, filters]`."""
        variables = _keras.variables_by_name(layer)
        if is_linear(layer):
            bias = as_float(variables["bias"]) if "bias" in variables else np.float32(0)
            return (reader.linear.outputs(layer, output, places) - bias)[:, reader.kept]
        matrix = reader.linear.matrix(layer, as_float(variables[reader.linear.weight]))
        made = np.moveaxis(reader.linear.rows(layer, x, places) @ matrix, 0, 1)
        return made.reshape(places.index.size, -1)[:, reader.kept]

    def missing(self, reader: Reader, landing: Landing, layer, places: Places, shape: tuple) -> np.ndarray | float:
        """What the streams that the output is added to lack by now, in the units of the kernel's output; nothing where
        one of the two is stretched over the other.
        """
        pairs = (self.streams[place] for place in landing.others if place in self.streams)
        known = [(whole, now) for whole, now in pairs if whole.shape == shape]
        if not known or not is_linear(layer):
            return 0.0
        scale = np.ones(len(reader.kept)) if landing.norm is None else scale_of(landing.norm.operation)
        scale = scale[reader.kept]
        inverse = np.where(np.abs(scale) > SMALLEST_SCALE, 1.0 / np.where(scale == 0, 1.0, scale), 0.0)
        lack = sum(
            reader.linear.outputs(layer, whole, places)[:, reader.kept] - reader.linear.outputs(layer, now, places)
            for whole, now in known
        )
        return (lack * inverse).astype(np.float32)

    def intercept(self, variables: dict, landing: Landing, layer):
        """The variable of the pruned network that takes a shift of the mean, and the sign with which; or None."""
        if "bias" in variables:
            return variables["bias"], -1.0
        if landing.norm is not None and is_linear(layer):
            return _keras.variables_by_name(self.twin[landing.norm.path])["moving_mean"], 1.0
        return None

    def values(self) -> dict[int, np.ndarray]:
        """The weights of the pruned network in the shapes of the original, by the id of the original's variable."""
        found = {}
        for weight, new in zip(self.graph.weights, self.pruned.weights, strict=True):
            value = weight.value().copy()
            kept = [slice(None) if sets is None else self.keep[sets] for sets in weight.axes]
            value[np.ix_(*(np.arange(n)[k] for n, k in zip(value.shape, kept, strict=True)))] = new.value()
            found[id(weight.variable)] = value
        return found


def is_linear(layer) -> bool:
    """Whether nothing follows the bias inside the layer."""
    return getattr(layer, "activation", None) in (None, keras.activations.linear)


def least_squares(rows: np.ndarray, target: np.ndarray, start: np.ndarray) -> np.ndarray:
    """`argmin_W ||target - rows W||^2 + ridge ||W - start||^2` for each group.

    The ridge is `RIDGE` times the mean power of a feature. With more features than rows the dual form is solved.

    Args:
      rows: float32 `[groups, rows, features]`.
      target: float32 `[groups, rows, filters]`.
      start: float32 `[groups, features, filters]`.

    Returns:
      float32, the shape of `start`.
    """
    count, features = rows.shape[1:]
    rest = target - rows @ start
    unit, rows, power = to_unit(rows)
    rest /= np.float32(unit)
    ridge = RIDGE * count * (power.mean(axis=-1) + np.finfo(np.float32).tiny)
    turned = np.swapaxes(rows, 1, 2)
    gram = (turned @ rows if features <= count else rows @ turned).astype(np.float64)
    gram += ridge[:, None, None] * np.eye(gram.shape[1])
    if features <= count:
        return start + np.linalg.solve(gram, (turned @ rest).astype(np.float64)).astype(np.float32)
    return start + turned @ np.linalg.solve(gram, rest.astype(np.float64)).astype(np.float32)
