"""What kprune knows of each family of operations: one file a family, one class an operation."""

from kprune.rules import (  # noqa: F401  (importing registers the rules)
    convolution,
    dense,
    elementwise,
    merge,
    normalization,
    shape,
    spatial,
)
from kprune.rules.base import Call, Kept, Rule, Weight, find_rule, register_rule

__all__ = ["Call", "Kept", "Rule", "Weight", "find_rule", "register_rule"]
