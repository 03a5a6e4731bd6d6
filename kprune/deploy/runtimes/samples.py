"""Batches of model inputs: from what users pass, or drawn at random."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from kprune.graph.batches import require_end
from kprune.utils.errors import OptionError

Samples = dict[str, np.ndarray]


class InputSpec(NamedTuple):
    """One input of a model or file: its name, its shape without the sample axis (None = any size), its dtype."""

    name: str
    shape: tuple
    dtype: str


def gather_samples(data, inputs: list[InputSpec], option: str) -> Samples:
    """Reads everything that `data` holds into one array per input.

    Args:
      data: for one input an array, or an `(x, y)` tuple whose labels are dropped; for several a list or tuple of arrays
        in the order of `inputs`, or a dict by input name; or an iterable of batches, each of them one of these.
      inputs: what the model expects.
      option: the argument that the user passed the data in, for messages.

    Returns:
      One array per input name, sample axis first, with the dtype of the input.

    Raises:
      OptionError: the data is empty, endless or not finite, or its shapes, dtypes or names do not fit the inputs.

    Example:
      >>> gather_samples(np.zeros((4, 8)), [InputSpec("x", (8,), "float32")], "check_data")["x"].shape
      (4, 8)
    """
    batches = [
        {spec.name: _fitted(batch[spec.name], spec, option) for spec in inputs}
        for batch in (_by_name(part, inputs, option) for part in _parts(data, inputs, option))
    ]
    samples = {spec.name: np.concatenate([batch[spec.name] for batch in batches]) for spec in inputs if batches}
    counts = {name: len(array) for name, array in samples.items()}
    if not counts or 0 in counts.values():
        raise OptionError(f"{option} holds no samples.", "At least one sample.", f"Pass {option} with some inputs.")
    if len(set(counts.values())) > 1:
        raise OptionError(
            f"{option} has unequal counts: {counts}.", "One array per input, equally long.", "Align them."
        )
    return samples


def random_samples(inputs: list[InputSpec], count: int, seed: int = 0) -> Samples:
    """Draws inputs: normal for floats, 0..255 for uint8, 0 or 1 for other integers and booleans.

    Raises:
      OptionError: an input has an axis of no fixed size.
    """
    rng = np.random.default_rng(seed)
    samples = {}
    for spec in inputs:
        if None in spec.shape:
            raise OptionError(
                f"Input {spec.name!r} has shape {spec.shape}, so no random sample can be drawn.",
                "An input of fixed size.",
                "Pass data (check_data in an export), or give the model a fixed input size.",
            )
        shape = (count, *spec.shape)
        if np.issubdtype(spec.dtype, np.floating):
            samples[spec.name] = rng.normal(size=shape).astype(spec.dtype)
        else:
            samples[spec.name] = rng.integers(0, 256 if spec.dtype == "uint8" else 2, size=shape).astype(spec.dtype)
    return samples


def in_batches(samples: Samples, rows: int) -> Iterator[Samples]:
    """Batches of exactly `rows` samples; the last sample is repeated to fill the last batch."""
    count = len(next(iter(samples.values())))
    for start in range(0, count, rows):
        index = np.minimum(np.arange(start, start + rows), count - 1)
        yield {name: array[index] for name, array in samples.items()}


def map_batches(call: Callable[[Samples], Samples], samples: Samples, rows: int) -> Samples:
    """Calls `call` on batches of exactly `rows` samples and joins what it gives, one row for each sample."""
    count = len(next(iter(samples.values())))
    results = [call(batch) for batch in in_batches(samples, rows)]
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in results])[:count] for name in results[0]}


def _is_array(value) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _parts(data, inputs: list[InputSpec], option: str) -> Iterable:
    """The batches of `data`; data that is not an iterable of batches is one batch."""
    one_list = isinstance(data, list) and len(inputs) > 1 and all(map(_is_array, data))
    if one_list or _is_array(data) or isinstance(data, (dict, tuple)):
        return [data]
    require_end(data, option)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[index] for index in range(len(data)))
    if hasattr(data, "__iter__"):
        return data
    raise _not_arrays(data, inputs, option)


def _by_name(batch, inputs: list[InputSpec], option: str) -> dict:
    """One batch as a dict by input name, labels dropped."""
    names = [spec.name for spec in inputs]
    if isinstance(batch, dict):
        if set(batch) != set(names):
            raise OptionError(
                f"{option} has the keys {sorted(map(str, batch))}.",
                f"The inputs {names}.",
                "Pass one array per input, by its name.",
            )
        return batch
    if _is_array(batch) and len(inputs) == 1:
        return {names[0]: batch}
    if isinstance(batch, (list, tuple)) and len(batch):
        if len(inputs) > 1 and len(batch) == len(inputs) and all(map(_is_array, batch)):
            return dict(zip(names, batch, strict=True))
        if len(inputs) == 1 or not _is_array(batch[0]):
            return _by_name(batch[0], inputs, option)
    raise _not_arrays(batch, inputs, option)


def _not_arrays(value, inputs: list[InputSpec], option: str) -> OptionError:
    names = [spec.name for spec in inputs]
    return OptionError(
        f"{option} gives a {type(value).__name__} for the inputs {names}.",
        "One array for each input, or batches of them.",
        "Pass an array for one input, a list or a dict of arrays for several, or a dataset.",
    )


def _fitted(value, spec: InputSpec, option: str) -> np.ndarray:
    """`value` as an array of the shape and dtype of `spec`."""
    array = np.asarray(value)
    shape_fits = array.ndim == len(spec.shape) + 1 and all(
        want in (None, have) for want, have in zip(spec.shape, array.shape[1:], strict=True)
    )
    if not shape_fits:
        want = ", ".join(["samples", *("any" if size is None else str(size) for size in spec.shape)])
        raise OptionError(
            f"{option} for the input {spec.name!r} has shape {array.shape}.",
            f"({want}).",
            "Pass inputs as the model takes them, sample axis first.",
        )
    with np.errstate(all="ignore"):
        fitted = array.astype(spec.dtype) if array.dtype.kind in "biuf" else None
    whole = fitted is None or np.issubdtype(spec.dtype, np.floating) or np.array_equal(fitted, array)
    if fitted is None or not whole:
        raise OptionError(
            f"{option} for the input {spec.name!r} has dtype {array.dtype}, with values it cannot take.",
            f"Numbers that fit {spec.dtype}.",
            "Convert the array first.",
        )
    if not np.isfinite(fitted).all():
        raise OptionError(
            f"{option} for the input {spec.name!r} holds NaN or infinity.",
            f"Finite {spec.dtype} numbers.",
            "Clean the data first.",
        )
    return fitted
