"""The size of the inputs, for models that take inputs of any size: what their FLOPs are counted for."""

import dataclasses

import keras

from kprune.compat.functional import input_names
from kprune.graph.batches import batches_of, check_inputs, first_of
from kprune.graph.graph import Graph
from kprune.graph.tracer import trace
from kprune.utils.checks import is_whole
from kprune.utils.errors import OptionError

Shape = tuple[int, ...]


def takes_any_size(graph: Graph) -> bool:
    """Whether a size of an input is open, that of the batch aside."""
    return any(None in x.shape[1:] for x in graph.inside[id(graph.model)].inputs)


def check_shape(input_shape):
    """Refuses what is the shape of no input of any model.

    Raises:
      OptionError: it is neither whole numbers above zero, nor a list or dict of such.
    """
    given = input_shape.values() if isinstance(input_shape, dict) else input_shape
    if input_shape is None or is_shape(input_shape):
        return
    if not isinstance(input_shape, (list, tuple, dict)) or not input_shape or not all(map(is_shape, given)):
        raise OptionError(
            f"input_shape is {input_shape!r}.",
            "The shape of one example, without the batch; for several inputs a list of them, or a dict by name.",
            "Pass input_shape=(224, 224, 3).",
        )


def is_shape(given) -> bool:
    return isinstance(given, (list, tuple)) and bool(given) and all(is_whole(size, 1) for size in given)


def sizes_of(graph: Graph, input_shape=None, data=None) -> tuple[Shape, ...] | None:
    """The shapes of one example, one per input in flat order, as given or as the first batch of data has them.

    Args:
      graph: the traced model.
      input_shape: as the user gave it, or None.
      data: see `kprune.graph.batches.batches_of`, or None; what can be read only once is not looked at.

    Returns:
      The shapes; None where the model leaves none open, or nobody says them.

    Raises:
      OptionError: the model does not take inputs of that shape.
    """
    check_shape(input_shape)
    function = graph.inside[id(graph.model)]
    if input_shape is not None:
        shapes = in_order(input_shape, input_names(function))
        check_fit(graph, shapes)
        return shapes if takes_any_size(graph) else None
    if data is None or hasattr(data, "__next__") or not takes_any_size(graph):
        return None
    inputs = next(batches_of(first_of(data), graph=graph)).inputs
    check_inputs(graph, inputs)
    return tuple(tuple(x.shape[1:]) for x in inputs)


def in_order(input_shape, names: list[str]) -> tuple[Shape, ...]:
    """The shapes one per input, as the model has them in order."""
    if is_shape(input_shape):
        return (tuple(map(int, input_shape)),)
    if isinstance(input_shape, dict):
        if set(input_shape) != set(names):
            raise OptionError(
                f"input_shape has the keys {sorted(map(str, input_shape))}.", f"{names}.", "Give one shape for each."
            )
        input_shape = [input_shape[name] for name in names]
    return tuple(tuple(map(int, shape)) for shape in input_shape)


def check_fit(graph: Graph, shapes: tuple[Shape, ...]):
    """Refuses shapes that the inputs of a model do not have.

    Raises:
      OptionError: their number, a rank, or a size that is not open is another.
    """
    expected = [tuple(x.shape)[1:] for x in graph.inside[id(graph.model)].inputs]
    pairs = list(zip(shapes, expected, strict=False))
    fits = len(shapes) == len(expected) and all(
        len(a) == len(b) and all(n in (None, m) for m, n in zip(a, b, strict=True)) for a, b in pairs
    )
    if not fits:
        raise OptionError(
            f"input_shape is {list(shapes)}.",
            f"What '{graph.model.name}' takes: {expected}.",
            "Give the shape of one example, channels included.",
        )


def trace_with_sizes(graph: Graph, shapes: tuple[Shape, ...]) -> Graph:
    """The same model, traced for inputs of these shapes."""
    inputs = graph.inside[id(graph.model)].inputs
    given = [keras.KerasTensor((None, *shape), x.dtype) for shape, x in zip(shapes, inputs, strict=True)]
    return dataclasses.replace(trace(graph.model, given), sizes=shapes)


def with_sizes(graph: Graph, input_shape=None, data=None) -> Graph:
    """A graph whose FLOPs are counted for inputs of one size, where the model takes inputs of any; channel sets and
    decisions are those of the graph, so that what is made of it still takes inputs of any size.

    Args:
      graph, input_shape, data: see `sizes_of`.

    Raises:
      OptionError: the model does not take inputs of that shape.
    """
    shapes = sizes_of(graph, input_shape, data)
    if shapes is None:
        return graph
    uses = {(weight.path, weight.name): weight.uses for weight in trace_with_sizes(graph, shapes).weights}
    weights = (dataclasses.replace(w, uses=uses.get((w.path, w.name), w.uses)) for w in graph.weights)
    return dataclasses.replace(graph, weights=tuple(weights), sizes=shapes)


def words(shapes: tuple[Shape, ...]) -> str:
    """Shapes in words."""
    return ", ".join(" x ".join(map(str, shape)) for shape in shapes)
