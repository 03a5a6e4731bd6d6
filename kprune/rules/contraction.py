"""Products summed over an axis: EinsumDense, which reads and writes, and einsum, matmul, Dot of two tensors."""

import math

import keras
import numpy as np

from kprune.rules.base import Call, Rule, Weight, bare, register_rule, require_plain_kernel
from kprune.rules.channels import Barrier, along, spread, varying_axes
from kprune.rules.convolution import Writer
from kprune.rules.linear_maps import EinsumMap, LinearMap
from kprune.rules.liveness import always_zero

layers = keras.layers
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def parse(subscripts: str, ranks: list[int]) -> tuple[list[str], str]:
    """One letter per axis for each operand and for the result.

    Args:
      subscripts: an einsum equation such as `"...ij,jk->...ik"`.
      ranks: the rank of each operand.

    Raises:
      Barrier: the equation has no result, or takes a diagonal.
    """
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    if not arrow:
        raise Barrier("its equation does not name the axes of the result")
    free = [letter for letter in LETTERS if letter not in subscripts]
    parts = left.split(",")
    missing = max(rank - len(part.replace("...", "")) for part, rank in zip(parts, ranks, strict=True))
    dots = "".join(free[:missing])

    def fill(part: str, rank: int) -> str:
        count = rank - len(part.replace("...", ""))
        return part.replace("...", dots[len(dots) - count :])

    operands = [fill(part, rank) for part, rank in zip(parts, ranks, strict=True)]
    if any(len(set(part)) < len(part) for part in operands):
        raise Barrier("its equation takes a diagonal")
    return operands, right.replace("...", dots)


def contract(call: Call, channels, operands: list[str], result: str) -> list[np.ndarray]:
    """The ids of a product of tensors.

    Channels that lie along axes of one letter go together. Where they are summed over, a removed one must be zero.

    Args:
      call: the product; all its operands are tensors.
      channels: where ties are recorded.
      operands, result: one letter per axis.

    Raises:
      Barrier: what a masked channel holds would be added, or the result has channels along two axes.
    """
    if len(call.ids_in) != len(operands):
        raise Barrier("it multiplies by a constant array")
    found: dict[str, np.ndarray] = {}
    resting, fixed = set(), set()
    for ids, letters, rests, shape in zip(call.ids_in, operands, call.resting, call.input_shapes, strict=True):
        for axis, letter in enumerate(letters):
            if ids.shape[axis] > 1:
                vector = along(ids, axis, shape[axis])
                channels.tie(found.setdefault(letter, vector), vector)
                resting |= {letter} if rests else set()
            elif shape[axis] != 1:
                fixed.add(letter)
    for letter in fixed & set(found):
        channels.freeze(found.pop(letter), f"'{call.path}' is a product with a tensor whose axis cannot shrink")
    if set(found) - set(result) - resting:
        raise Barrier("it sums over channels that hold a number once removed")
    kept = [letter for letter in result if letter in found]
    if len(kept) > 1:
        raise Barrier("its result has channels along two axes")
    if not kept:
        return [channels.frozen(len(result), f"'{call.path}' is a sum over channels")]
    return [spread(found[kept[0]], len(result), result.index(kept[0]))]


def profile(array: np.ndarray, axis: int, over=np.any) -> np.ndarray:
    """A boolean array along one axis: `over` all that lies beside it."""
    return over(array, axis=tuple(other for other in range(array.ndim) if other != axis))


class Product(Rule):
    """A product of tensors that its subscripts describe."""

    def subscripts(self, call: Call) -> tuple[list[str], str]:
        raise NotImplementedError

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        return contract(call, channels, *self.subscripts(call))

    def zero_if_removed(self, call: Call) -> bool:
        return all(call.resting)

    def sums_over_channels(self, call: Call) -> bool:
        return True

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        """A channel along an axis of the result matters where it does there; one that is summed over, as long as
        anything of the result does and no operand has a zero for it.
        """
        operands, result = self.subscripts(call)
        matters = {letter: profile(live[0], axis) for axis, letter in enumerate(result)}
        for value, ids, letters in zip(values, call.ids_in, operands, strict=True):
            for axis in varying_axes(ids):
                before = matters.get(letters[axis], live[0].any())
                matters[letters[axis]] = before & ~profile(always_zero(value, ids), axis, np.all)
        return [
            np.broadcast_to(
                spread(matters[letters[axes[0]]], ids.ndim, axes[0]) if (axes := varying_axes(ids)) else live[0].any(),
                ids.shape,
            )
            for ids, letters in zip(call.ids_in, operands, strict=True)
        ]


@register_rule(*bare("Einsum"))
class Einsum(Product):
    def subscripts(self, call: Call) -> tuple[list[str], str]:
        return parse(call.operation.subscripts, [len(shape) for shape in call.input_shapes])


@register_rule(*bare("Matmul"))
class Matmul(Product):
    def subscripts(self, call: Call) -> tuple[list[str], str]:
        ranks = [len(shape) for shape in call.input_shapes]
        if len(ranks) != 2 or min(ranks) < 2:
            raise Barrier("it multiplies by a constant array or a vector")
        return parse("...xy,...yz->...xz", ranks)


@register_rule(layers.Dot)
class DotRule(Product):
    """A batch of products over one axis of each of two tensors."""

    def subscripts(self, call: Call) -> tuple[list[str], str]:
        ranks, axes = [len(shape) for shape in call.input_shapes], call.operation.axes
        axes = [axes, axes] if isinstance(axes, int) else axes
        first, second = (list(letters[1:rank]) for letters, rank in zip(("xabcde", "xfghij"), ranks, strict=True))
        first, second = ["x", *first], ["x", *second]
        first[axes[0]] = second[axes[1]] = "z"
        result = [letter for letter in (*first, *second[1:]) if letter != "z"]
        return ["".join(first), "".join(second)], "".join(result)

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        if call.operation.normalize and not all(call.resting):
            raise Barrier("it normalizes channels that hold a number once removed")
        ids = super().output_ids(call, channels)[0]
        return [ids if ids.ndim > 1 else ids[:, None]]  # of two vectors Keras makes [batch, 1]


@register_rule(layers.EinsumDense)
class EinsumDenseRule(Writer):
    """Reads the axes that its kernel is summed over, and writes channels along the one new axis that it makes."""

    relevance = "in_proportion"

    def letters(self, call: Call) -> tuple[str, str, str]:
        """One letter per axis of the input, the kernel and the output."""
        ranks = [len(call.input_shapes[0]), len(call.operation.kernel.shape)]
        (inputs, kernel), outputs = parse(call.operation.equation, ranks)
        return inputs, kernel, outputs

    def axis(self, call: Call) -> int:
        """The axis of the output along which it writes."""
        inputs, kernel, outputs = self.letters(call)
        new = [axis for axis, letter in enumerate(outputs) if letter in kernel and letter not in inputs]
        if len(new) != 1:
            raise Barrier("its kernel makes several axes, or none")
        return new[0]

    def of_letter(self, call: Call, letter: str) -> np.ndarray | None:
        """The ids along an axis of the kernel."""
        inputs, _, outputs = self.letters(call)
        if letter in outputs and letter not in inputs:
            return self.outputs(call)
        axis = inputs.index(letter)
        return along(call.ids_in[0], axis, call.input_shapes[0][axis]) if call.ids_in[0].shape[axis] > 1 else None

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        require_plain_kernel(call.operation)
        inputs, kernel, _ = self.letters(call)
        if any(inputs[axis] not in kernel for axis in varying_axes(call.ids_in[0])):
            raise Barrier("its channels do not lie along an axis that the kernel is summed over")
        if any(inputs[axis] in self.letters(call)[2] for axis in varying_axes(call.ids_in[0])):
            raise Barrier("its kernel has a slice of its own for each channel")
        size = call.output_shapes[0][self.axis(call)]
        return self.emit(call, channels, channels.fresh(size, call.owner))

    def sliced_weights(self, call: Call) -> list[Weight]:
        inputs, kernel, outputs = self.letters(call)
        sizes = dict(zip(inputs + outputs, call.input_shapes[0] + call.output_shapes[0], strict=True))
        places = [sizes[letter] for letter in dict.fromkeys(inputs[1:] + outputs[1:]) if letter not in kernel]
        uses = float(np.prod([np.nan if size is None else size for size in places]))
        new = outputs[self.axis(call)]
        reads = next((i for i, x in enumerate(kernel) if x != new and self.of_letter(call, x) is not None), None)
        found = [Weight("kernel", tuple(self.of_letter(call, x) for x in kernel), uses, reads, kernel.index(new))]
        axes = call.operation.bias_axes
        if axes:
            own = self.outputs(call)
            found.append(Weight("bias", tuple(own if letter == new else None for letter in self.bias_letters(call))))
        return found

    def bias_letters(self, call: Call) -> str:
        """One letter per axis of the bias: those of `bias_axes`, then size 1 up to the last axis of the output."""
        wanted = call.operation.bias_axes
        output = call.operation.equation.replace(" ", "").split("->")[1].replace("...", "")
        first = min(output.index(letter) for letter in wanted)
        named = self.letters(call)[2][-len(output) :]
        return "".join(x if y in wanted else "." for x, y in zip(named[first:], output[first:], strict=True))

    def pruned_config(self, call: Call, kept) -> dict:
        config = call.operation.get_config()
        shape = [config["output_shape"]] if isinstance(config["output_shape"], int) else list(config["output_shape"])
        axis = self.axis(call) - len(call.output_shapes[0])
        shape[axis] = kept.count(self.outputs(call))
        return {**config, "output_shape": tuple(shape)}

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return Rule.constant_channels(self, call, values)

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        return Rule.live_inputs(self, call, live, values)

    def linear_maps(self, call: Call) -> list[LinearMap]:
        """None where the kernel has slices of its own for some places, or the bias more than a number per filter."""
        inputs, kernel, outputs = self.letters(call)
        bias = getattr(call.operation, "bias", None)
        size = math.prod(
            n for n, letter in zip(call.operation.kernel.shape, kernel, strict=True) if letter not in inputs
        )
        alike = not any(letter in inputs and letter in outputs for letter in kernel)
        summed = all(letter in outputs or letter in kernel for letter in inputs)
        if not alike or not summed or (bias is not None and math.prod(bias.shape) != size):
            return []
        return [EinsumMap(inputs=inputs, letters=kernel, outputs=outputs)]
