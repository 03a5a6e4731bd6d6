"""Checks of arguments that several parts share."""

import numpy as np

from kprune.errors import OptionError


def is_number(value) -> bool:
    """Whether a value is one real number, of Python or NumPy, and no boolean."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def is_whole(value, least: int) -> bool:
    """Whether a value is a whole number from `least` on, and no boolean."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least


def check_whole(option: str, value, least: int, example: int | None = None):
    """Refuses what is no whole number from `least` on; `example` is one that is told to pass.

    Raises:
      OptionError: it is none.
    """
    if not is_whole(value, least):
        raise OptionError(
            f"{option} is {value!r}.",
            f"A whole number of at least {least}.",
            f"Pass {option}={least if example is None else example}.",
        )


def check_share(option: str, value):
    """Refuses what is no share.

    Raises:
      OptionError: it is no number, or not in 0..1.
    """
    if not is_number(value) or not 0 <= value <= 1:
        raise OptionError(f"{option} is {value!r}.", "A share, 0..1.", "Pass 0.7 for 70 %.")
