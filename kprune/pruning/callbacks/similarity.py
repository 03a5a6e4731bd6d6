"""Algorithm 1 of Wu 2023 between epochs."""

from kprune.criteria import Similarity
from kprune.pruning.callbacks.base import PruningCallback
from kprune.pruning.callbacks.schedule import EpochSchedule, expected_share
from kprune.selection import RELAXATION, Budget, Comparison, Removal, Round
from kprune.selection.targets import Targets
from kprune.utils.errors import OptionError


class SimilarityPruning(PruningCallback):
    """Algorithm 1 of Wu 2023, soft: between epochs it masks the filters that others make redundant.

    It works on the compiled model that `fit` trains: masked weights are held at zero by constraints on the
    variables, which cost no time and are not saved with the model. `kprune.strip` then removes them. The masks are
    read back from the zeros in the weights when training begins, so a run that was killed goes on where it stood.

    Args:
      target_flops: the share of the FLOPs to remove, between 0 and 1; reached after `until_epoch` epochs.
      target_params: the same of the parameters.
      target_latency, latency_table: the same of the milliseconds on a device, and the table that predicts them, see
        `kprune.plan_pruning`; give one of the three.
      alpha, ratio: see `kprune.criteria.Similarity`. Where a round is behind the schedule, which goes to the target in
        equal steps, it relaxes `ratio` by 10 % until it is not; the next one begins with `ratio` again.
      start_epoch: the first epoch, from 0, after which filters may go.
      every_epochs: how many epochs lie between two rounds.
      until_epoch: after how many epochs the target is reached; None: two thirds of those of this `fit`.
      limits: `kprune.Limits`, or None.
      strict: whether a layer that stops channels (a barrier) is an error.
      input_shape: for a model that takes inputs of any size, that of one example, such as (224, 224, 3): what the
        FLOPs are counted for.
      **options: further options of `kprune.criteria.Similarity`: metric, fold_bn, guard, coupling.

    A killed run goes on from the end of an epoch, as `BackupAndRestore` keeps it; from the middle of one (`save_freq`
    in steps) the round before it is done twice. `EarlyStopping(restore_best_weights=True)` and
    `ModelCheckpoint(save_best_only=True)` know nothing of the target, and may put back or keep weights from before the
    last round: let them begin at `until_epoch`.

    Attributes:
      plan: the `Plan` of what is masked in the weights now; None before training.
      record: `kprune.PruningRecord`: rates, FLOPs, parameters and metrics, round by round, over all `fit`s of this
        object; one made anew, to go on after a kill, begins a new record.
      rounds: for the plan, each step of a round: share removed, filters, ratio, what was relaxed.

    Raises:
      OptionError: when made or when training begins: a wrong option, a schedule that is over, or a second pruning
        callback in the same `fit`.
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
        target_latency=None,
        latency_table=None,
        alpha=1.0,
        ratio=0.35,
        start_epoch=0,
        every_epochs=1,
        until_epoch=None,
        limits=None,
        strict=False,
        input_shape=None,
        **options,
    ):
        if "compensate" in options:
            raise OptionError(
                "compensate is for pruning at once; between epochs the training itself makes up for a filter.",
                "metric, fold_bn, guard or coupling.",
                "Leave it out, or use kprune.prune_model.",
            )
        unknown = sorted(options.keys() - set(Similarity.options))
        if unknown:
            raise OptionError(
                f"There is no option {', '.join(unknown)}.", f"Of {Similarity.options}.", "Check the spelling."
            )
        criterion = Similarity(alpha, ratio, **options)
        targets = Targets(target_flops, target_params, target_latency, latency_table, input_shape)
        super().__init__(criterion, targets, EpochSchedule(start_epoch, every_epochs, until_epoch), limits, strict)

    def _make_budget(self) -> Budget:
        self._comparison = Comparison(self._graph, self.criterion)
        return super()._make_budget()

    def _round(self, place: int, count: int):
        """Removes what is redundant, and more by a relaxed ratio where the schedule is behind.

        Each round begins with the ratio that was given, so that it follows from the weights and the epoch alone: a run
        that was killed and goes on takes the same filters as one that was not.
        """
        due = expected_share(self._budget.target, place, count)
        removal, ratio = Removal(self._budget, self._bounds, self._keep), self.criterion.ratio
        self._comparison.look_again()
        while True:
            order, ratio, relaxed = self._comparison.candidates(removal.keep, self._bounds, ratio)
            went = removal.take(order)
            keep = removal.decision()
            self.rounds.append(Round(self._budget.removed(keep), went, ratio, relaxed))
            if self._budget.removed(keep) >= min(due, self._budget.target) - 1e-12 or removal.stuck:
                break
            ratio *= RELAXATION
        last = self._budget.met(keep) or (removal.stuck and place == count)
        self._comparison.look_again()  # nothing of the weights is kept until the next round
        self._mask(removal.finish() if last else keep)
