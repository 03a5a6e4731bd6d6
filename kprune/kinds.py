"""What a layer is to a stop-watch: all that its time depends on but its widths."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np

from kprune.channels import Barrier, along
from kprune.graph import Graph
from kprune.rules import Call
from kprune.rules.base import channel_axis

layers = keras.layers


@dataclass(frozen=True)
class LayerKind:
    """A kind of layer; its sizes are in the order of the axes.

    Attributes:
      operation: "conv", "depthwise", "dense", "add", "multiply", "max_pool", "average_pool" or "mean" (all places).
      size: height and width of the input; for "dense" how many places it is applied at.
      kernel, strides, dilation: two numbers each, or none.
      padding: "same" or "valid", or "".
      operands: how many inputs an "add" or "multiply" has.
    """

    operation: str
    size: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: str = ""
    operands: int = 1

    @property
    def reads(self) -> bool:
        """Whether its numbers of channels in and out are two."""
        return self.operation in ("conv", "dense")

    @classmethod
    def from_json(cls, data: dict) -> "LayerKind":
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})

    def __str__(self) -> str:
        by = "x".join
        kernel = f" {by(map(str, self.kernel))}" if self.kernel else ""
        strides = f"/{by(map(str, self.strides))}" if math.prod(self.strides) > 1 else ""
        dilation = f" dilated {by(map(str, self.dilation))}" if math.prod(self.dilation) > 1 else ""
        return f"{self.operation}{kernel}{strides}{dilation} {self.padding} at {by(map(str, self.size))}".replace(
            "  ", " "
        )


@dataclass(frozen=True)
class PricedCall:
    """A call whose time is known by its kind and widths.

    Attributes:
      path: the layer.
      kind: its kind.
      sets_in, sets_out: the channel set of each channel; none in where the kind has one width.
    """

    path: str
    kind: LayerKind
    sets_in: np.ndarray = field(repr=False)
    sets_out: np.ndarray = field(repr=False)


def convolution(layer, size: tuple[int, ...], shapes) -> LayerKind | None:
    axis = channel_axis(layer, 4)
    inputs, outputs = shapes[0][axis], layer.filters
    if layer.groups not in (1, inputs) or (layer.groups > 1 and outputs != inputs):
        return None
    operation = "conv" if layer.groups == 1 else "depthwise"
    return LayerKind(operation, size, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)


def depthwise(layer, size: tuple[int, ...], shapes) -> LayerKind | None:
    if layer.depth_multiplier != 1:
        return None
    return LayerKind("depthwise", size, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)


def pooling(operation: str) -> Callable:
    return lambda layer, size, shapes: LayerKind(operation, size, layer.pool_size, layer.strides, (), layer.padding)


def merging(operation: str) -> Callable:
    def kind(layer, size: tuple[int, ...], shapes) -> LayerKind | None:
        alike = len(set(shapes)) == 1
        return LayerKind(operation, size, operands=len(shapes)) if alike and len(shapes) > 1 else None

    return kind


KINDS = {
    layers.Conv2D: convolution,
    layers.DepthwiseConv2D: depthwise,
    layers.MaxPooling2D: pooling("max_pool"),
    layers.AveragePooling2D: pooling("average_pool"),
    layers.GlobalAveragePooling2D: lambda layer, size, shapes: LayerKind("mean", size),
    layers.Add: merging("add"),
    layers.Multiply: merging("multiply"),
}


def describe(call: Call) -> LayerKind | None:
    """The kind of a call, or None where kprune cannot time it by itself."""
    layer, shapes = call.operation, [tuple(shape[1:]) for shape in call.input_shapes]
    if any(None in shape for shape in shapes):
        return None
    if type(layer) is layers.Dense:
        return LayerKind("dense", (math.prod(shapes[0][:-1]),))
    known = KINDS.get(type(layer))
    if known is None or len(shapes[0]) != 3:
        return None
    axis = channel_axis(layer, 4) - 1  # of a shape without the batch
    size = tuple(length for index, length in enumerate(shapes[0]) if index != axis)
    return known(layer, size, call.input_shapes)


def price(graph: Graph, call: Call) -> PricedCall | None:
    """A call with its kind and channel sets, or None where it has no kind."""
    kind = describe(call)
    if kind is None:
        return None
    sides = ((call.ids_in[0], call.input_shapes[0]), (call.ids_out[0], call.output_shapes[0]))
    try:
        sets_in, sets_out = (
            graph.sets.set_of[along(ids, axis, shape[axis])]
            for ids, shape in sides
            for axis in [channel_axis(call.operation, len(shape))]
        )
    except Barrier:
        return None
    return PricedCall(call.path, kind, sets_in if kind.reads else sets_in[:0], sets_out)


def priced_calls(graph: Graph) -> list[PricedCall]:
    """The calls of a traced model that have a kind, in order."""
    return [priced for priced in (price(graph, call) for call in graph.calls) if priced is not None]
