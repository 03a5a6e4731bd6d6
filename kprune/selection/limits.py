"""What a user wants kept: layers left out, smallest widths, largest rates."""

import fnmatch
import math
from dataclasses import dataclass

import numpy as np

from kprune.graph import Graph
from kprune.graph.makers import makers
from kprune.selection.widths import check_rounding, rounded_widths
from kprune.utils.checks import check_share, check_whole
from kprune.utils.errors import OptionError


@dataclass(frozen=True)
class Limits:
    """Bounds that a plan keeps in every layer.

    Args:
      include: names, shell patterns or layers; only these lose filters. None means all.
      exclude: names, shell patterns or layers that lose none.
      min_channels: the fewest filters that a layer keeps.
      max_rate: the largest share of its filters that a layer may lose, 0..1, or None.
      round_to: a layer that loses filters keeps a multiple of this number, frozen filters counted; or the name of a
        preset, by which it keeps one of the widths that a runtime's kernels are made for: "litert", "litert-int8",
        "onnxruntime", "tensorrt-fp16" or "tensorrt-int8" (`kprune.selection.PRESETS`; docs/results/alignment.md: the
        measurements). A layer that has no such width below its number of filters loses none. The target is still met:
        where a layer stands between two widths it keeps the larger, and others lose more.

    Raises:
      OptionError: a value is out of range; a name that matches no layer is refused when the limits meet the model.

    Example:
      >>> kprune.Limits(exclude=["stem_*", model.get_layer("conv9")], min_channels=8, max_rate=0.7)
      >>> kprune.Limits(round_to=8)
      >>> kprune.Limits(round_to="litert-int8")
    """

    include: object = None
    exclude: object = ()
    min_channels: int = 1
    max_rate: float | None = None
    round_to: int | str = 1

    def __post_init__(self):
        check_whole("min_channels", self.min_channels, 1, example=8)
        check_rounding(self.round_to)
        if self.max_rate is not None:
            check_share("max_rate", self.max_rate)
        for name in ("include", "exclude"):
            check_names(name, getattr(self, name))

    def floor(self, filters: int) -> int:
        """The fewest of so many filters that must stay, before they are rounded."""
        by_rate = 0 if self.max_rate is None else math.ceil(filters * (1 - self.max_rate) - 1e-9)
        return min(filters, max(self.min_channels, by_rate))

    def widths(self, filters: int) -> np.ndarray:
        """Which numbers of filters a layer of so many may keep: bool `[filters + 1]`."""
        return rounded_widths(self.round_to, filters)


def check_limits(limits):
    """Refuses what are no limits.

    Raises:
      OptionError: they are not `Limits`, nor None.
    """
    if limits is not None and not isinstance(limits, Limits):
        raise OptionError(f"limits is {limits!r}.", "A kprune.Limits object.", "Pass kprune.Limits(min_channels=8).")


def check_names(option: str, given):
    """Refuses what names no layer.

    Raises:
      OptionError: an item is neither a string nor a layer, or `include` is empty.
    """
    items = given if isinstance(given, (list, tuple, set, frozenset)) else [given]
    if option == "include" and not items:
        raise OptionError("include is empty.", "Layers that may lose filters.", "Name one, or leave include out.")
    for item in items:
        if given is not None and not isinstance(item, str) and not isinstance(getattr(item, "name", None), str):
            raise OptionError(
                f"{option} holds {item!r}.", "Names, patterns such as 'stage1_*', or layers.", "Pass layer names."
            )


def as_patterns(given) -> list[str]:
    """Names and patterns from a string, a layer, or a list of both."""
    if given is None:
        return []
    items = given if isinstance(given, (list, tuple, set, frozenset)) else [given]
    return [item if isinstance(item, str) else item.name for item in items]


def matching(graph: Graph, patterns: list[str], option: str) -> set[str]:
    """The paths of the layers that make channels and that a list of patterns names.

    Raises:
      OptionError: a pattern matches no layer that makes channels.
    """
    paths = [made.path for made in makers(graph)]
    found: set[str] = set()
    for pattern in patterns:
        hits = {p for p in paths if fnmatch.fnmatchcase(p, pattern) or fnmatch.fnmatchcase(p.split("/")[-1], pattern)}
        if not hits:
            raise OptionError(
                f"{option} names '{pattern}', which matches no layer of '{graph.model.name}' that makes channels.",
                "The name of a conv or dense layer, or a pattern such as 'stage1_*'.",
                f"Layers are {', '.join(paths[:8])}{', ...' if len(paths) > 8 else ''}.",
            )
        found |= hits
    return found
