"""Least-squares repair: after pruning, each reader's weights are fitted to what it gave in the unpruned network.

ThiNet (Luo 2017), channel pruning (He 2017) and "Pruning with Compensation" (2108.13728), over any traced graph.
"""

import logging
from collections import defaultdict

import numpy as np

from kprune.compat.autodiff import without_gradients
from kprune.compat.functional import flatten
from kprune.compat.variables import to_numpy, variables_by_name
from kprune.criteria.statistics.linear_layers import Reader, as_float, linear_readers, places_for
from kprune.graph import Graph, calls_by_operation, trace
from kprune.graph.epilogues import Landing, landings, scale_of
from kprune.graph.interpreter import Step, run, walk
from kprune.rules.linear_maps import Places
from kprune.surgery.refit import Intercept, Refit
from kprune.utils.progress import Progress

SMALLEST_SCALE = 1e-3  # of a BatchNorm; below it nothing that the layer does is heard
HELD_BACK = 8  # of so many images one is not fitted to, but judges the fit
logger = logging.getLogger("kprune")


def repair(small, graph: Graph, keep: np.ndarray, images: tuple, verbose=None) -> "Repair":
    """Fits the readers of a pruned network, in place, one after the other from the input on, to the unpruned one.

    For each kernel that is a matrix product: `W = argmin ||Y - X W||^2 + ridge ||W - W_0||^2`, `X` what the layer sees
    in the network pruned and repaired so far, `Y` what it gave in the original network, both at output places drawn by
    lot. Where its output is added to a stream, `Y` also makes up for what the stream lacks by then (as He 2017 do for
    residual blocks). Means are fitted apart and go into the bias, or into the BatchNorm that follows.

    A layer that is called several times is fitted to all its calls together. Its later calls see, in a first sweep,
    what stays of the original network's tensors; in a second one what they saw in the first.

    Every eighth image is held back; those choose the ridge where rows are few. A fit that raises the error of its layer
    on them is left out, and all fits are where they raise the error of the outputs; a warning says so, and names the
    layers that no fit serves.

    Args:
      small: the pruned network, as `rebuild(graph, keep)` makes it; its weights are changed.
      graph: the traced original; only read.
      keep: the decision between the two, one boolean per channel set.
      images: one array per input of the original, as `images_for` takes them from data.
      verbose: 0 for no progress bar; None: as `keras.config` has it.

    Returns:
      What was done; its `values` are the weights in the shapes of the original.
    """
    pruned, held = trace(small), held_back(len(images[0]))
    work = Repair(graph, pruned, keep, held)
    with without_gradients():
        before = [as_float(y) for y in run(pruned, [x[work.judges] for x in images])]
        work.look_ahead(images)
        for sweep in range(2 if work.later else 1):
            wanted, after = work.sweep(images, Progress(len(work.readers), "layer", verbose if sweep == 0 else 0))
    errors = [output_error(wanted, outputs) for outputs in (before, after)]
    work.tell(len(images[0]), errors)
    if not errors[1] <= errors[0]:
        work.undo()
    return work


def held_back(count: int) -> np.ndarray:
    """bool, one per image: those that judge and are not fitted to; the last of a few, none of a single one."""
    index = np.arange(count)
    return index % HELD_BACK == HELD_BACK - 1 if count >= HELD_BACK else (index == count - 1) & (count > 1)


def output_error(wanted: list, outputs: list) -> float:
    """The squared error of a network's outputs over their variance, added up over the outputs; 0 of no examples."""
    total = 0.0
    for y, found in zip(wanted, outputs, strict=True):
        y, found = (np.asarray(x, dtype=np.float64) for x in (y, found))
        if y.size:
            total += float(np.square(found - y).mean() / max(y.var(), np.finfo(np.float32).tiny))
    return total


def proceed(walking, outputs) -> Step | None:
    """The next step of a walk, or None at its end."""
    try:
        return walking.send(outputs)
    except StopIteration:
        return None


class Repair:
    """The fits of one network.

    Args:
      graph: the traced original.
      pruned: the traced smaller model, whose weights are changed here.
      keep: the decision between the two.
      held: bool, which images are held back.
    """

    def __init__(self, graph: Graph, pruned: Graph, keep: np.ndarray, held: np.ndarray):
        self.graph, self.pruned, self.keep, self.held = graph, pruned, keep, held
        self.judges = held if held.any() else ~held
        self.landings = landings(graph)
        self.twin = {call.path: new.operation for call, new in zip(graph.calls, pruned.calls, strict=True)}
        self.calls = calls_by_operation(graph)
        self.readers: dict[int, list[Refit]] = defaultdict(list)
        for reader in linear_readers(graph):
            self.readers[id(reader.weight.layer)].append(self.refit(reader))
        self.later: dict[tuple[int, str], dict[int, list]] = {}

    @property
    def refits(self) -> list[Refit]:
        """All kernels that may be fitted, in the order of the graph."""
        return [refit for found in self.readers.values() for refit in found]

    def refit(self, reader: Reader) -> Refit:
        weight, linear = reader.weight, reader.linear
        new = self.twin[weight.path]
        start = linear.matrix(new, as_float(variables_by_name(new)[weight.name]))
        filters = weight.writes is not None and weight.axes[weight.writes] is not None
        kept = self.keep[reader.positions(weight.writes)[:, 0]] if filters else np.ones(start.shape[::2], bool)
        features = self.keep[reader.positions(weight.reads)[:, :, 0]]
        intercept = self.intercept(reader)
        return Refit(reader, kept.reshape(-1), features, start, intercept, len(self.calls[id(weight.layer)]))

    def look_ahead(self, images: tuple):
        """What stays of the tensors that layers see in their later calls in the original network."""
        shared = {owner: refits for owner, refits in self.readers.items() if refits[0].calls > 1}
        if not shared:
            return
        counts: dict[int, int] = defaultdict(int)
        walking = walk(self.graph, images)
        step = next(walking)
        while step is not None:
            output, owner = step.run(), step.call.owner
            if owner in shared:
                self.note_later(shared[owner], counts[owner], step, output)
                counts[owner] += 1
            step = proceed(walking, output)

    def note_later(self, refits: list[Refit], index: int, step: Step, output):
        for refit in refits if index else []:
            x, y = as_float(step.inputs[refit.linear.source]), as_float(output)
            places = self.places(refit, x, y, index)
            rows = refit.kept_features(refit.linear.rows(step.call.operation, x, places))
            parts = refit.parts(rows, refit.target(step.call.operation, x, y, places), self.held)
            self.later.setdefault(refit.reader.key, {})[index] = parts

    def places(self, refit: Refit, x: np.ndarray, y: np.ndarray, index: int) -> Places:
        """Output places by lot, the same in both sweeps, and fewer the more calls the layer has."""
        weight = refit.reader.weight
        rng = np.random.default_rng([index, *map(ord, weight.path + weight.name)])
        return places_for(refit.linear, weight.layer, x, y, rng, refit.calls)

    def sweep(self, images: tuple, progress: Progress) -> tuple[list, list]:
        """Runs both networks side by side and fits each reader when the pruned one comes to it.

        Returns:
          The outputs of both on the images held back.
        """
        self.wanted: dict[int, set[int]] = defaultdict(set)
        for landing in self.landings.values():
            for place in landing.others:
                self.wanted[place].add(landing.total)
        self.streams: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.counts: dict[int, int] = defaultdict(int)
        self.next_later = {}
        ours, theirs = walk(self.graph, images), walk(self.pruned, images)
        before, after = next(ours), next(theirs)
        outputs: tuple[dict, dict] = ({}, {})
        while before is not None:
            output = before.run()
            self.visit(before, after, output)
            result = after.run()
            self.remember(before.call, output, result)
            for found, made in zip(outputs, (output, result), strict=True):
                tensors = zip(before.call.outputs, flatten(made), strict=True)
                found.update((p, as_float(x)[self.judges]) for p, x in tensors if p in self.graph.ends)
            progress.show(len(self.counts))
            before, after = proceed(ours, output), proceed(theirs, result)
        progress.finish(len(self.counts))
        self.later = self.next_later
        return tuple([found[place] for place in self.graph.ends if place in found] for found in outputs)

    def remember(self, call, outputs, results):
        """Keeps both networks' tensors that will be added to a layer's output, until they are."""
        both = zip(call.outputs, flatten(outputs), flatten(results), strict=True)
        self.streams.update((place, (as_float(x), as_float(y))) for place, x, y in both if place in self.wanted)
        for place in self.wanted.keys() & set(call.inputs):
            self.wanted[place] -= set(call.outputs)
            if not self.wanted[place]:
                self.streams.pop(place, None)

    def visit(self, before: Step, after: Step, output):
        """The layer that is about to run in the pruned network: at its first call it is fitted, to all its calls; at
        the later ones what it sees is noted, for the next sweep.

        Args:
          before, after: the call in the original and in the pruned network.
          output: what the layer gave in the original.
        """
        refits = self.readers.get(before.call.owner, [])
        if not refits:
            return
        index = self.counts[before.call.owner]
        self.counts[before.call.owner] += 1
        for refit in refits:
            whole, seen = (as_float(step.inputs[refit.linear.source]) for step in (before, after))
            if refit.calls == 1 and whole.shape == seen.shape and np.array_equal(whole, seen):
                continue
            y = as_float(output)
            places = self.places(refit, whole, y, index)
            target = refit.target(before.call.operation, whole, y, places)
            target = target + self.missing(refit, before.call, places, y.shape)
            parts = refit.parts(refit.linear.rows(after.call.operation, seen, places), target, self.held)
            if index == 0:
                later = self.later.get(refit.reader.key, {})
                refit.fit(after.call.operation, [parts, *later.values()])
            else:
                self.next_later.setdefault(refit.reader.key, {})[index] = parts

    def missing(self, refit: Refit, call, places: Places, shape: tuple) -> np.ndarray | float:
        """What the streams that the output is added to lack by now, in the units of the kernel's output; nothing where
        one of the two is stretched over the other.
        """
        landing, linear, layer = self.landings.get(call.outputs[0], Landing()), refit.linear, call.operation
        pairs = (self.streams[place] for place in landing.others if place in self.streams)
        known = [(whole, now) for whole, now in pairs if whole.shape == shape]
        if not known or not linear.shown(layer):
            return 0.0
        scale = np.ones(len(refit.kept)) if landing.norm is None else scale_of(landing.norm.operation)
        scale = scale[refit.kept]
        inverse = np.where(np.abs(scale) > SMALLEST_SCALE, 1.0 / np.where(scale == 0, 1.0, scale), 0.0)
        lack = sum(
            linear.outputs_at(layer, whole, places)[:, refit.kept] - linear.outputs_at(layer, now, places)
            for whole, now in known
        )
        return (lack * inverse).astype(np.float32)

    def intercept(self, reader: Reader) -> Intercept | None:
        """What of the pruned network takes a shift of the mean: the bias, or a BatchNorm that stands after all calls of
        the layer and nowhere else; None where there is neither.
        """
        weight, linear = reader.weight, reader.linear
        bias = variables_by_name(self.twin[weight.path]).get(linear.bias)
        if bias is not None:
            return Intercept(bias, as_float(bias), linear.row, 1.0)
        norms = [self.landings.get(call.outputs[0], Landing()).norm for call in self.calls[id(weight.layer)]]
        alone = None not in norms and len(self.calls[norms[0].owner]) == len(norms)
        if not alone or len({norm.owner for norm in norms}) > 1 or not linear.shown(weight.layer):
            return None
        mean = variables_by_name(self.twin[norms[0].path])["moving_mean"]
        return Intercept(mean, as_float(mean), (), -1.0)

    def undo(self):
        """Gives the pruned network back the weights that it had."""
        for refit in self.refits:
            refit.undo(self.twin[refit.reader.weight.path])

    def values(self) -> dict[int, np.ndarray]:
        """The weights of the pruned network in the shapes of the original, by the id of the original's variable."""
        found = {}
        for weight, new in zip(self.graph.weights, self.pruned.weights, strict=True):
            value = weight.value().copy()
            kept = [slice(None) if sets is None else self.keep[sets] for sets in weight.axes]
            value[np.ix_(*(np.arange(n)[k] for n, k in zip(value.shape, kept, strict=True)))] = new.value()
            found[id(weight.variable)] = value
        for refit in self.refits:
            weight, name = refit.reader.weight, refit.linear.bias
            bias = variables_by_name(weight.layer).get(name)
            if bias is not None:  # of as many numbers in both, where it follows no channels
                new = variables_by_name(self.twin[weight.path])[name]
                found.setdefault(id(bias), to_numpy(new))
        return found

    def tell(self, images: int, errors: list[float]):
        """Says what was repaired; warns of what was not."""
        refits = [refit for refit in self.refits if not np.isnan(refit.error[0])]
        worse = sorted({refit.reader.weight.path for refit in refits if refit.left_out})
        known = {refit.reader.key for refit in self.refits}
        readers = ((w, (id(w.layer), w.name)) for w in self.graph.readers)
        others = sorted({w.path for w, key in readers if key not in known and not self.keep[w.axes[w.reads]].all()})
        logger.info("repaired %d layers from %d images", len(refits) - len(worse), images)
        if others:
            logger.warning("not repaired, for kprune knows no matrix product in them: %s", ", ".join(others))
        if worse:
            logger.warning("not repaired, for images held back say it would be worse: %s", ", ".join(worse))
        if not errors[1] <= errors[0]:
            logger.warning(
                "nothing was repaired: on images held back the outputs would have an error of %.3g instead of %.3g",
                errors[1],
                errors[0],
            )
