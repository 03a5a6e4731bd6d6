"""From scores, or similarities, to a decision that meets the budget and keeps the limits."""

from kprune.selection.budget import Budget, ChannelCount, chosen_target, make_budget
from kprune.selection.choose import select
from kprune.selection.limits import Bounds, Limits, bind, check_limits, matching
from kprune.selection.ranking import select_by_score
from kprune.selection.removal import Removal
from kprune.selection.similarity import (
    RELAXATION,
    Comparison,
    Round,
    next_ratio,
    select_by_similarity,
    select_in_one_round,
)
from kprune.selection.widths import PRESETS, Preset, next_width

__all__ = [
    "PRESETS",
    "RELAXATION",
    "Bounds",
    "Budget",
    "ChannelCount",
    "Comparison",
    "Limits",
    "Preset",
    "Removal",
    "Round",
    "bind",
    "check_limits",
    "chosen_target",
    "make_budget",
    "matching",
    "next_ratio",
    "next_width",
    "select",
    "select_by_score",
    "select_by_similarity",
    "select_in_one_round",
]
