"""The budget: what share shall go, and whether that much can."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from kprune.cost import CostModel, Quantity, require_known
from kprune.selection.bounds import Bounds
from kprune.utils.checks import is_number
from kprune.utils.errors import OptionError, TargetError


@dataclass(frozen=True)
class Budget:
    """A share of what the model costs that shall be removed.

    Attributes:
      kind: "flops", "params", or another that the cost model knows, such as "latency".
      target: the share, 0..1.
      cost: the cost of the model under a decision.
    """

    kind: str
    target: float
    cost: CostModel = field(repr=False)

    @property
    def quantity(self) -> Quantity:
        """What it is a share of."""
        return self.cost.quantities[self.kind]

    def spent(self, keep: np.ndarray) -> float:
        """What stays: FLOPs, parameters, milliseconds."""
        return self.cost.total(keep, self.kind)

    def removed(self, keep: np.ndarray) -> float:
        """The share that a decision removes."""
        return 1.0 - self.spent(keep) / self._whole if self._whole else 0.0

    @cached_property
    def _whole(self) -> float:
        return self.spent(self.cost.everything())

    def met(self, keep: np.ndarray) -> bool:
        return self.removed(keep) >= self.target - 1e-12

    def gains(self, keep: np.ndarray) -> np.ndarray:
        """What the removal of each set alone saves."""
        return self.cost.gains(keep, self.kind)

    def per_gain(self, scores: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Scores of channel sets over what the removal of each alone saves."""
        return scores / np.maximum(self.gains(keep), np.finfo(float).tiny)

    def words(self, share: float) -> str:
        """A share in words."""
        return f"{100 * share:.2f} %"

    def check(self, bounds: Bounds) -> float:
        """Checks that the target can be reached at all.

        Returns:
          The largest share that can be removed.

        Raises:
          TargetError: it is less than the target; names what is frozen.
        """
        everything, graph = self.cost.everything(), self.cost.graph
        reachable = self.removed(bounds.smallest(everything, self.gains(everything)))
        if reachable < self.target - 1e-12:
            reasons = sorted({r for r in graph.sets.reasons if r and not r.startswith("it is a model")})
            why = f" Frozen: {'; '.join(reasons[:5])}." if reasons else ""
            raise TargetError(
                f"target_{self.kind}={self.target} cannot be reached in '{graph.model.name}': "
                f"at most {reachable:.4f} of the {self.kind} can be removed.{why}",
                f"A target of at most {np.floor(reachable * 1e4) / 1e4}.",
                "Lower the target, loosen the limits, or register rules for the layers that are frozen.",
                reachable,
            )
        return reachable


@dataclass(frozen=True)
class ChannelCount:
    """A number of channel sets that shall be removed; used like a `Budget`.

    Attributes:
      target: how many.
      cost: the cost of the model under a decision.
      quantity: none: no width of a layer is worth more than another.
    """

    target: int
    cost: CostModel = field(repr=False)
    kind: str = "channels"
    quantity: Quantity | None = field(repr=False, default=None)

    def removed(self, keep: np.ndarray) -> int:
        """How many a decision removes."""
        return int((~np.asarray(keep)).sum())

    def met(self, keep: np.ndarray) -> bool:
        return self.removed(keep) >= self.target

    def gains(self, keep: np.ndarray) -> np.ndarray:
        """Each set counts as one."""
        return np.ones(len(keep))

    def per_gain(self, scores: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """The scores as they are."""
        return scores

    def words(self, count: int) -> str:
        """A number in words."""
        return f"{count}"

    def check(self, bounds: Bounds) -> int:
        """Checks that so many channels can be removed.

        Returns:
          The largest number that can.

        Raises:
          TargetError: it is less than the target.
        """
        everything = self.cost.everything()
        most = self.removed(bounds.smallest(everything, self.gains(everything)))
        if most < self.target:
            raise TargetError(
                f"{self.target} channels shall go from '{self.cost.graph.model.name}', of which {most} can.",
                f"At most {most} in all rounds.",
                "Lower channels_per_round, prune less often, or loosen the limits.",
                most / len(everything),
            )
        return most


def make_budget(
    cost: CostModel,
    target_flops: float | None = None,
    target_params: float | None = None,
    target_latency: float | None = None,
) -> Budget:
    """A budget from what the user gave.

    Raises:
      OptionError: none or several are given, or the share is not between 0 and 1.
      ModelError: FLOPs are asked for and the input size is unknown.
    """
    kind, target = chosen_target(target_flops, target_params, target_latency)
    require_known(cost, kind)
    return Budget(kind, target, cost)


def chosen_target(target_flops=None, target_params=None, target_latency=None) -> tuple[str, float]:
    """The one target that is given: of what, and which share.

    Raises:
      OptionError: none or several are given, or the share is not between 0 and 1.
    """
    targets = {"flops": target_flops, "params": target_params, "latency": target_latency}
    given = {kind: target for kind, target in targets.items() if target is not None}
    if len(given) != 1:
        several = " and ".join(f"target_{kind}" for kind in given)
        what = f"Both of {several} are given." if given else "Neither of target_flops and target_params is given."
        raise OptionError(what, "One of them.", "Pass target_flops=0.5.")
    kind, target = next(iter(given.items()))
    if not is_number(target) or not 0 < target < 1:
        raise OptionError(
            f"target_{kind} is {target!r}.", "The share to remove, between 0 and 1.", "Pass 0.5 to remove half."
        )
    return kind, float(target)
