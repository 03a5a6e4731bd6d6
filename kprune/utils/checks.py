"""Checks of arguments that several parts share."""

import math
import os

import numpy as np

from kprune.utils.errors import OptionError


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


def check_flag(option: str, value):
    """Refuses what is neither True nor False.

    Raises:
      OptionError: it is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise OptionError(f"{option} is {value!r}.", "True or False.", f"Pass {option}=True, or leave it out.")


def check_amount(option: str, value, above_zero: bool = True, unknown: bool = False):
    """Refuses what is no finite number above zero.

    Args:
      option, value: the option.
      above_zero: whether zero is refused as well.
      unknown: whether NaN says that nobody knows.

    Raises:
      OptionError: it is none.
    """
    known = is_number(value) and math.isfinite(value) and (value > 0 or (value == 0 and not above_zero))
    if not known and not (unknown and is_number(value) and math.isnan(value)):
        words = "above zero" if above_zero else "of at least zero"
        raise OptionError(f"{option} is {value!r}.", f"A number {words}.", "Pass a finite number.")


def check_path(option: str, value):
    """Refuses what is no path.

    Raises:
      OptionError: it is neither text nor a `pathlib.Path`.
    """
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise OptionError(f"{option} is {value!r}.", "The name of a file or folder.", "Pass a str or a pathlib.Path.")
