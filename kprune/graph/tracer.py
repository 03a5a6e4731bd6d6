"""Traces a model: carries channel ids through all operations, nested ones included, in one pass."""

import math
from collections import defaultdict
from dataclasses import replace
from itertools import count

import keras

from kprune.compat import inlining
from kprune.compat.functional import functional, is_layer, is_model, nodes, time_distributed, transparent
from kprune.compat.variables import variables_by_name
from kprune.graph.graph import Graph, SlicedWeight
from kprune.graph.naming import Names
from kprune.rules import Call, FoldTime, NoRule, PassThrough, Rule, UnfoldTime, Weight, find_rule
from kprune.rules.channels import Barrier, Channels, ChannelSets, Tensor

INPUT_REASON = "it is a model input"
OUTPUT_REASON = "it is a model output"


class Tracer:
    """Carries channel ids through a graph, in one pass."""

    def __init__(self):
        self.channels, self.names = Channels(), Names()
        self.places = count()
        self.calls: list[Call] = []
        self.weights: dict[tuple[int, str], tuple[Call, Weight]] = {}
        self.barriers: dict[str, str] = {}
        self.resized: dict[int, Call] = {}
        self.inside: dict[int, object] = {}
        self.signatures: dict[int, set[str]] = defaultdict(set)
        self.entries: dict[int, list[Tensor]] = {}
        self.moments = 1.0

    def run(self, function, tensors: list[Tensor], scope: str = "", given: list | None = None) -> list[Tensor]:
        """Traces one graph, nested ones included, from its inputs to its outputs; a nested one as called on `given`."""
        known = {id(symbol): tensor for symbol, tensor in zip(function.inputs, tensors, strict=True)}
        sized = {} if given is None else inlining.sizes_inside(function, given)
        for node in nodes(function):
            if any(id(x) not in known for x in node.inputs):
                continue
            inputs, outputs = ([sized.get(id(x), x) for x in side] for side in (node.inputs, node.outputs))
            here = node._replace(inputs=inputs, outputs=outputs)
            outputs = self.step(here, [known[id(x)] for x in node.inputs], scope)
            known.update((id(x), tensor) for x, tensor in zip(node.outputs, outputs, strict=True))
        return [known[id(x)] for x in function.outputs]

    def step(self, node, tensors: list[Tensor], scope: str) -> list[Tensor]:
        path = scope + self.names.of(scope, node.operation)
        if time_distributed(node.operation) is not None:
            return self.distribute(node, tensors, path + "/")
        inside = self.open(node)
        if inside is not None:
            tensors = tensors[: len(inside.inputs)]  # behind them are masks
            self.enter(node.operation, tensors)
            self.names.enter(path + "/", scope, is_model(node.operation))
            return self.run(inside, tensors, path + "/", node.inputs[: len(inside.inputs)])
        shapes = [tuple(tuple(x.shape) for x in side) for side in (node.inputs, node.outputs)]
        places = tuple(next(self.places) for _ in node.outputs)
        ids, ins, resting = (tuple(getattr(t, name) for t in tensors) for name in ("ids", "place", "rests"))
        operation = transparent(node.operation)
        call = Call(operation, path, node.arguments, *shapes, ids, (), ins, places, resting)
        rule = find_rule(operation)
        if isinstance(rule, NoRule) and inlining.passes(node):
            rule = PassThrough()
        try:
            call = self.apply(rule, call)
            rests = rule.zero_if_removed(call)
        except Barrier as barrier:
            call, rests = self.stop(rule, call, str(barrier)), True
        self.calls.append(call)
        if rule.config_holds_channels:
            self.agree(call)
        return [Tensor(ids, place, rests) for ids, place in zip(call.ids_out, places, strict=True)]

    def open(self, node):
        """The graph inside a nested model, or inside a layer made of others that has no rule; else None."""
        operation = node.operation
        if id(operation) not in self.inside:
            if is_model(operation):
                self.inside[id(operation)] = functional(operation)
            elif is_layer(operation) and isinstance(find_rule(transparent(operation)), NoRule):
                arguments = inlining.arguments_like(node) if len(self.signatures[id(operation)]) == 1 else None
                opened = None if arguments is None else inlining.open_layer(operation, *arguments)
                inlining.note_calls(opened, self.signatures, self.inside)
                self.inside[id(operation)] = opened
        return self.inside.get(id(operation))

    def enter(self, operation, tensors: list[Tensor]):
        """A model called again takes tensors of the same sizes."""
        first = self.entries.setdefault(id(operation), tensors)
        for one, other in zip(first, tensors, strict=True):
            self.channels.tie(one.ids, other.ids)

    def distribute(self, node, tensors: list[Tensor], scope: str) -> list[Tensor]:
        """The layer or model inside a `TimeDistributed`, between a fold and an unfold of the axis of time."""
        inner, moments = node.operation.layer, node.inputs[0].shape[1]
        before, after = (keras.KerasTensor((None, *x.shape[2:]), x.dtype) for x in (node.inputs[0], node.outputs[0]))
        outer, self.moments = self.moments, self.moments * (math.nan if moments is None else moments)
        folded = self.step(node._replace(operation=FoldTime(), outputs=[before]), tensors, scope)
        made = self.step(node._replace(operation=inner, inputs=[before], outputs=[after]), folded, scope)
        self.moments = outer
        unfold = node._replace(operation=UnfoldTime(), inputs=[after, *node.inputs])
        return self.step(unfold, [*made, *tensors], scope)

    def apply(self, rule: Rule, call: Call) -> Call:
        call = replace(call, ids_out=tuple(rule.output_ids(call, self.channels)))
        for weight in rule.sliced_weights(call):
            self.slice(call, weight)
        return call

    def stop(self, rule: Rule, call: Call, reason: str) -> Call:
        """A barrier: its inputs are frozen; it may still write channels of its own."""
        reason = f"'{call.path}' is a barrier: {reason}"
        self.barriers[call.path] = reason
        for ids in call.ids_in:
            self.channels.freeze(ids, reason)
        frozen = tuple(self.channels.frozen(len(shape), reason) for shape in call.input_shapes)
        try:
            return self.apply(rule, replace(call, ids_in=frozen, stopped=True))
        except Barrier:
            return replace(
                call, stopped=True, ids_out=tuple(self.channels.frozen(len(s), reason) for s in call.output_shapes)
            )

    def slice(self, call: Call, weight: Weight):
        """Records a sliced variable; in a layer called again, ties its axes to those of the first call."""
        key = (call.owner, weight.name)
        weight = replace(weight, uses=weight.uses * self.moments)
        if key not in self.weights:
            self.weights[key] = (call, weight)
            return
        first_call, first = self.weights[key]
        for one, other in zip(first.axes, weight.axes, strict=True):
            if one is not None and other is not None:
                self.channels.tie(one, other)
        self.weights[key] = (first_call, replace(first, uses=first.uses + weight.uses))

    def agree(self, call: Call):
        """An operation whose arguments hold numbers of channels must resize alike in all its calls."""
        first = self.resized.setdefault(call.owner, call)
        if first is not call:
            for one, other in zip(first.ids_in + first.ids_out, call.ids_in + call.ids_out, strict=True):
                self.channels.tie(one, other)


def trace(model, given: list | None = None) -> Graph:
    """Traces a functional or Sequential model.

    Args:
      model: a built `keras.Model`; it is only read.
      given: symbolic inputs of a fixed size, for a model that takes inputs of any; None: as the model has them.

    Returns:
      The `Graph`.

    Raises:
      ModelError: the model has no graph.
    """
    function = inlining.graph_of(model)
    tracer = Tracer()
    inlining.note_calls(function, tracer.signatures, tracer.inside)
    tracer.inside[id(model)] = function
    inputs = [Tensor(tracer.channels.frozen(len(x.shape), INPUT_REASON), next(tracer.places)) for x in function.inputs]
    outputs = tracer.run(function, inputs, given=given)
    for tensor in outputs:
        tracer.channels.freeze(tensor.ids, OUTPUT_REASON)
    sets = tracer.channels.resolve()
    weights = [resolve(call, weight, sets) for call, weight in tracer.weights.values()]
    ends = tuple(tensor.place for tensor in outputs)
    inside = {key: found for key, found in tracer.inside.items() if found is not None}
    renamed = tracer.names.changed()
    return Graph(model, tuple(tracer.calls), sets, tuple(weights), tracer.barriers, ends, inside, renamed)


def resolve(call: Call, weight: Weight, sets: ChannelSets) -> SlicedWeight:
    """A recorded weight with channel sets in the place of ids."""
    shape = tuple(variables_by_name(call.operation)[weight.name].shape)
    axes = tuple(None if ids is None else sets.set_of[ids] for ids in weight.axes)
    return SlicedWeight(call.path, call.operation, weight.name, shape, axes, weight.uses, weight.reads, weight.writes)
