"""Conv and dense layers as matrix products: each row is what one output place sees, each column a filter."""

import math
from dataclasses import dataclass

import keras
import numpy as np

from kprune.compat.variables import to_numpy, variables_by_name


@dataclass(frozen=True)
class Places:
    """Output places of a layer, so many of each example.

    Attributes:
      index: int `[examples, places]`, flat over the output map, the same number for each example.
      shape: the output map without batch and channels.
    """

    index: np.ndarray
    shape: tuple[int, ...]


def choose_places(rng: np.random.Generator, examples: int, shape: tuple[int, ...], rows: int) -> Places:
    """Output places by lot, without repetition, about `rows` over all examples together."""
    total = int(np.prod(shape))
    each = min(total, max(1, -(-rows // examples)))
    if each == total:
        return Places(np.tile(np.arange(total), (examples, 1)), shape)
    return Places(np.argpartition(rng.random((examples, total), dtype=np.float32), each - 1, axis=1)[:, :each], shape)


@dataclass(frozen=True)
class LinearMap:
    """How one kernel of a layer acts, as `Y = X W` for each group, biases and activations left out.

    Attributes:
      weight: the name of the variable that `W` is made of.
      bias: the name of the variable that is added to `Y`, where the layer has it.
      row: which part of that variable is added, as an index; all of it where it is empty.
      source: which of the tensors that the layer is called with is `X`.
      inside: whether `Y` stays inside, so that the layer's output does not show it.
    """

    weight: str = "kernel"
    bias: str = "bias"
    row: tuple[int, ...] = ()
    source: int = 0
    inside: bool = False

    def shown(self, layer) -> bool:
        """Whether the layer's output is `Y` plus the bias."""
        return not self.inside and getattr(layer, "activation", None) in (None, keras.activations.linear)

    def offset(self, layer, width: int) -> np.ndarray:
        """What is added to `Y`: float32, a number per filter."""
        bias = variables_by_name(layer).get(self.bias)
        return np.zeros(width, np.float32) if bias is None else np.ravel(to_numpy(bias)[self.row])

    def shift(self, layer, by: np.ndarray):
        """Adds a number per filter to the bias."""
        bias = variables_by_name(layer)[self.bias]
        value = np.array(to_numpy(bias), dtype=np.float32)
        value[self.row] += by.reshape(value[self.row].shape)
        bias.assign(value)

    def matrix(self, layer, kernel: np.ndarray) -> np.ndarray:
        """A kernel, or an array of its shape, as `[groups, features, filters of a group]`."""
        groups = getattr(layer, "groups", 1)
        columns = kernel.reshape(-1, groups, kernel.shape[-1] // groups)
        return np.moveaxis(columns, 1, 0)

    def kernel(self, layer, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The kernel again from `[groups, features, filters of a group]`."""
        return np.moveaxis(matrix, 0, 1).reshape(shape)

    def map_shape(self, layer, x: np.ndarray, y: np.ndarray) -> tuple[int, ...]:
        """The output map without batch and channels, in the order of the flat index of `Places`."""
        return channels_last(layer, y).shape[1:-1]

    def rows(self, layer, x: np.ndarray, places: Places) -> np.ndarray:
        """What the kernel is multiplied with at some output places: `[groups, rows, features]`."""
        raise NotImplementedError

    def outputs_at(self, layer, y: np.ndarray, places: Places) -> np.ndarray:
        """A tensor of the output's shape at the same places: `[rows, channels]`."""
        flat = channels_last(layer, y).reshape(len(y), -1, channels_last(layer, y).shape[-1])
        return np.take_along_axis(flat, places.index[:, :, None], axis=1).reshape(places.index.size, -1)


class DenseMap(LinearMap):
    """One row per vector along the last axis; whatever axes the kernel has behind its first make filters."""

    def matrix(self, layer, kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(1, len(kernel), -1)

    def kernel(self, layer, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return matrix.reshape(shape)

    def map_shape(self, layer, x: np.ndarray, y: np.ndarray) -> tuple[int, ...]:
        return x.shape[1:-1]

    def rows(self, layer, x: np.ndarray, places: Places) -> np.ndarray:
        flat = x.reshape(len(x), -1, x.shape[-1])
        return np.take_along_axis(flat, places.index[:, :, None], axis=1).reshape(1, -1, x.shape[-1])


class ConvolutionMap(LinearMap):
    """One row per patch, grouped convs with one matrix a group."""

    def rows(self, layer, x: np.ndarray, places: Places) -> np.ndarray:
        patches = gather(channels_last(layer, x), places, self.taps(layer, channels_last(layer, x).shape[1:-1], places))
        grouped = patches.reshape(*patches.shape[:2], getattr(layer, "groups", 1), -1)
        return np.moveaxis(grouped, 2, 0).reshape(grouped.shape[2], len(patches), -1)

    def taps(self, layer, sizes: tuple[int, ...], places: Places) -> list[np.ndarray]:
        """Per dimension, int `[output places, taps]`: the input place that each tap of the kernel meets, -1 outside."""
        found = []
        for axis, (size, length) in enumerate(zip(sizes, places.shape, strict=True)):
            kernel, stride, dilation = layer.kernel_size[axis], layer.strides[axis], layer.dilation_rate[axis]
            reach = (kernel - 1) * dilation
            before = {"valid": 0, "causal": reach}.get(layer.padding)
            if before is None:
                before = max((length - 1) * stride + reach + 1 - size, 0) // 2
            index = np.arange(length)[:, None] * stride + np.arange(kernel) * dilation - before
            found.append(np.where((index >= 0) & (index < size), index, -1))
        return found


class TransposedMap(ConvolutionMap):
    """One row per patch of the input that an output place is made of, zero where the stride leaves a hole."""

    def matrix(self, layer, kernel: np.ndarray) -> np.ndarray:
        return super().matrix(layer, np.swapaxes(kernel, -1, -2))

    def kernel(self, layer, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return np.swapaxes(super().kernel(layer, matrix, (*shape[:-2], shape[-1], shape[-2])), -1, -2)

    def taps(self, layer, sizes: tuple[int, ...], places: Places) -> list[np.ndarray]:
        found = []
        for axis, (size, length) in enumerate(zip(sizes, places.shape, strict=True)):
            kernel, stride, dilation = layer.kernel_size[axis], layer.strides[axis], layer.dilation_rate[axis]
            reach = (kernel - 1) * dilation + 1
            before = max(reach - stride, 0) // 2 if layer.padding == "same" else 0
            index, rest = np.divmod(np.arange(length)[:, None] + before - np.arange(kernel) * dilation, stride)
            found.append(np.where((rest == 0) & (index >= 0) & (index < size), index, -1))
        return found


@dataclass(frozen=True)
class SeparableMap(ConvolutionMap):
    """The pointwise kernel of a separable conv; its rows are what the depthwise kernel makes."""

    weight: str = "pointwise_kernel"

    def rows(self, layer, x: np.ndarray, places: Places) -> np.ndarray:
        x = channels_last(layer, x)
        patches = gather(x, places, self.taps(layer, x.shape[1:-1], places))
        depthwise = to_numpy(variables_by_name(layer)["depthwise_kernel"])
        middle = np.einsum("rkc,kcm->rcm", patches, depthwise.reshape(-1, *depthwise.shape[-2:]))
        return middle.reshape(1, len(patches), -1)


@dataclass(frozen=True)
class EinsumMap(LinearMap):
    """One row per place of an `EinsumDense`, whose kernel is summed over some axes and makes another.

    Attributes:
      inputs, letters, outputs: one letter per axis of the input, the kernel and the output.
    """

    inputs: str = ""
    letters: str = ""
    outputs: str = ""

    @property
    def read(self) -> str:
        return "".join(x for x in self.letters if x in self.inputs)

    @property
    def made(self) -> str:
        return "".join(x for x in self.letters if x not in self.inputs)

    @property
    def places(self) -> str:
        return "".join(x for x in self.outputs if x in self.inputs)

    def matrix(self, layer, kernel: np.ndarray) -> np.ndarray:
        turned = np.einsum(f"{self.letters}->{self.read}{self.made}", kernel)
        return turned.reshape(1, -1, math.prod(turned.shape[len(self.read) :]))

    def kernel(self, layer, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        sizes = dict(zip(self.letters, shape, strict=True))
        turned = matrix.reshape([sizes[letter] for letter in self.read + self.made])
        return np.einsum(f"{self.read}{self.made}->{self.letters}", turned)

    def map_shape(self, layer, x: np.ndarray, y: np.ndarray) -> tuple[int, ...]:
        return tuple(x.shape[self.inputs.index(letter)] for letter in self.places[1:])

    def rows(self, layer, x: np.ndarray, places: Places) -> np.ndarray:
        turned = np.einsum(f"{self.inputs}->{self.places}{self.read}", x)
        return self.at(turned.reshape(len(x), math.prod(places.shape), -1), places)[None]

    def outputs_at(self, layer, y: np.ndarray, places: Places) -> np.ndarray:
        turned = np.einsum(f"{self.outputs}->{self.places}{self.made}", y)
        return self.at(turned.reshape(len(y), math.prod(places.shape), -1), places)

    def at(self, flat: np.ndarray, places: Places) -> np.ndarray:
        return np.take_along_axis(flat, places.index[:, :, None], axis=1).reshape(places.index.size, -1)


def channels_last(layer, x: np.ndarray) -> np.ndarray:
    """A tensor in the layout of a layer, with its channels moved to the end."""
    return np.moveaxis(x, 1, -1) if getattr(layer, "data_format", None) == "channels_first" else x


def gather(x: np.ndarray, places: Places, taps: list[np.ndarray]) -> np.ndarray:
    """Patches of `x` `[examples, *map, channels]` at the places: `[rows, taps, channels]`, zero outside."""
    sizes, coordinates = x.shape[1:-1], np.unravel_index(places.index, places.shape)
    flat = np.zeros((*places.index.shape, 1), dtype=np.int64)
    outside = np.zeros_like(flat, dtype=bool)
    for axis, (size, tap) in enumerate(zip(sizes, taps, strict=True)):
        index = tap[coordinates[axis]]  # [examples, places, taps of this dimension]
        flat = (flat[..., :, None] * size + index[..., None, :]).reshape(*places.index.shape, -1)
        outside = (outside[..., :, None] | (index < 0)[..., None, :]).reshape(flat.shape)
    flat += np.arange(len(x))[:, None, None] * int(np.prod(sizes))
    flat[outside] = 0
    patches = np.take(np.ascontiguousarray(x).reshape(-1, x.shape[-1]), flat.reshape(-1), axis=0)
    patches = patches.reshape(places.index.size, -1, x.shape[-1])
    patches[outside.reshape(len(patches), -1)] = 0
    return patches
