"""When to prune while training."""

import math
from dataclasses import dataclass

from kprune.utils.checks import check_whole
from kprune.utils.errors import OptionError


@dataclass(frozen=True)
class EpochSchedule:
    """Prunes after every `every_epochs`-th epoch from `start_epoch` on; the target is due after `until_epoch` epochs.

    Args:
      start_epoch: the first epoch, from 0, after which filters may go.
      every_epochs: how many epochs lie between two rounds.
      until_epoch: the number of epochs after which the target is reached; None: two thirds of those of `fit`.

    Raises:
      OptionError: a value is no whole number in its range.
    """

    start_epoch: int = 0
    every_epochs: int = 1
    until_epoch: int | None = None

    def __post_init__(self):
        for name, least in (("start_epoch", 0), ("every_epochs", 1), ("until_epoch", 1)):
            value = getattr(self, name)
            if name != "until_epoch" or value is not None:
                check_whole(name, value, least)
        if self.until_epoch is not None and self.until_epoch <= self.start_epoch:
            raise OptionError(
                f"until_epoch={self.until_epoch} leaves no round after start_epoch={self.start_epoch}.",
                "until_epoch above start_epoch.",
                "Begin earlier or end later.",
            )

    def rounds(self, first: int, epochs: int) -> list[int]:
        """The epochs (from 0) after which filters go.

        Args:
          first: the epoch that `fit` begins with.
          epochs: the epoch that it ends before.
        """
        until = self.until_epoch
        if until is None:
            until = first + max(1, math.floor((epochs - first) * 2 / 3))
        begin = max(self.start_epoch, first if self.until_epoch is None else 0)
        until = max(until, begin + 1)
        due = list(range(until - 1, begin - 1, -self.every_epochs))[::-1]
        return due


def expected_share(target: float, place: int, count: int) -> float:
    """How much should be gone after round `place` (from 1) of `count`, in equal steps."""
    return target * place / count
