"""As little pruning as makes the exported file run in so many milliseconds, by a stop-watch on the file."""

import functools
import math
import pathlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np

from kprune.cost import CostModel
from kprune.deploy.export import export_tflite
from kprune.deploy.export.saved_model import MARK
from kprune.deploy.timing.stopwatch import Stopwatch, time_repeatedly
from kprune.graph import trace
from kprune.graph.input_sizes import with_sizes
from kprune.pruning.pipeline import check_graph, with_data
from kprune.pruning.target_search import Pruner
from kprune.pruning.trial_files import TrialFiles
from kprune.selection import Plan, make_plan
from kprune.selection.targets import quantities
from kprune.utils.checks import check_whole, is_number
from kprune.utils.errors import OptionError, TargetError
from kprune.utils.files import check_place

MOST_TRIALS = 16
MARGIN = 0.15  # of the bracket, that a guess keeps away from either end
LEAST_STEP = 0.01  # of the share, from one that is too slow to the next


@dataclass(frozen=True)
class Trial:
    """One network that was exported and timed.

    Attributes:
      removed: the share that its plan removes, 0..1; 0 for the network itself.
      ms: the median of its timings.
      samples_ms: all of them.
    """

    removed: float
    ms: float
    samples_ms: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class LatencySearch:
    """What `prune_to_latency` gives back.

    Attributes:
      model: the network that meets the target.
      plan: what it removes.
      path: its file, where `output` was given; else None.
      ms: the last timing of that file.
      target_ms: what was asked for.
      trials: all that were timed, in order.
    """

    model: keras.Model = field(repr=False)
    plan: Plan = field(repr=False)
    path: pathlib.Path | None
    ms: float
    target_ms: float
    trials: tuple[Trial, ...]


def prune_to_latency(
    model,
    target_ms,
    measure: Callable | None = None,
    *,
    export: Callable | None = None,
    output=None,
    latency_table=None,
    criterion=None,
    data=None,
    repair=True,
    limits=None,
    strict=False,
    tolerance=0.02,
    repeats=3,
    verbose=True,
    input_shape=None,
) -> LatencySearch:
    """Prunes as little as makes the exported file run in `target_ms`, as the stop-watch says on that very file.

    The share to remove is searched between too slow and fast enough, by interpolation kept inside the bracket; some
    five networks are exported and timed. Each is timed `repeats` times, and more often where the timings lie on both
    sides of the target. The file that is given back is timed once more at the end; where that fails, the search goes
    on.

    Args:
      model: a built functional or Sequential `keras.Model`; never changed.
      target_ms: milliseconds of one run.
      measure: called with the path of a file, gives milliseconds; default: `kprune.Stopwatch()`, one thread of this
        machine. `kprune.CommandStopwatch("ssh jetson ...")` times on another device.
      export: called with a model and a path, writes the file; default: `kprune.export_tflite` in float32. For others
        `functools.partial(kprune.export_tflite, quantize="int8", representative_data=images)`, or `kprune.export_onnx`
        with an `output` that ends in .onnx.
      output: where the file (or SavedModel) that meets the target is written, or None; its suffix is that of all
        files (.tflite).
      latency_table: a `LatencyTable`, or the path of one: plans then remove a share of the predicted milliseconds in
        place of the FLOPs, and know the kernels' steps; the stop-watch still decides.
      criterion, data, repair, limits, strict: see `prune_model`; data are read for every network.
      tolerance: the search ends when a file runs in `[(1 - tolerance) * target_ms, target_ms]`, or when the share that
        is enough and the one that is not are this close.
      repeats: timings of each file; the median counts.
      verbose: whether to print a line per network.
      input_shape: for a model that takes inputs of any size, see `plan_pruning`.

    Returns:
      A `LatencySearch`: `.model`, `.plan`, `.path`, `.ms`, `.trials`. Where the network is fast enough as it is, its
      plan removes nothing.

    Raises:
      TargetError: even the smallest network is too slow; names its milliseconds.
      OptionError: a wrong option, or `measure` gives no number above 0.
      ExportError: `output` cannot be written; refused before anything is timed.
      ModelError: see `plan_pruning`; or the command of a stop-watch fails.

    Example:
      >>> found = kprune.prune_to_latency(model, 0.6, data=images, output="small.tflite")
      >>> found.ms, kprune.model_cost(found.model).flops
    """
    check_options(target_ms, measure, export, tolerance, repeats)
    if output is not None:
        check_place(output, MARK)
    criterion, graph = with_data(criterion, data, repair, again=True), trace(model)
    check_graph(graph, strict)
    cost = CostModel(with_sizes(graph, input_shape, data), **quantities(graph, latency_table))
    kind = "flops" if latency_table is None else "latency"
    pruner = Pruner.of(graph, cost, kind, criterion, limits, data if repair else None)
    with tempfile.TemporaryDirectory() as folder:
        files = TrialFiles(export or export_tflite, pathlib.Path(folder), output)
        watch = functools.partial(time_repeatedly, measure or Stopwatch(), target_ms, repeats)
        search = Search(pruner, files, watch, target_ms, verbose)
        search.run(tolerance)
        return search.result()


def check_options(target_ms, measure, export, tolerance, repeats):
    """Refuses what is out of range, before anything is exported.

    Raises:
      OptionError: something is.
    """
    if not is_number(target_ms) or not 0 < target_ms < math.inf:
        raise OptionError(f"target_ms is {target_ms!r}.", "Milliseconds above 0.", "Pass target_ms=10.0.")
    for name, value in (("measure", measure), ("export", export)):
        if value is not None and not callable(value):
            raise OptionError(f"{name} is {value!r}.", "A function, or None.", f"Leave {name} out, or see its help.")
    if not is_number(tolerance) or not 0 < tolerance < 1:
        raise OptionError(f"tolerance is {tolerance!r}.", "A share, 0..1.", "Pass 0.02.")
    check_whole("repeats", repeats, 1, example=3)


class Search:
    """The search for the smallest share whose file is fast enough.

    Args:
      pruner: makes the networks.
      files: exports them.
      watch: called with a path, gives timings.
      target_ms: what they shall meet.
      verbose: whether to print a line per network.

    Attributes:
      slow: the trial with the most removed that is too slow.
      fast: the trial that is fast enough, with its model, plan and file; None before there is one.
    """

    def __init__(self, pruner: Pruner, files: TrialFiles, watch: Callable, target_ms: float, verbose: bool):
        self.pruner, self.files, self.watch, self.target_ms, self.verbose = pruner, files, watch, target_ms, verbose
        self.trials: list[Trial] = []
        self.slow: Trial | None = None
        self.fast: tuple | None = None

    def run(self, tolerance: float):
        """Tries shares until the bracket is closed and the file in it has been timed once more.

        Raises:
          TargetError: the smallest network is too slow.
        """
        cost = self.pruner.cost
        self.judge(self.pruner.graph.model, make_plan(cost, cost.everything()))
        while self.slow is not None:
            plan = self.next_plan(tolerance)
            if plan is not None:
                self.judge(self.pruner.prune(plan), plan)
            elif self.fast is None:
                self.refuse()
            elif self.confirmed():
                return

    def next_plan(self, tolerance: float) -> Plan | None:
        """What to try next, or None where the bracket is closed or nothing smaller is left."""
        exhausted = self.fast is None and self.slow.removed >= self.pruner.reachable - 1e-9
        if exhausted or self.closed(tolerance) or len(self.trials) >= MOST_TRIALS:
            return None
        plan = self.pruner.plan(self.guess())
        between = self.fast is None or self.pruner.removed(plan) < self.fast[0].removed
        return plan if between else None

    def judge(self, model, plan: Plan):
        """Exports and times a network, and narrows the bracket."""
        path = self.files.write(model, f"trial{len(self.trials)}")
        samples = self.watch(path)
        trial = Trial(self.pruner.removed(plan), float(np.median(samples)), samples)
        self.trials.append(trial)
        if trial.ms <= self.target_ms:
            self.fast = trial, model, plan, path
        else:
            self.slow = trial
        self.tell(trial)

    def tell(self, trial: Trial):
        if self.verbose:
            word = "fast enough" if trial.ms <= self.target_ms else "too slow"
            spread = f"{min(trial.samples_ms):.3g} to {max(trial.samples_ms):.3g}"
            what = {"flops": "FLOPs", "latency": "predicted milliseconds"}[self.pruner.kind]
            print(f"{trial.removed:.2%} of the {what} removed: {trial.ms:.3g} ms ({spread}), {word}", flush=True)

    def closed(self, tolerance: float) -> bool:
        """Whether the fast network is near enough to the target, or to the slow one."""
        if self.fast is None:
            return False
        near = self.fast[0].ms >= (1 - tolerance) * self.target_ms
        return near or self.fast[0].removed - self.slow.removed <= tolerance

    def confirmed(self) -> bool:
        """Whether the chosen file meets the target when it is timed again; if not, the bracket moves on."""
        trial, model, plan, path = self.fast
        samples = self.watch(path)
        again = Trial(trial.removed, float(np.median(samples)), samples)
        self.trials.append(again)
        self.tell(again)
        if again.ms <= self.target_ms:
            self.fast = again, model, plan, path
            return True
        self.slow, self.fast = again, None
        return False

    def guess(self) -> float:
        """The next share to try: where a line between the two ends meets the target, but well inside the bracket."""
        low, most = self.slow, self.pruner.reachable
        if self.fast is None:  # as if milliseconds fell as what is removed
            share = max(1 - (1 - low.removed) * self.target_ms / low.ms, low.removed + LEAST_STEP)
            return most if share >= low.removed + (1 - MARGIN) * (most - low.removed) else share
        high = self.fast[0]
        share = low.removed + (high.removed - low.removed) * (low.ms - self.target_ms) / (low.ms - high.ms)
        margin = MARGIN * (high.removed - low.removed)
        return float(np.clip(share, low.removed + margin, high.removed - margin))

    def refuse(self):
        """The error of a target that no network meets.

        Raises:
          TargetError: always.
        """
        last = {trial.removed: trial for trial in self.trials}  # of a file that was timed again, the last word
        best = min(last.values(), key=lambda trial: trial.ms)
        if self.slow.removed < self.pruner.reachable - 1e-9:
            raise TargetError(
                f"No file met target_ms={self.target_ms:.4g} twice in {len(self.trials)} timings: they differ too much "
                f"from one to the next, or fall too little; with {best.removed:.2%} removed it takes {best.ms:.4g} ms.",
                "Timings of one file that agree.",
                "Let nothing else run on the device, fix its clocks, or raise repeats.",
                best.removed,
            )
        raise TargetError(
            f"target_ms={self.target_ms:.4g} cannot be reached in '{self.pruner.graph.model.name}': with "
            f"{best.removed:.2%} removed its file takes {best.ms:.4g} ms; as it is, {self.trials[0].ms:.4g} ms.",
            f"A target of at least {best.ms:.4g} ms.",
            "Raise the target, loosen the limits, quantize the export, or use more threads.",
            best.removed,
        )

    def result(self) -> LatencySearch:
        trial, model, plan, path = self.fast
        return LatencySearch(model, plan, self.files.publish(path), trial.ms, self.target_ms, tuple(self.trials))
