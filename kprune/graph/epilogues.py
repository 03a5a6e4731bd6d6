"""What follows each layer: the BatchNorm that its output enters, and the sum that it ends in."""

from dataclasses import dataclass

import numpy as np

from kprune.graph.graph import Graph
from kprune.rules import find_rule


def following_scale(graph: Graph) -> dict[str, np.ndarray]:
    """For each layer followed by a BatchNorm, `gamma / sqrt(var + eps)` per filter."""
    reader = {call.inputs[0]: call for call in graph.calls if find_rule(call.operation).normalizes_channels}
    scales = {}
    for call in graph.calls:
        norm = reader.get(call.outputs[0]) if call.outputs else None
        if norm is not None:
            scales[call.path] = scale_of(norm.operation)
    return scales


@dataclass(frozen=True)
class Landing:
    """Where the output of a layer goes, as long as nobody else looks at it on the way.

    Attributes:
      norm: the call of the BatchNorm that it enters, or None.
      others: the places that it is then added to; empty where it is not.
      total: the place of that sum, or of what comes before it where there is none.
    """

    norm: object = None
    others: tuple[int, ...] = ()
    total: int | None = None


def landings(graph: Graph) -> dict[int, Landing]:
    """For the output place of each reader, its `Landing`."""
    users: dict[int, list] = {}
    for call in graph.calls:
        for place in call.inputs:
            users.setdefault(place, []).append(call)
    users.update((place, [*users.get(place, []), None]) for place in graph.ends)

    def only_user(place: int, kind):
        found = users.get(place, [])
        alone = len(found) == 1 and found[0] is not None
        return found[0] if alone and kind(find_rule(found[0].operation)) else None

    owners, found = {id(weight.layer) for weight in graph.readers}, {}
    for call in graph.calls:
        if call.owner in owners:
            place = call.outputs[0]
            norm = only_user(place, lambda rule: rule.normalizes_channels)
            place = place if norm is None else norm.outputs[0]
            addition = only_user(place, lambda rule: rule.adds)
            others = () if addition is None else tuple(p for p in addition.inputs if p != place)
            found[call.outputs[0]] = Landing(norm, others, place if addition is None else addition.outputs[0])
    return found


def scale_of(norm) -> np.ndarray:
    """What a BatchNorm multiplies each channel by, float64."""
    return find_rule(norm).channel_scale(norm)
