"""Gradual pruning by any criterion of scores between epochs (Aketi 2020), and soft filter pruning (He 2018)."""

from dataclasses import replace

from kprune.cost import CostModel
from kprune.criteria import get_criterion, inform
from kprune.graph.batches import check_kind
from kprune.graph.input_sizes import check_shape, with_sizes
from kprune.pruning.callbacks.base import PruningCallback
from kprune.pruning.callbacks.schedule import EpochSchedule, expected_share
from kprune.selection import Budget, ChannelCount, Round, select_by_score
from kprune.selection.targets import Targets
from kprune.surgery.masks import zero_filters
from kprune.utils.checks import check_flag, check_whole
from kprune.utils.errors import OptionError


class GradualPruning(PruningCallback):
    """Masks the channels with the lowest scores, a few after every n-th epoch, while training goes on.

    Sources: Aketi, Roy, Raghunathan, Roy 2020, "Gradual Channel Pruning while Training using Feature Relevance Scores
    for Convolutional Neural Networks", arXiv 2002.09958, section 4; with `"l2"` and `regrow=True` He et al. 2018, "Soft
    Filter Pruning for Accelerating Deep Convolutional Neural Networks", Algorithm 1.

    Masks are held, saved and read back as those of `SimilarityPruning`, which says what to mind with checkpoints and
    early stopping; `kprune.strip` removes what is masked.

    Args:
      criterion: a name or an object, such as "relevance", "taylor", "l2"; not "similarity". "sfp" is "l2" with
        `regrow=True`.
      target_flops: the share of the FLOPs to remove, between 0 and 1, in equal steps, one a round.
      target_params: the same of the parameters.
      target_latency, latency_table: the same of the milliseconds on a device, and the table that predicts them, see
        `kprune.plan_pruning`.
      channels_per_round: instead, how many channels each round removes (channel sets: channels that are tied by
        additions count once). Give one of the four.
      every_epochs: rounds are due after every n-th epoch.
      until_epoch: the last round is due after so many epochs at most; with a target, after just so many. None: two
        thirds of those of this `fit`.
      data: for a criterion that looks at data, as `kprune.plan_pruning` takes it; read once a round, so not a
        generator.
      regrow: before the last round, zeroes filters but does not hold them: they may grow back, and each round chooses
        anew, all of the target at once. Only the last round masks, and only from then on is anything pruned in the
        logs and in `plan`.
      limits: `kprune.Limits`, or None.
      strict: whether a layer that stops channels (a barrier) is an error.
      input_shape: for a model that takes inputs of any size, that of one example, such as (224, 224, 3), of several
        inputs a list or dict: what the FLOPs are counted for. None: the size that the first batch of data has.

    Attributes:
      plan: the `Plan` of what is masked in the weights now; None before training.
      record: `kprune.PruningRecord`: rates, FLOPs, parameters and metrics, round by round, over all `fit`s of this
        object; one made anew, to go on after a kill, begins a new record.
      rounds: for the plan, each step of a round: share removed (or number of channels), filters.

    Raises:
      OptionError: when made or when training begins: a wrong option, or no data, data that can be read only once, or
        a first batch that the criterion cannot use.
      TargetError: when training begins: the target cannot be reached.

    Example:
      >>> pruning = kprune.GradualPruning("relevance", channels_per_round=120, every_epochs=21, until_epoch=150,
      ...                                 data=(x_train, y_train))  # ResNet-56 in the paper, 200 epochs
      >>> model.fit(x_train, y_train, epochs=200, callbacks=[pruning])
      >>> small = kprune.strip(model)
    """

    def __init__(
        self,
        criterion="relevance",
        target_flops=None,
        *,
        target_params=None,
        target_latency=None,
        latency_table=None,
        channels_per_round=None,
        every_epochs=1,
        until_epoch=None,
        data=None,
        regrow=False,
        limits=None,
        strict=False,
        input_shape=None,
    ):
        regrow = regrow or criterion in ("sfp", "he2018")
        criterion = get_criterion(criterion)
        check_flag("regrow", regrow)
        check_criterion(criterion, data)
        check_channels(channels_per_round, (target_flops, target_params, target_latency, latency_table), regrow)
        schedule = EpochSchedule(0, every_epochs, until_epoch)
        if until_epoch is not None and until_epoch < every_epochs:
            raise OptionError(
                f"until_epoch={until_epoch} leaves no round after {every_epochs} epochs.",
                "until_epoch of at least every_epochs.",
                "Prune more often or end later.",
            )
        counted = channels_per_round is not None
        sizes = {"input_shape": input_shape, "data": data}
        given = target_flops, target_params, target_latency, latency_table
        targets = None if counted else Targets(*given, **sizes)
        check_shape(input_shape)
        super().__init__(criterion, targets, replace(schedule, start_epoch=every_epochs - 1), limits, strict)
        self.input_shape = input_shape
        self.channels_per_round, self.data, self.regrow = channels_per_round, data, regrow

    def on_train_begin(self, logs=None):
        """Checks everything before the first step, the data by a first batch."""
        super().on_train_begin(logs)
        self.criterion.check(self._graph, self.data)

    def _make_budget(self) -> Budget | ChannelCount:
        if self.channels_per_round is not None:
            return ChannelCount(
                self.channels_per_round, CostModel(with_sizes(self._graph, self.input_shape, self.data))
            )
        return super()._make_budget()

    def _schedule_rounds(self, first: int, epochs: int) -> list[int]:
        """With a number of channels rounds are counted from the beginning, as in the paper; else from the target."""
        if self.channels_per_round is None:
            return super()._schedule_rounds(first, epochs)
        every, until = self.schedule.every_epochs, self.schedule.until_epoch
        begin = first if until is None else 0
        until = first + max(1, (epochs - first) * 2 // 3) if until is None else until
        due = list(range(begin + every - 1, max(until, begin + every), every))
        counts = self.schedule.until_epoch is None and not self._restored
        self._before = self._budget.removed(self._keep) if counts else 0
        self._budget = replace(self._budget, target=self._before + self.channels_per_round * len(due))
        self._budget.check(self._bounds)
        return due

    def _round(self, place: int, count: int):
        """Removes what has the lowest scores, up to the share of this round."""
        last = place == count
        criterion = inform(self.criterion, self.data, self.params["verbose"])
        begin = self._cost.everything() if self.regrow else self._keep
        goal = self._budget if self.regrow and self.channels_per_round is None else self._goal(place, count)
        keep = select_by_score(self._graph, criterion, goal, self._bounds, begin)
        self.rounds.append(Round(self._budget.removed(keep), int((begin & ~keep).sum())))
        if self.regrow and not last:
            zero_filters(self._graph, keep)
        else:
            self._mask(keep)

    def _goal(self, place: int, count: int) -> Budget | ChannelCount:
        """What shall be gone after a round."""
        if self.channels_per_round is None:
            return replace(self._budget, target=expected_share(self._budget.target, place, count))
        return replace(self._budget, target=self._before + self.channels_per_round * place)


def check_criterion(criterion, data):
    """Checks that a criterion gives scores, and that its data are data, which can be read more than once.

    Raises:
      OptionError: it does not, they are not, or they cannot.
    """
    if criterion.selects_by == "similarity":
        raise OptionError(
            "criterion is 'similarity', which chooses sets of filters and gives no scores.",
            "A criterion of scores, such as 'relevance', 'taylor' or 'l2'.",
            "Use kprune.SimilarityPruning.",
        )
    if data is not None:
        check_kind(data)
    inform(criterion, data, again=True)


def check_channels(channels_per_round, targets: tuple, regrow: bool):
    """Checks that there is one target.

    Raises:
      OptionError: there are several, the number of channels is no whole number above zero, or it goes with `regrow`.
    """
    if channels_per_round is None:
        return
    if regrow:
        raise OptionError(
            "channels_per_round is given together with regrow=True, which chooses all of the target in each round.",
            "A target, such as target_flops=0.5.",
            "Leave out channels_per_round.",
        )
    if any(target is not None for target in targets):
        raise OptionError(
            "channels_per_round is given together with a target.", "One of them.", "Leave out channels_per_round."
        )
    check_whole("channels_per_round", channels_per_round, 1, example=10)
