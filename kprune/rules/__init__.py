"""What kprune knows of each family of operations: one file a family, one class an operation."""

from kprune.rules import (  # noqa: F401  (importing registers the rules)
    attention,
    contraction,
    convolution,
    dense,
    elementwise,
    embedding,
    indexing,
    merge,
    normalization,
    recurrent,
    reduction,
    shape,
    spatial,
    time_distributed,
)
from kprune.rules.base import Call, Kept, NoRule, Rule, Weight, find_rule, register_rule
from kprune.rules.elementwise import PassThrough
from kprune.rules.operators import OperatorConfig
from kprune.rules.time_distributed import FoldTime, UnfoldTime

__all__ = [
    "Call",
    "FoldTime",
    "Kept",
    "NoRule",
    "OperatorConfig",
    "PassThrough",
    "Rule",
    "UnfoldTime",
    "Weight",
    "find_rule",
    "register_rule",
]
