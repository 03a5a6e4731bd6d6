"""The smaller (or masked) model: rebuilt node by node, its weights and optimizer slots sliced."""

import logging
from collections import defaultdict
from collections.abc import Callable

import keras
import numpy as np

from kprune.compat import cloning, inlining, optimizers
from kprune.compat.functional import flatten, is_layer, is_model, is_sequential, run, time_distributed, transparent
from kprune.compat.quirks import misplaces_bias
from kprune.compat.training import clone_object, compile_arguments
from kprune.compat.variables import after_assignment, copy_trainable, to_numpy
from kprune.graph import Graph, SlicedWeight, calls_by_operation
from kprune.rules import find_rule
from kprune.rules.channels import Barrier
from kprune.surgery.masks import weight_mask, wrap

logger = logging.getLogger("kprune")


class Rebuilder:
    """Makes a model like the traced one under a decision.

    Args:
      graph: the traced model; read only.
      keep: bool, one per channel set.
      masked: whether to keep all shapes and wrap what loses channels in `MaskedLayer`, in the place of removing.
      values: repaired weights, by the id of the variable that they stand for, not yet sliced.
    """

    def __init__(self, graph: Graph, keep: np.ndarray, masked: bool = False, values: dict | None = None):
        self.graph, self.keep, self.masked, self.values = graph, np.asarray(keep), masked, values or {}
        self.kept = graph.kept(np.ones_like(self.keep) if masked else self.keep)
        self.first_call = {owner: calls[0] for owner, calls in calls_by_operation(graph).items()}
        self.call_of = {id(call.arguments): call for call in reversed(graph.calls)}
        self.weights_of: dict[int, list[SlicedWeight]] = defaultdict(list)
        for weight in graph.weights:
            self.weights_of[id(weight.layer)].append(weight)
        self.made: dict[int, object] = {}
        self.pairs: list[tuple[object, object]] = []
        self.models: list[tuple[object, object]] = []
        self.zeros = cloning.ZeroInitializers()

    def build(self):
        """The new model, with sliced or masked weights, not compiled."""
        try:
            model = self.model(self.graph.model)
        finally:
            self.zeros.restore()
        for old, new in self.pairs:
            self.copy(old, new)
        for old, new in self.models[::-1] + self.pairs:
            copy_trainable(old, new)
        return model

    def misplaced_biases(self) -> list[str]:
        """Layers that this Keras computes wrongly at their new width, and did not at their old one."""
        paths = []
        for call in self.graph.calls if misplaces_bias() else ():
            first = getattr(call.operation, "data_format", None) == "channels_first"
            if first and getattr(call.operation, "use_bias", False):
                ids, shape = call.ids_out[0], call.output_shapes[0]
                width = self.kept.size(ids, len(shape) - 1, shape[-1])
                if shape[1] != shape[-1] and width == self.kept.size(ids, 1, shape[1]) > 1:
                    paths.append(call.path)
        return paths

    def model(self, like, tensors: list | None = None):
        """A model, or a nested one of the same kind and name that takes tensors of the shapes of `tensors`."""
        new = self.rebuilt(like, tensors)
        self.models.append((like, new))
        return new

    def rebuilt(self, like, tensors: list | None):
        function = self.graph.inside[id(like)]
        inputs = cloning.clone_inputs(function, tensors)
        if is_sequential(like):
            return self.sequential(like, inputs)
        outputs = run(function, flatten(inputs), self.apply)
        same_class = function is like  # else its own call is in it
        return cloning.make_model(like, inputs, outputs, self.name_of(like), same_class)

    def name_of(self, old) -> str:
        """What an operation is called from now on: as in the graph's calls."""
        return self.graph.renamed.get(id(old), old.name)

    def apply(self, node, args: tuple, kwargs: dict):
        """One node of the new graph."""
        operation = self.operation(node.operation, flatten((args, kwargs)))
        if self.is_opened(node.operation) and not is_model(node.operation):
            return operation(inlining.handed_over(args, kwargs))
        call = self.call_of.get(id(node.arguments))
        if call is not None:
            args, kwargs = unless_stopped(
                find_rule(call.operation).pruned_arguments, (args, kwargs), call, self.kept, args, kwargs
            )
        return operation(*args, **kwargs)

    def operation(self, old, tensors: list):
        """The new layer or operation for an old one, the same for each of its calls; `tensors` are the first's."""
        if id(old) not in self.made:
            if self.is_opened(old):
                given = [x for x in tensors if isinstance(x, keras.KerasTensor)]
                self.made[id(old)] = self.model(old, given[: len(self.graph.inside[id(old)].inputs)])
            elif time_distributed(old) is not None:
                self.made[id(old)] = self.distributed(old, tensors)
            else:
                self.made[id(old)] = self.clone(transparent(old))
        return self.made[id(old)]

    def is_opened(self, old) -> bool:
        """Whether an operation is made again from its graph: a nested model, or a layer made of others that loses
        channels (and comes back as a model of the same name, for its class could not hold the smaller layers).
        """
        if id(old) not in self.graph.inside or is_model(old):
            return id(old) in self.graph.inside
        layers = {id(layer) for layer in old._flatten_layers()}
        return any(id(weight.layer) in layers and weight.masks(self.keep) for weight in self.graph.weights)

    def sequential(self, like, inputs):
        """A Sequential model whose layers are made one after the other, each for what the one before gives."""
        x, made = inputs, []
        for layer in like.layers:
            made.append(self.operation(layer, flatten(x)))
            x = made[-1](x)
        return cloning.make_sequential(inputs, made, self.name_of(like))

    def distributed(self, old, tensors: list):
        """A `TimeDistributed` around the new layer or model."""
        config = {name: value for name, value in old.get_config().items() if name != "layer"}
        moment = [keras.KerasTensor((None, *x.shape[2:]), x.dtype) for x in tensors if isinstance(x, keras.KerasTensor)]
        new = type(old)(self.operation(old.layer, moment), **config)
        self.models.append((old, new))
        return new

    def clone(self, old):
        call = self.first_call.get(id(old))
        config = cloning.config_of(old)
        if call is not None:
            config = unless_stopped(find_rule(old).pruned_config, config, call, self.kept)
        if "name" in config:
            config = {**config, "name": self.name_of(old)}
        if not self.masked and any(weight.masks(self.keep) for weight in self.weights_of[id(old)]):
            config = cloning.without_arrays(config)
        new = cloning.clone_operation(old, config)
        if is_layer(old):
            self.zeros.cover(new)
            self.pairs.append((old, new))
            if self.masked:
                return wrap(new, self.weights_of[id(old)], self.keep)
        return new

    def copy(self, old, new):
        """Assigns the sliced variables of a layer and of all layers inside it."""
        sliced = {id(w.variable): w for w in self.weights_of[id(old)]}
        for source, target in zip(old.variables, new.variables, strict=True):
            value = self.values.get(id(source))
            value = to_numpy(source) if value is None else value
            weight = sliced.get(id(source))
            target.assign(value if weight is None else self.shrink(weight, value))
        after_assignment(new)

    def shrink(self, weight: SlicedWeight, value: np.ndarray) -> np.ndarray:
        """A variable, or an optimizer slot of its shape, after removal (or masking)."""
        if self.masked:
            return value * weight_mask(weight, self.keep).astype(value.dtype)
        for axis, mask in weight.masks(self.keep):
            value = np.compress(mask, value, axis=axis)
        return value

    def twins(self) -> list[tuple[object, object, SlicedWeight | None]]:
        """Every variable of the old model with that of the new one, and how it is sliced."""
        sliced = {id(w.variable): w for w in self.graph.weights}
        return [
            (source, target, sliced.get(id(source)))
            for old, new in self.pairs
            for source, target in zip(old.variables, new.variables, strict=True)
        ]


def unless_stopped(change: Callable, unchanged, *args):
    """What a rule makes of a config or of arguments; at a barrier they stay as they are."""
    try:
        return change(*args)
    except Barrier:
        return unchanged


def rebuild(graph: Graph, keep: np.ndarray, masked: bool = False, values: dict | None = None, compiled: bool = True):
    """A new model under a decision, compiled as the old one was, its optimizer state sliced with the weights.

    Args:
      graph: the traced model; read only.
      keep: bool, one per channel set.
      masked, values: see `Rebuilder`.
      compiled: whether it is compiled as the old one was; not, where it is a step on the way.

    Returns:
      A `keras.Model`.
    """
    rebuilder = Rebuilder(graph, keep, masked, values)
    model = rebuilder.build()
    for path in rebuilder.misplaced_biases():
        logger.warning(
            "'%s' has now as many filters as its output is wide, and where channels come first this Keras adds such a "
            "bias along the width, which makes the outputs wrong. Expected: Another width. Fix: Prune with "
            "channels_last, another target or Limits(round_to=...), or run the model on JAX or PyTorch.",
            path,
        )
    if compiled:
        compile_alike(graph.model, model, rebuilder)
    return model


def compile_alike(old, new, rebuilder: Rebuilder):
    """Compiles the new model as the old one and fills its optimizer slots."""
    arguments = compile_arguments(old)
    if arguments is None:
        return
    new.compile(**{name: clone_object(value) for name, value in arguments.items()})
    if getattr(old, "optimizer", None) is None or not old.optimizer.built:
        return
    twins = rebuilder.twins()
    weight_of = {id(target): weight for _, target, weight in twins}
    reference = optimizers.build_optimizer(new.optimizer, new.trainable_variables)
    for source, target in zip(old.optimizer.variables, new.optimizer.variables, strict=True):
        value = to_numpy(source)
        weight = weight_of.get(id(reference.get(id(target))))
        value = value if weight is None else rebuilder.shrink(weight, value)
        if value.shape == tuple(target.shape):
            target.assign(value)
    twin_of = {id(source): target for source, target, _ in twins}
    optimizers.copy_decay_exclusions(old.optimizer, new.optimizer, twin_of)
