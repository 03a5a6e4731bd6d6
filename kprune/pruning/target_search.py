"""How much can go before a network is no longer good enough: a search over the target."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np

from kprune.cost import WORDS, CostModel
from kprune.criteria import Criterion
from kprune.graph import Graph, trace
from kprune.graph.input_sizes import with_sizes
from kprune.pruning.pipeline import apply_to_graph, check_graph, choose, with_data
from kprune.pruning.run_folder import RunFolder, fingerprint
from kprune.selection import Bounds, Budget, Plan, bind, make_budget
from kprune.selection.targets import quantities, table_settings
from kprune.utils.checks import is_number
from kprune.utils.errors import OptionError, TargetError

STATE = "search.json"
SMALLEST = 1e-6  # a target that nearly every network can reach; what is truly reachable comes with the check of it


@dataclass(frozen=True)
class Evaluation:
    """One network that was tried.

    Attributes:
      target: the share that was asked for, 0..1.
      removed: the share that its plan removes.
      accepted: what `accept` said.
    """

    target: float
    removed: float
    accepted: bool


@dataclass(frozen=True)
class TargetSearch:
    """What `find_target` gives back.

    Attributes:
      model: the smallest network that was accepted, as `accept` left it.
      plan: what it removes.
      target: the target of the plan, 0..1.
      evaluations: all that were tried, in order, those of an earlier run included.
    """

    model: keras.Model = field(repr=False)
    plan: Plan = field(repr=False)
    target: float
    evaluations: tuple[Evaluation, ...]


def find_target(
    model,
    accept: Callable,
    *,
    quantity="flops",
    latency_table=None,
    criterion=None,
    data=None,
    repair=True,
    limits=None,
    strict=False,
    tolerance=0.02,
    directory=None,
    verbose=True,
    input_shape=None,
) -> TargetSearch:
    """The largest reduction for which `accept(pruned_model)` is true, by bisection.

    It assumes that a network which is accepted would be accepted with less removed too. So some six networks are tried,
    not one per target; where the assumption fails, the result is still a network that was accepted.

    Args:
      model: a built functional or Sequential `keras.Model`; never changed.
      accept: called with a pruned model, compiled as `model` is; it may fine-tune it in place, then says whether it is
        good enough: True or False.
      quantity: "flops", "params" or "latency": what the target is a share of.
      latency_table: for the last, the table of the device, see `plan_pruning`.
      criterion, data, repair, limits, strict: see `prune_model`; data are read for every network.
      tolerance: the search ends when the largest share accepted and the smallest refused are this close, 0..1.
      directory: a folder for what was tried (`search.json`) and the models accepted (`accepted_0.475000.keras`). A
        search that was killed goes on when it is called again with the same arguments, and tries nothing twice. What
        `accept` and `data` are it cannot tell: for others take another folder.
      verbose: whether to print a line per network tried.
      input_shape: for a model that takes inputs of any size, see `plan_pruning`.

    Returns:
      A `TargetSearch`: `.model`, `.plan`, `.target`, `.evaluations`.

    Raises:
      TargetError: nothing was accepted, not even the smallest reduction that was tried.
      OptionError: a wrong option, a folder of another search, or `accept` returns no boolean.
      ModelError: see `plan_pruning`.

    Example:
      >>> before = model.evaluate(x_val, y_val, return_dict=True)["accuracy"]
      >>> def accept(small):
      ...     small.fit(x, y, epochs=3)
      ...     return small.evaluate(x_val, y_val, return_dict=True)["accuracy"] >= before - 0.01
      >>> found = kprune.find_target(model, accept)
      >>> found.target, kprune.model_cost(found.model).flops
    """
    check_options(accept, quantity, latency_table, tolerance)
    criterion, graph = with_data(criterion, data, repair, again=True), trace(model)
    check_graph(graph, strict)
    cost = CostModel(with_sizes(graph, input_shape, data), **quantities(graph, latency_table))
    pruner = Pruner.of(graph, cost, quantity, criterion, limits, data if repair else None)
    settings = {
        "quantity": quantity,
        "criterion": {"name": pruner.criterion.name, **pruner.criterion.get_config()},
        "repair": data is not None and repair,
        "limits": repr(limits),
        "tolerance": tolerance,
        "weights": fingerprint(model),
        **table_settings(latency_table),
    }
    trials = Trials(pruner, accept, RunFolder(directory, STATE, settings), verbose)
    bisect(trials, 0.0, pruner.reachable, tolerance)
    return trials.best()


def check_options(accept, quantity, latency_table, tolerance):
    if not callable(accept):
        raise OptionError(
            f"accept is {accept!r}.", "A function of a model.", "Pass lambda small: accuracy(small) > 0.9."
        )
    if quantity not in WORDS:
        raise OptionError(f"quantity is {quantity!r}.", "'flops', 'params' or 'latency'.", "Choose one of them.")
    if (quantity == "latency") != (latency_table is not None):
        raise OptionError(
            f"quantity is {quantity!r} {'without' if latency_table is None else 'together with'} a latency table.",
            "A table with quantity='latency', and only there.",
            "Pass quantity='latency', latency_table='table.json'.",
        )
    if not is_number(tolerance) or not 0 < tolerance < 1:
        raise OptionError(f"tolerance is {tolerance!r}.", "A share, 0..1.", "Pass 0.02.")


@dataclass(frozen=True)
class Pruner:
    """Prunes one network to any target.

    Attributes:
      graph: the traced model.
      cost: its cost.
      criterion, bounds: what chooses, and what must stay.
      kind: "flops", "params" or "latency".
      reachable: the largest share that can be removed.
      data: what weights are repaired from, or None.
    """

    graph: Graph = field(repr=False)
    cost: CostModel = field(repr=False)
    criterion: Criterion
    bounds: Bounds = field(repr=False)
    kind: str
    reachable: float
    data: object = field(repr=False)

    @classmethod
    def of(cls, graph: Graph, cost: CostModel, kind: str, criterion: Criterion, limits, data) -> "Pruner":
        bounds = bind(limits, graph, quantity=cost.quantities[kind])
        reachable = make_budget(cost, **{f"target_{kind}": SMALLEST}).check(bounds)
        return cls(graph, cost, criterion, bounds, kind, reachable, data)

    def plan(self, target: float) -> Plan:
        return choose(self.criterion, Budget(self.kind, target, self.cost), self.bounds)

    def removed(self, plan: Plan) -> float:
        """The share that a plan removes."""
        before, after = getattr(plan, self.kind)
        return 1.0 - after / before

    def prune(self, plan: Plan):
        return apply_to_graph(self.graph, plan, "hard", self.data)


class Trials:
    """Tries targets, remembers what came of it, and keeps the best network.

    Args:
      pruner: makes the networks.
      accept: the user's judgement.
      folder: where the trials are kept.
      verbose: whether to print a line per network.
    """

    def __init__(self, pruner: Pruner, accept: Callable, folder: RunFolder, verbose: bool):
        self.pruner, self.accept, self.folder, self.verbose = pruner, accept, folder, verbose
        self.known = {key: Evaluation(**entry) for key, entry in (folder.state or {}).items()}
        self.accepted: tuple | None = None  # the last model accepted in this process, and its plan

    def __call__(self, target: float) -> Evaluation:
        """What is known of a target, or what `accept` says of its network."""
        key = f"{target:.6f}"
        if key not in self.known:
            plan = self.pruner.plan(target)
            removed = self.pruner.removed(plan)
            same = [entry.accepted for entry in self.known.values() if entry.removed == removed]
            accepted = same[0] if same else self.judge(plan, key)
            self.known[key] = Evaluation(target, removed, accepted)
            self.folder.save({name: vars(entry) for name, entry in self.known.items()})
            if self.verbose:
                word = "accepted" if accepted else "refused"
                print(f"{removed:.2%} of the {WORDS[self.pruner.kind]} removed: {word}", flush=True)
        return self.known[key]

    def judge(self, plan: Plan, key: str) -> bool:
        """Makes the network and asks the user; an accepted one is kept. Each is smaller than those accepted before."""
        model = self.pruner.prune(plan)
        answer = self.accept(model)
        if not isinstance(answer, (bool, np.bool_)):
            raise OptionError(
                f"accept returned {answer!r}.", "True or False.", "Return a comparison, such as accuracy >= 0.9."
            )
        if answer:
            self.accepted = model, plan
            self.folder.save_model(model, model_name(key))
        return bool(answer)

    def best(self) -> TargetSearch:
        """The smallest network accepted.

        Raises:
          TargetError: there is none.
        """
        accepted = {key: entry for key, entry in self.known.items() if entry.accepted}
        if not accepted:
            least = min(entry.removed for entry in self.known.values())
            raise TargetError(
                f"accept refused every network, even that with {least:.2%} of the {WORDS[self.pruner.kind]} removed.",
                "A network that is accepted while little is removed.",
                "See whether accept(model) is true for the network itself; fine-tune in accept, or lower what it asks.",
                0.0,
            )
        key, best = max(accepted.items(), key=lambda item: item[1].removed)
        found = self.accepted or (self.folder.load_model(model_name(key)), self.pruner.plan(best.target))
        return TargetSearch(*found, best.target, tuple(self.known.values()))


def model_name(key: str) -> str:
    return f"accepted_{key}.keras"


def bisect(trial: Callable[[float], Evaluation], low: float, high: float, tolerance: float):
    """Halves the interval between a share that is accepted and one that is refused.

    Args:
      trial: tries a target.
      low: a share taken as accepted.
      high: the largest share that can be tried; taken as refused.
      tolerance: how close the two come.
    """
    tolerance = min(tolerance, high / 2)  # so that something is tried, however little can go
    while high - low > tolerance:
        target = round((low + high) / 2, 6)
        evaluation = trial(target)
        if evaluation.accepted:
            low = max(target, evaluation.removed)
        else:
            high = target
