"""What pruning callbacks share: when a round is due, masks that hold, logs, and resuming."""

import logging
import weakref

import keras

from kprune.compat import optimizers
from kprune.compat.training import refresh_train_function, was_restored
from kprune.criteria import Criterion
from kprune.graph import trace
from kprune.graph.dead_channels import masked_sets
from kprune.pruning.callbacks.schedule import EpochSchedule
from kprune.pruning.pipeline import check_graph
from kprune.pruning.record import PruningRecord
from kprune.selection import Budget, ChannelCount, Plan, Round, bind, check_limits, make_plan
from kprune.selection.targets import Targets
from kprune.surgery import TrainingMasks
from kprune.utils.checks import check_flag
from kprune.utils.errors import OptionError

logger = logging.getLogger("kprune")
PUT_BACK = (
    " The target was met, and then weights of an earlier epoch were put back: with restore_best_weights or "
    "save_best_only let it look at the epochs after the last round only (EarlyStopping: start_from_epoch)."
)
begun = weakref.WeakKeyDictionary()  # per model, the pruning callback whose training began last


class PruningCallback(keras.callbacks.Callback):
    """Prunes between epochs, on the compiled model that `fit` trains.

    Masked weights are held at zero by constraints on the variables, which cost no time and are not saved with the
    model. The masks are read back from the zeros in the weights when training begins, so a run that was killed goes on
    where it stood. A subclass says what goes in a round (`_round`).

    Args:
      criterion: for the plan's record, and for the subclass.
      targets: what shall be gone at the end; None: the subclass has a budget of its own.
      schedule: when rounds are due.
      limits: `kprune.Limits`, or None.
      strict: whether a layer that stops channels (a barrier) is an error.

    Raises:
      OptionError: wrong limits, or `strict` is no boolean.
    """

    def __init__(
        self, criterion: Criterion, targets: Targets | None, schedule: EpochSchedule, limits, strict: bool = False
    ):
        super().__init__()
        check_limits(limits)
        check_flag("strict", strict)
        self.criterion, self.targets, self.schedule = criterion, targets, schedule
        self.limits, self.strict = limits, strict
        self.rounds: list[Round] = []
        self.record = PruningRecord()
        self._graph = self._keep = None

    def on_train_begin(self, logs=None):
        """Checks everything before the first step; masks are read later, when every callback has begun."""
        if self._graph is None or self._graph.model is not self.model:
            self._graph = trace(self.model)
            self._masks = TrainingMasks(self._graph)
        check_graph(self._graph, self.strict)
        self._budget = self._make_budget()
        self._cost = self._budget.cost
        self._bounds = bind(self.limits, self._graph, quantity=self._budget.quantity)
        self._budget.check(self._bounds)
        self._keep = None
        begun[self.model] = self

    def on_epoch_begin(self, epoch, logs=None):
        """Prunes what the epoch before made due, so that what is saved at the end of an epoch is what was trained.

        At the first epoch, reads the masks from the zeros in the weights (a resumed run has some).
        """
        if self._keep is None:
            self._check_alone()
            self._keep = ~masked_sets(self._graph)
            self._masks.attach(self._keep)
            self._masks.enforce(self._keep)
            refresh_train_function(self.model)
            self._restored = was_restored(self.model)
            self._due = self._schedule_rounds(0 if self._restored else epoch, self.params["epochs"])
            self._check_due(epoch)
        self._epoch = epoch
        self._prune_after(epoch - 1)

    def on_epoch_end(self, epoch, logs=None):
        """Writes into the logs what share is masked, and into the record how well the network does."""
        self.record.measured(logs)
        if logs is not None:
            logs.update((f"pruned_{kind}", self._share(kind)) for kind in self._cost.quantities)

    def on_train_end(self, logs=None):
        """The last round, if it is due now; and masks once more where an average was written over the weights."""
        if self._keep is None:
            return
        if optimizers.averages_weights(self.model):
            self._masks.enforce(self._keep)
        if self._epoch == self._due[-1] and not self.model.stop_training:
            self._prune_after(self._epoch)
        masked = ~masked_sets(self._graph)  # another callback may have put back weights of an earlier epoch
        if not self._budget.met(masked):
            logger.warning(
                "Training ended before the target: %s of the %s are removed, %s were asked for. "
                "Call fit again with the callback%s, or prune the rest with kprune.prune_model.%s",
                self._budget.words(self._budget.removed(masked)),
                self._budget.kind,
                self._budget.words(self._budget.target),
                "" if self.schedule.until_epoch is None else f" and initial_epoch={self._epoch + 1}",
                PUT_BACK if self._budget.met(self._keep) else "",
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

    def _check_alone(self):
        """Refuses a second pruning callback, whose masks would take the place of these.

        Raises:
          OptionError: there is one.
        """
        if begun[self.model] is not self:
            raise OptionError(
                f"Two callbacks prune '{self.model.name}' in the same fit.", "One.", "Use one, or call fit twice."
            )

    def _check_due(self, epoch: int):
        """Refuses a schedule that was over before the first epoch.

        Raises:
          OptionError: nothing will be pruned, though the target is not met.
        """
        if self._due[-1] < epoch - 1 and not self._budget.met(self._keep):
            raise OptionError(
                f"The last round is due after {self._due[-1] + 1} epochs, and fit begins with initial_epoch={epoch}.",
                "A round that is still to come, or a network that meets the target.",
                "Pass a larger until_epoch, or a lower initial_epoch.",
            )

    def _make_budget(self) -> Budget | ChannelCount:
        """The budget of the whole training."""
        return self.targets.budget(self._graph)

    def _schedule_rounds(self, first: int, epochs: int) -> list[int]:
        """The epochs after which rounds are due, in a `fit` from epoch `first` to before `epochs`."""
        return self.schedule.rounds(first, epochs)

    def _round(self, place: int, count: int):
        """Does round `place`, from 1, of `count`."""
        raise NotImplementedError

    def _prune_after(self, epoch: int):
        """The round that is due after an epoch, if there is one."""
        if epoch in self._due and not self._budget.met(self._keep):
            before = len(self.rounds)
            self._round(self._due.index(epoch) + 1, len(self._due))
            self._note(epoch, self.rounds[before:])

    def _note(self, epoch: int, steps: list[Round]):
        """Adds the round after an epoch to the record."""
        relaxed = [step.relaxed for step in steps if step.relaxed]
        self.record.add(
            make_plan(self._cost, self._keep),
            epoch=epoch,
            ratio=steps[-1].ratio if steps else None,
            relaxed=relaxed[-1] if relaxed else None,
        )

    def _mask(self, keep):
        """Masks what a round removed; the compiled step sees it."""
        self._keep = keep
        self._masks.assign(keep)
        if keras.backend.backend() != "tensorflow":
            refresh_train_function(self.model)

    def _share(self, kind: str) -> float:
        return 1.0 - self._cost.total(self._keep, kind) / self._cost.total(self._cost.everything(), kind)
