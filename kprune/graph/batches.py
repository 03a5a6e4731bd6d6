"""Batches from whatever a user trains with: arrays, `tf.data`, `PyDataset`, torch loaders, any iterable of batches."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np

from kprune.compat.functional import input_names, output_names
from kprune.compat.variables import to_numpy
from kprune.utils.errors import OptionError

BATCH_SIZE = 128


class Batch(NamedTuple):
    """One batch.

    Attributes:
      inputs: an array per input of the model, in flat order.
      targets: what stood beside the inputs, as arrays in flat order; empty where nothing did.
    """

    inputs: tuple[np.ndarray, ...]
    targets: tuple[np.ndarray, ...]


def batches_of(data, batch_size: int = BATCH_SIZE, *, labels: bool = False, graph=None) -> Iterator[Batch]:
    """Iterates once over data in batches, whatever holds them.

    Args:
      data: images as an array `[n, ...]`; a tuple `(x, y)` or `(x, y, sample_weight)` of them; a list or dict of
        arrays for a model with several inputs; a `tf.data.Dataset`, `PyDataset`, torch `DataLoader`, or any iterable
        whose items are such batches.
      batch_size: images per batch, where `data` are arrays; else the batches are taken as they come.
      labels: whether targets are needed.
      graph: the traced model, by whose names dicts are read; without it, in the order of the keys.

    Weights of examples are left out: all count alike.

    Yields:
      `Batch`es.

    Raises:
      OptionError: there is no image, there are no labels though they are needed, or a dict has other names.

    Example:
      >>> next(batches_of((x, y), 32)).inputs[0].shape
      (32, 32, 32, 3)
    """
    found = False
    for item in _items(data, batch_size):
        batch = _batch(item, graph, labels)
        if not batch.inputs or not len(batch.inputs[0]):
            continue
        if labels and not batch.targets:
            raise OptionError("data has no labels.", "Images and labels: (x, y).", "Pass both.")
        found = True
        yield batch
    if not found:
        raise OptionError("data is empty.", "At least one image.", "Pass a few hundred images.")


def take(data, count: int, graph=None) -> tuple[np.ndarray, ...]:
    """Some images, in memory, one array per input of the model: the first of a stream, evenly spaced ones of arrays.

    Args:
      data, graph: see `batches_of`.
      count: how many at most.
    """
    parts, have = [], 0
    for batch in batches_of(spread(data, count), graph=graph):
        parts.append(tuple(x[: count - have] for x in batch.inputs))
        have += len(parts[-1][0])
        if have >= count:
            break
    sizes = {tuple(x.shape[1:] for x in part) for part in parts}
    if len(sizes) > 1:
        raise OptionError(
            f"data has images of several sizes: {sorted(sizes)[:3]}.",
            "One size.",
            "Resize or crop them, or pass batches of one size only.",
        )
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def spread(data, count: int):
    """Of arrays so many examples, evenly spaced, since they may be sorted by class; other data as they are."""
    if not _arrays(data) or _length(data) <= count:
        return data
    index = np.linspace(0, _length(data) - 1, count).astype(int)

    def pick(x):  # what is left out is never read: an array on disk may be larger than the memory
        return None if x is None else (x if isinstance(x, np.ndarray) else to_numpy(x))[index]

    return keras.tree.map_structure(pick, data)


def first_of(data):
    """As much of data as fits into one batch, as data: to find out early whether all can be used."""
    if _arrays(data):
        return spread(data, BATCH_SIZE)
    for item in _items(data, BATCH_SIZE):
        return [item] if isinstance(item, (tuple, dict)) else item
    return data


def check_kind(data):
    """Refuses what holds no data, or none at all, before it is read.

    Raises:
      OptionError: it is nothing that gives batches, or it is empty.
    """
    if _arrays(data):
        empty = not _length(data)
    elif isinstance(data, keras.utils.PyDataset):
        empty = data.num_batches == 0
    elif hasattr(data, "__iter__") and not isinstance(data, (str, bytes)):
        empty = False
        with contextlib.suppress(TypeError, NotImplementedError):  # a dataset need not know its length
            empty = len(data) == 0
    else:
        raise OptionError(
            f"data is a {type(data).__name__}.",
            "Arrays, a dataset, or an iterable of batches.",
            "Pass images, (images, labels), or what you pass to fit.",
        )
    if empty:
        raise OptionError("data is empty.", "At least one image.", "Pass a few hundred images.")


def require_rereadable(data):
    """Refuses data that are gone once they were read.

    Raises:
      OptionError: data are an iterator, such as a generator.
    """
    if hasattr(data, "__next__"):
        raise OptionError(
            f"data is a {type(data).__name__}, which can be read only once.",
            "Data that can be read again: by the criterion in every round, and for the repair.",
            "Pass arrays, a tf.data.Dataset, a PyDataset, a DataLoader or a list of batches.",
        )


def is_endless(data) -> bool:
    """Whether a `tf.data.Dataset` or `PyDataset` says of itself that it never ends."""
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    return hasattr(data, "cardinality") and int(data.cardinality()) == -1


def require_end(data, option: str = "data"):
    """Refuses data that never end.

    Raises:
      OptionError: they say so themselves; of a generator nobody knows.
    """
    if is_endless(data):
        raise OptionError(f"{option} never ends.", "A finite dataset.", f"Pass {option}=dataset.take(100).")


def require_finite(who: str, arrays):
    """Checks that numbers are numbers; an activation may hide NaN on its way from the data to the outputs.

    Raises:
      OptionError: some are NaN or infinity.
    """
    if not all(np.isfinite(x).all() for x in arrays if x.dtype.kind == "f"):
        raise OptionError(
            f"{who} NaN or infinity.",
            "Finite images, and weights for which the model computes finite numbers.",
            "Look for NaN in the data, and scale the images as in training.",
        )


def check_inputs(graph, arrays: tuple[np.ndarray, ...]):
    """Refuses images that the model of a traced graph cannot take.

    Raises:
      OptionError: the number of inputs, or a shape, is another than the model's.
    """
    expected = [tuple(x.shape)[1:] for x in graph.inside[id(graph.model)].inputs]
    given = [tuple(x.shape)[1:] for x in arrays]
    fits = len(given) == len(expected) and all(
        len(a) == len(b) and all(n in (None, m) for m, n in zip(a, b, strict=True))
        for a, b in zip(given, expected, strict=True)
    )
    if not fits:
        raise OptionError(
            f"data has examples of shape {given}.",
            f"What '{graph.model.name}' takes: {expected}.",
            "Pass images as they go into model.predict.",
        )


def _is_array(value) -> bool:
    return hasattr(value, "shape") and hasattr(value, "__getitem__")


def examples_in(data) -> int | None:
    """How many examples data hold, where they are arrays."""
    return _length(data) if _arrays(data) else None


def _in_order(given: dict, names: list[str], what: str) -> list:
    """The values of a dict as a list, by the names of the model, as `fit` takes them."""
    if len(given) == len(names) == 1:
        return list(given.values())
    if not given.keys() >= set(names):
        raise OptionError(
            f"data has a dict of {what} with the keys {sorted(map(str, given))}.",
            f"The model's {what}: {names}.",
            "Give one array for each, by its name.",
        )
    return [given[name] for name in names]


def _list_of_batches(data) -> bool:
    return isinstance(data, list) and bool(data) and isinstance(data[0], (tuple, dict))


def _arrays(data) -> bool:
    """Whether data are arrays as `fit` takes them, rather than something that gives batches."""
    if _list_of_batches(data):
        return False
    if isinstance(data, (tuple, list, dict)):
        leaves = keras.tree.flatten(data)
        return bool(leaves) and all(x is None or _is_array(x) for x in leaves)
    return _is_array(data)


def _length(arrays) -> int:
    """How many examples arrays hold.

    Raises:
      OptionError: not all hold as many.
    """
    sizes = {len(x) for x in keras.tree.flatten(arrays) if x is not None}
    if len(sizes) > 1:
        raise OptionError(
            f"The arrays of data have {sorted(sizes)} examples.",
            "As many in each.",
            "Pass arrays that belong together.",
        )
    return sizes.pop() if sizes else 0


def _items(data, batch_size: int) -> Iterator:
    """Batches in the form that `fit` takes: x, (x, y) or (x, y, sample_weight)."""
    if isinstance(data, keras.utils.PyDataset):
        places = itertools.count() if is_endless(data) else range(data.num_batches)
        yield from (_unlisted(data[index]) for index in places)
    elif _list_of_batches(data):
        yield from data
    elif _arrays(data):
        for start in range(0, _length(data), batch_size):
            part = slice(start, start + batch_size)
            yield keras.tree.map_structure(lambda x, part=part: None if x is None else x[part], data)
    else:
        check_kind(data)
        from_torch = any(kind.__module__.startswith("torch.") for kind in type(data).__mro__)
        yield from map(_unlisted, data) if from_torch else data


def _unlisted(item):
    """A batch of something that may give (x, y) as a list, which `fit` takes as well."""
    return tuple(item) if isinstance(item, list) else item


def _of_rank(x: np.ndarray, shape: tuple) -> np.ndarray:
    """An array for an input of this shape, with or without a last axis of one, as `fit` and `predict` take it."""
    if x.ndim == len(shape) - 1 and shape[-1] == 1:
        return x[..., None]
    return x[..., 0] if x.ndim == len(shape) + 1 and x.shape[-1] == 1 else x


def _batch(item, graph, labels: bool) -> Batch:
    x, y = (item[0], item[1] if len(item) > 1 else None) if isinstance(item, tuple) else (item, None)
    function = None if graph is None else graph.inside[id(graph.model)]
    if function is not None and isinstance(x, dict):
        x = _in_order(x, input_names(function), "inputs")
    if function is not None and isinstance(y, dict) and labels:
        y = _in_order(y, output_names(function, y), "outputs")
    batch = Batch(*(tuple(to_numpy(a) for a in keras.tree.flatten(part) if a is not None) for part in (x, y)))
    if function is not None and len(batch.inputs) == len(function.inputs):
        adjusted = (_of_rank(x, symbol.shape) for x, symbol in zip(batch.inputs, function.inputs, strict=True))
        batch = batch._replace(inputs=tuple(adjusted))
    for array in (*batch.inputs, *batch.targets):
        if not array.ndim or array.dtype.kind in "OSU":
            shown = f"an array of {array.dtype}" if array.ndim else repr(array.item())
            raise OptionError(
                f"data holds {shown}.", "Arrays of numbers, the examples along the first axis.", "Pass images."
            )
    return batch
