"""From scores, or similarities, to a plan that meets the budget and keeps the limits."""

from kprune.selection.bounds import Bounds, bind
from kprune.selection.budget import Budget, ChannelCount, chosen_target, make_budget
from kprune.selection.by_score import select_by_score
from kprune.selection.by_similarity import (
    RELAXATION,
    Comparison,
    Round,
    next_ratio,
    select_by_similarity,
    select_in_one_round,
)
from kprune.selection.limits import Limits, check_limits, matching
from kprune.selection.plan import Plan, make_plan
from kprune.selection.removal import Removal
from kprune.selection.select import register_selection, select
from kprune.selection.widths import PRESETS, Preset, next_width

__all__ = [
    "PRESETS",
    "RELAXATION",
    "Bounds",
    "Budget",
    "ChannelCount",
    "Comparison",
    "Limits",
    "Plan",
    "Preset",
    "Removal",
    "Round",
    "bind",
    "check_limits",
    "chosen_target",
    "make_budget",
    "make_plan",
    "matching",
    "next_ratio",
    "next_width",
    "register_selection",
    "select",
    "select_by_score",
    "select_by_similarity",
    "select_in_one_round",
]
