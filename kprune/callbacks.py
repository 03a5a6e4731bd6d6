"""Pruning while training: masks on the user's own compiled model, held by the callback."""

import logging

import keras
import numpy as np

from kprune import _keras
from kprune.api import refuse_barriers
from kprune.cost import CostModel
from kprune.criteria import Similarity
from kprune.errors import OptionError
from kprune.graph import trace
from kprune.masking import TrainingMasks
from kprune.plan import Plan, make_plan
from kprune.schedules import EpochSchedule, expected_share
from kprune.selection import Comparison, Round, bind, make_budget, remove_until, require_reachable, trim
from kprune.zeros import masked_sets

logger = logging.getLogger("kprune")


class SimilarityPruning(keras.callbacks.Callback):
    """Algorithm 1 of Wu 2023, soft: between epochs it masks the filters that others make redundant.

    It works on the compiled model that `fit` trains: masked weights are held at zero by constraints on the
    variables, which cost no time and are not saved with the model. `kprune.strip` then removes them. The masks are
    read back from the zeros in the weights when training begins, so a run that was killed goes on where it stood.

    Args:
      target_flops: the share of the FLOPs to remove, between 0 and 1; reached after `until_epoch` epochs.
      target_params: the same of the parameters; give one of the two.
      alpha, ratio: see `kprune.criteria.Similarity`.
      start_epoch: the first epoch, from 0, after which filters may go.
      every_epochs: how many epochs lie between two rounds.
      until_epoch: after how many epochs the target is reached; None: two thirds of those of this `fit`.
      limits: `kprune.Limits`, or None.
      **options: further options of `kprune.criteria.Similarity`: metric, fold_bn, guard, coupling.

    Attributes:
      plan: the `Plan` of what is masked in the weights now; None before training.
      rounds: one record per round: share removed, filters, ratio, what was relaxed.

    Raises:
      OptionError: when made or when training begins: a wrong option.
      TargetError: when training begins: the target cannot be reached.

    Example:
      >>> model.fit(x, y, epochs=30, callbacks=[kprune.SimilarityPruning(target_flops=0.5)])
      >>> small = kprune.strip(model)
    """

    def __init__(
        self,
        target_flops=None,
        *,
        target_params=None,
        alpha=1.0,
        ratio=0.35,
        start_epoch=0,
        every_epochs=1,
        until_epoch=None,
        limits=None,
        **options,
    ):
        super().__init__()
        if "compensate" in options:
            raise OptionError(
                "compensate is for pruning at once; between epochs the training itself makes up for a filter.",
                "metric, fold_bn, guard or coupling.",
                "Leave it out, or use kprune.prune_model.",
            )
        self.targets = (target_flops, target_params)
        self.criterion = Similarity(alpha, ratio, **options)
        self.schedule = EpochSchedule(start_epoch, every_epochs, until_epoch)
        self.limits = limits
        self.rounds: list[Round] = []
        self._graph = self._keep = None
        self._ratio = self.criterion.ratio

    def on_train_begin(self, logs=None):
        """Checks everything before the first step; masks are read later, when every callback has begun."""
        if self._graph is None or self._graph.model is not self.model:
            self._graph = trace(self.model)
            self._masks = TrainingMasks(self._graph)
        refuse_barriers(self._graph, strict=False)
        self._cost = CostModel(self._graph)
        self._budget = make_budget(self._cost, *self.targets)
        self._bounds = bind(self.limits, self._graph)
        require_reachable(self._budget, self._bounds)
        self._comparison = Comparison(self._graph, self.criterion)
        self._keep, self._ratio = None, self.criterion.ratio

    def on_epoch_begin(self, epoch, logs=None):
        """Prunes what the epoch before made due, so that what is saved at the end of an epoch is what was trained.

        At the first epoch, reads the masks from the zeros in the weights (a resumed run has some).
        """
        if self._keep is None:
            self._keep = ~masked_sets(self._graph)
            self._masks.attach(self._keep)
            self._masks.enforce(self._keep)
            _keras.refresh_train_function(self.model)
            first = 0 if _keras.was_restored(self.model) else epoch
            self._due = self.schedule.rounds(first, self.params["epochs"])
        self._epoch = epoch
        self._prune_after(epoch - 1)

    def on_epoch_end(self, epoch, logs=None):
        """Writes into the logs what share is masked."""
        if logs is not None:
            logs["pruned_flops"] = self._share("flops")
            logs["pruned_params"] = self._share("params")

    def on_train_end(self, logs=None):
        """The last round, if it is due now; and masks once more where an average was written over the weights."""
        if self._keep is None:
            return
        if _keras.averages_weights(self.model):
            self._masks.enforce(self._keep)
        if self._epoch == self._due[-1] and not self.model.stop_training:
            self._prune_after(self._epoch)
        if not self._budget.met(self._keep):
            logger.warning(
                "Training ended before the target: %.2f %% of the %s are removed, %.2f %% were asked for. "
                "Call fit again with the callback, or prune the rest with kprune.prune_model.",
                100 * self._budget.removed(self._keep),
                self._budget.kind,
                100 * self._budget.target,
            )

    @property
    def plan(self) -> Plan | None:
        """What is masked, read from the weights as they are now (`EarlyStopping` may have put back earlier ones)."""
        if self._keep is None:
            return None
        return make_plan(
            self._cost,
            ~masked_sets(self._graph),
            criterion={"name": self.criterion.name, **self.criterion.get_config()},
            target={self._budget.kind: self._budget.target},
            rounds=[vars(entry) for entry in self.rounds],
        )

    def _prune_after(self, epoch: int):
        """The round that is due after an epoch, if there is one."""
        if epoch in self._due and not self._budget.met(self._keep):
            place = self._due.index(epoch) + 1
            self._round(expected_share(self._budget.target, place, len(self._due)))

    def _share(self, kind: str) -> float:
        whole = self._cost.everything()
        count = self._cost.flops if kind == "flops" else self._cost.params
        return 1.0 - count(self._keep) / count(whole)

    def _round(self, due: float):
        """Removes what is redundant, and more by a relaxed ratio where the schedule is behind."""
        keep, removed = self._keep, []
        self._comparison.look_again()
        while True:
            order, self._ratio, relaxed = self._comparison.candidates(keep, self._bounds, self._ratio)
            keep, went = remove_until(self._budget, keep, order)
            removed.append(went)
            self.rounds.append(Round(self._budget.removed(keep), len(went), self._ratio, relaxed))
            if self._budget.removed(keep) >= min(due, self._budget.target) - 1e-12:
                break
            self._ratio *= 0.9
        if self._budget.met(keep):
            keep = trim(self._budget, keep, np.concatenate(removed))
        self._keep = keep
        self._masks.assign(keep)
        if keras.backend.backend() != "tensorflow":
            _keras.refresh_train_function(self.model)
