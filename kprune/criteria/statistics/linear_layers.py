"""Layers as matrix products: which readers are, and the images and positions at which their inputs are seen."""

from dataclasses import dataclass

import numpy as np

from kprune.compat.variables import to_numpy, variables_by_name
from kprune.cost import CostModel
from kprune.graph import Graph, SlicedWeight, calls_by_operation
from kprune.graph.batches import check_inputs, require_finite, take
from kprune.rules import find_rule
from kprune.rules.channels import spread
from kprune.rules.linear_maps import LinearMap, Places, choose_places

IMAGES = 1024  # at most so many are used
MEMORY = 2**31  # bytes of activations of two networks that may be held at once
ROWS_PER_FEATURE = 32
FEWEST_ROWS, MOST_ROWS = 4096, 16384


def images_for(graph: Graph, data) -> tuple[np.ndarray, ...]:
    """As many images as are used, one array per input of the model.

    Raises:
      OptionError: they are not of the model's shape, or hold NaN.
    """
    cost = CostModel(graph)
    each = 2 * cost.activation_bytes(cost.everything())
    count = IMAGES if np.isnan(each) else int(np.clip(MEMORY // max(each, 1), 16, IMAGES))
    images = take(data, count, graph)
    check_inputs(graph, images)
    require_finite("data hold", images)
    return images


def as_float(x) -> np.ndarray:
    return to_numpy(x).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Reader:
    """A kernel that is known as a matrix product, and how it acts."""

    weight: SlicedWeight
    linear: LinearMap

    @property
    def key(self) -> tuple[int, str]:
        return id(self.weight.layer), self.weight.name

    def positions(self, axis: int) -> np.ndarray:
        """The channel set of each element of the kernel along one of its axes: `[groups, features, filters]`."""
        along_axis = spread(self.weight.axes[axis], len(self.weight.shape), axis)
        return self.linear.matrix(self.weight.layer, np.broadcast_to(along_axis, self.weight.shape))


def linear_readers(graph: Graph) -> list[Reader]:
    """The readers that are known as matrix products, in the order of the graph."""
    calls, known = calls_by_operation(graph), {}
    for weight in graph.readers:
        call = calls[id(weight.layer)][0]
        known.update(((id(weight.layer), m.weight), m) for m in find_rule(call.operation).linear_maps(call))
    keys = ((weight, (id(weight.layer), weight.name)) for weight in graph.readers)
    return [Reader(weight, known[key]) for weight, key in keys if key in known]


def places_for(linear: LinearMap, layer, x: np.ndarray, y: np.ndarray, rng: np.random.Generator, calls=1) -> Places:
    """Output places by lot, so many for each feature that a fit is well determined, over all calls of the layer."""
    features = linear.matrix(layer, np.empty(variables_by_name(layer)[linear.weight].shape, np.int8)).shape[1]
    count = int(np.clip(ROWS_PER_FEATURE * features, FEWEST_ROWS, MOST_ROWS))
    return choose_places(rng, len(x), linear.map_shape(layer, x, y), -(-count // calls))
