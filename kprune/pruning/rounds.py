"""Algorithm 1 of Wu 2023, hard: remove, train, and again, until the target is met."""

import dataclasses
import functools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np

from kprune.criteria import Criterion, Similarity
from kprune.graph import Graph, trace
from kprune.pruning.pipeline import apply_to_graph, check_graph, choose, with_data
from kprune.pruning.record import PruningRecord
from kprune.pruning.run_folder import RunFolder, fingerprint
from kprune.selection import Budget, Limits, Plan, bind, make_plan, next_ratio, select_in_one_round
from kprune.selection.targets import Targets, table_settings
from kprune.utils.checks import check_whole
from kprune.utils.errors import OptionError

logger = logging.getLogger("kprune")
STATE = "run.json"
ROUNDING = 1e-9


@dataclass(frozen=True)
class PruningRun:
    """What `prune_iteratively` gives back.

    Attributes:
      model: the pruned and trained `keras.Model`.
      plan: which filters of the network at the start are left, over all rounds. Its weights are those of before:
        `apply_plan(original, plan)` has the shape of `model`, without the training.
      record: `PruningRecord`, one entry per round.
    """

    model: keras.Model = field(repr=False)
    plan: Plan = field(repr=False)
    record: PruningRecord


def prune_iteratively(
    model,
    fit: Callable,
    target_flops=None,
    *,
    target_params=None,
    target_latency=None,
    latency_table=None,
    criterion="similarity",
    rounds=None,
    data=None,
    repair=True,
    limits=None,
    strict=False,
    directory=None,
    verbose=True,
    input_shape=None,
) -> PruningRun:
    """Prunes in rounds with your own training after each: Algorithm 1 of Wu 2023, hard.

    Each round looks at the weights as they are now, takes channels out of the network, and calls `fit`; after the
    round that meets the target `fit` is called once more, and that is the end. A round that removes less than a tenth
    of what is still to go relaxes the ratio of similarity by 10 % for those that follow.

    Args:
      model: a built functional or Sequential `keras.Model`; never changed.
      fit: called as `fit(model)` with the smaller model of the round, which it trains in place. What it returns, a
        `History` or a dict of metrics, goes into the record; None is fine. The model comes compiled as that of the
        round before, its optimizer state sliced along: compile it anew in `fit` to begin the learning-rate schedule
        again.
      target_flops: the share of the FLOPs of `model` to remove by the end, 0..1.
      target_params: the same of the parameters.
      target_latency, latency_table: the same of the milliseconds on a device, and the table that predicts them, see
        `plan_pruning`; give one of the three.
      criterion: a name or an object, see `plan_pruning`.
      data: a few hundred images, from which each round repairs the weights that stay, before `fit`; and what the
        criterion looks at, see `prune_model`. Read in every round.
      repair: whether to repair.
      rounds: in how many even steps to go to the target, with any criterion. None, for similarity alone: as the paper
        does, each round takes all that is redundant, so that the method itself says how much that is.
      limits: `kprune.Limits`, or None; `max_rate` is of the filters that `model` has.
      strict: whether a layer that stops channels (a barrier) is an error.
      directory: a folder for the state of the run and the model of each round (`round_01.keras`, ...). A run that was
        killed goes on from its last whole round when it is called again with the same arguments.
      verbose: whether to print a line per round.
      input_shape: for a model that takes inputs of any size, see `plan_pruning`.

    Returns:
      A `PruningRun`: `.model`, `.plan`, `.record`.

    Raises:
      OptionError: a wrong option, a folder of another run, or `fit` returns something else.
      ModelError, TargetError: see `plan_pruning`; the target is checked before the first round.

    Example:
      >>> def fit(model):
      ...     model.compile(keras.optimizers.SGD(1e-3, 0.9, nesterov=True), loss, metrics=["accuracy"])
      ...     return model.fit(x, y, epochs=3, validation_data=test)
      >>> run = kprune.prune_iteratively(model, fit, target_flops=0.6, directory="runs/resnet56")
      >>> run.record.history["val_accuracy"], run.record.history["pruned_flops"]
    """
    criterion = with_data(criterion, data, repair, again=True)
    check_options(fit, criterion, rounds)
    targets = Targets(target_flops, target_params, target_latency, latency_table, input_shape, data)
    start = Start.of(model, targets, limits, strict)
    folder = RunFolder(directory, STATE, settings_of(start, criterion, rounds, data is not None and repair))
    plan, record, small = resumed(folder, start)
    while start.missing(plan) > 0:
        graph = start.graph if small is model else trace(small)
        step = choose_step(start, plan, graph, criterion, rounds, record)
        plan = note_step(start, plan, step, start.goal(plan, rounds), record)
        small = apply_to_graph(graph, step, "hard", data if repair else None)
        record.measured(train(fit, small))
        folder.save_model(small, model_name(len(record)))
        folder.save({"plan": json.loads(plan.to_json()), "history": record.history})
        if verbose:
            print(f"Round {len(record)}: {record.line()}", flush=True)
    return PruningRun(small, plan, record)


@dataclass(frozen=True)
class Start:
    """The network before the first round, and what is asked for.

    Attributes:
      graph: the traced model.
      targets: as the user gave them.
      budget: the target, as a share of this network.
      limits: as the user gave them.
      widths: how many filters each layer has, by path.
    """

    graph: Graph = field(repr=False)
    targets: Targets
    budget: Budget
    limits: Limits | None
    widths: dict[str, int] = field(repr=False)

    @classmethod
    def of(cls, model, targets: Targets, limits, strict: bool) -> "Start":
        """Traces the model and checks that the target can be reached."""
        graph = trace(model)
        check_graph(graph, strict)
        budget = targets.budget(graph)
        budget.check(bind(limits, graph, quantity=budget.quantity))
        return cls(graph, targets, budget, limits, {w.path: w.shape[w.writes] for w in graph.writers})

    def removed(self, plan: Plan) -> float:
        """The share that a plan removes."""
        before, after = getattr(plan, self.budget.kind)
        return 1.0 - after / before

    def missing(self, plan: Plan) -> float:
        """The share that is still to go; 0 once the target is met."""
        left = self.budget.target - self.removed(plan)
        return left if left > ROUNDING else 0.0

    def goal(self, plan: Plan, rounds: int | None) -> float:
        """The share that shall be gone after the next round: the next of so many even steps, or the target."""
        if rounds is None:
            return self.budget.target
        done = int(self.removed(plan) / self.budget.target * rounds + ROUNDING)
        return self.budget.target * (done + 1) / rounds if done + 1 < rounds else self.budget.target


def settings_of(start: Start, criterion: Criterion, rounds: int | None, repair: bool) -> dict:
    """What tells one run from another, as JSON holds it."""
    return {
        "target": {start.budget.kind: start.budget.target},
        "criterion": {"name": criterion.name, **criterion.get_config()},
        "rounds": rounds,
        "repair": repair,
        "limits": repr(start.limits),
        "weights": fingerprint(start.graph.model),
        **table_settings(start.targets.table),
    }


def choose_step(start: Start, plan: Plan, graph: Graph, criterion: Criterion, rounds: int | None, record) -> Plan:
    """What the next round removes, chosen by the weights as they are now.

    Args:
      start: the network before the first round.
      plan: all that is gone by now.
      graph: the network of now.
      criterion, rounds: as the user gave them.
      record: the rounds so far.

    Returns:
      A plan for the network of now.
    """
    share = 1.0 - (1.0 - start.goal(plan, rounds)) / (1.0 - start.removed(plan))
    budget = Budget(start.budget.kind, share, start.targets.cost(graph))
    bounds = bind(start.limits, graph, start.widths, budget.quantity)
    budget.check(bounds)
    if rounds is not None:
        return choose(criterion, budget, bounds)
    ratio = ratio_of_next(record, criterion, start.budget)
    return choose(criterion, budget, bounds, functools.partial(select_in_one_round, ratio=ratio))


def note_step(start: Start, plan: Plan, step: Plan, goal: float, record: PruningRecord) -> Plan:
    """The plan of all rounds once `step` is taken too; the record gets an entry."""
    plan = dataclasses.replace(
        plan.followed_by(step), criterion=step.criterion, target={start.budget.kind: start.budget.target}
    )
    relaxed = [entry["relaxed"] for entry in step.rounds if entry["relaxed"]]
    details = {"ratio": step.rounds[-1]["ratio"], "relaxed": relaxed[-1] if relaxed else None} if step.rounds else {}
    record.add(plan, target=goal, **details)
    return plan


def ratio_of_next(record: PruningRecord, criterion: Similarity, budget: Budget) -> float:
    """The ratio of Algorithm 1 for the next round: the last one, relaxed where that round found little."""
    if not len(record):
        return criterion.ratio
    shares = [0.0, *record.history[f"pruned_{budget.kind}"]]
    return next_ratio(record.history["ratio"][-1], shares[-1] - shares[-2], budget.target - shares[-2])


def train(fit: Callable, model) -> dict:
    """Runs the user's training.

    Returns:
      The last value of each metric that it tells; those that are arrays are left out.

    Raises:
      OptionError: it returns something else than a `History`, a dict of numbers, or None.
    """
    told = fit(model)
    told = told.history if isinstance(told, keras.callbacks.History) else told
    if told is None:
        return {}
    try:
        last = {name: values[-1:] if isinstance(values, (list, tuple)) else [values] for name, values in told.items()}
        return {name: float(values[0]) for name, values in last.items() if values and np.ndim(values[0]) == 0}
    except (AttributeError, TypeError, ValueError) as error:
        raise OptionError(
            f"fit returned a {type(told).__name__} that holds no metrics: {error}.",
            "A History, a dict of numbers, or None; the model is trained in place.",
            "Return what model.fit returns.",
        ) from error


def check_options(fit, criterion: Criterion, rounds):
    if not callable(fit):
        raise OptionError(f"fit is {fit!r}.", "A function that trains a model.", "Pass lambda model: model.fit(x, y).")
    if rounds is None and criterion.selects_by != "similarity":
        raise OptionError(
            f"rounds is not given, and criterion '{criterion.name}' says which filters go first, not how many at once.",
            "A number of rounds.",
            "Pass rounds=5, or leave the criterion at similarity.",
        )
    if rounds is not None:
        check_whole("rounds", rounds, 1, example=5)


def model_name(place: int) -> str:
    return f"round_{place:02d}.keras"


def resumed(folder: RunFolder, start: Start) -> tuple[Plan, PruningRecord, keras.Model]:
    """The plan, record and model that a run begins with: where an earlier one stopped, or the model given."""
    if folder.state is None:
        cost = start.budget.cost
        return make_plan(cost, cost.everything()), PruningRecord(), start.graph.model
    record = PruningRecord(folder.state["history"])
    logger.info("%s: going on after round %d", folder.path, len(record))
    return Plan.from_dict(folder.state["plan"]), record, folder.load_model(model_name(len(record)))
