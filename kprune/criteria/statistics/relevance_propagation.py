"""Layer-wise relevance propagation over a traced graph: how relevance passes each operation.

Sources: Bach et al. 2015, "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
Propagation" (alpha-beta rule); Aketi et al. 2020, arXiv 2002.09958, section 3 (the choices for convolutional networks);
Achtibat et al. 2024, "AttnLRP", arXiv 2402.05602, Proposition 3.3 (products).

| operation | its relevance |
|---|---|
| conv of any kind, dense | alpha-beta rule over the contributions `x * w`; biases take none |
| BatchNorm, activation, softmax, dropout, rescaling | passes on unchanged |
| reshape, transpose, slice, zero padding of channels, concatenation | goes where the numbers came from |
| multiplication of tensors | in equal parts to the factors |
| pooling, addition, average, up-sampling, spatial padding, and whatever kprune has no rule for | in proportion |

In proportion: `R_in = X * J^T (R / Y)` with `J` the operation's Jacobian, which is gradient times input, scaled so that
nothing is lost where `Y` is a sum of parts of `X` (any operation that is homogeneous of degree one, such as a maximum).
An operation on whole numbers (an embedding, an argmax) ends the walk.
"""

from collections.abc import Callable, Sequence

import keras

from kprune.compat import cloning
from kprune.compat.autodiff import linearize
from kprune.compat.variables import to_numpy, variables_by_name
from kprune.criteria.statistics.tape import Recorded
from kprune.rules import find_rule

ops = keras.ops
EPSILON = 1e-9


def stabilized(denominator):
    """The denominator moved away from zero, by `EPSILON` to the side on which it is."""
    return denominator + ops.where(denominator >= 0, EPSILON, -EPSILON)


def in_proportion(step: Recorded, arriving: Sequence) -> list:
    """`X * J^T (R / Y)`."""
    outputs, pullback = step.linearize()
    shares = [r / stabilized(ops.cast(y, "float32")) for r, y in zip(arriving, outputs, strict=True)]
    return [None if g is None else times(x, g) for x, g in zip(step.inputs, pullback(shares), strict=True)]


def times(x, gradient):
    return ops.cast(x, "float32") * ops.cast(gradient, "float32")


def in_equal_parts(step: Recorded, arriving: Sequence) -> list:
    """A product has the same gradient times input for each factor; each takes its part of one."""
    return [None if r is None else r / len(step.slots) for r in in_proportion(step, arriving)]


def pass_on(step: Recorded, arriving: Sequence) -> list:
    """To the one input that has the shape of the output."""
    return [arriving[0] if x.shape == step.outputs[0].shape else None for x in step.inputs]


def transport(step: Recorded, arriving: Sequence) -> list:
    """Each number goes back to where its value came from."""
    return step.linearize()[1](arriving)


class LinearTwin:
    """A conv or dense layer as a function of its kernel: no bias, no activation, float32.

    Args:
      layer: the layer whose config it takes.
      input_shape: batch axis first.
      kernel: in the place of the layer's own.
    """

    def __init__(self, layer, config: dict, input_shape: tuple, kernel):
        self.layer = cloning.clone_operation(layer, unbiased(config))
        self.layer.build(input_shape)
        self.positive, self.negative = ops.maximum(kernel, 0.0), ops.minimum(kernel, 0.0)

    def __call__(self, kernel, x):
        return self.layer.stateless_call([kernel], [], x)[0]

    def relevance(self, x, arriving, alpha: float, beta: float):
        """The alpha-beta rule: positive contributions `x * w` share `alpha * R`, negative ones `-beta * R`.

        Where no input is negative (after a ReLU) these are `W+ x` and `W- x`, as Aketi 2020 writes them.
        """
        x = ops.cast(x, "float32")
        signed = bool(to_numpy(ops.any(x < 0)))
        parts = [ops.maximum(x, 0.0), ops.minimum(x, 0.0)] if signed else [x]
        result = 0.0
        for share, kernels in ((alpha, (self.positive, self.negative)), (-beta, (self.negative, self.positive))):
            if share:
                (total,), pullback = linearize(lambda *xs, kernels=kernels: [self.summed(kernels, xs)], parts)
                for part, back in zip(parts, pullback([share * arriving / stabilized(total)]), strict=True):
                    result = result + part * back
        return result

    def summed(self, kernels: Sequence, parts: Sequence):
        return sum(self(kernel, part) for kernel, part in zip(kernels, parts, strict=False))


def unbiased(config: dict) -> dict:
    """The config of a layer that only multiplies by its kernel; its own weights are placeholders."""
    config = {**config, "activation": None, "dtype": "float32", "trainable": True}
    config.update((key, None) for key in config if key.endswith(("_regularizer", "_constraint")))
    config.update((key, "zeros") for key in config if key.endswith("_initializer"))
    return config | ({"use_bias": False} if "use_bias" in config else {})


def twins_of(layer, input_shape: tuple) -> list[LinearTwin]:
    """The linear steps of a layer: one, or the depthwise and the pointwise one of a separable conv."""
    kernels = {name: ops.cast(v, "float32") for name, v in variables_by_name(layer).items()}
    if "pointwise_kernel" not in kernels:
        return [LinearTwin(layer, layer.get_config(), input_shape, kernels["kernel"])]
    config, dimensions = layer.get_config(), len(layer.kernel_size)
    first = getattr(keras.layers, f"DepthwiseConv{dimensions}D")(
        layer.kernel_size,
        **{key: config[key] for key in ("strides", "padding", "depth_multiplier", "data_format", "dilation_rate")},
    )
    second = getattr(keras.layers, f"Conv{dimensions}D")(layer.filters, 1, data_format=layer.data_format)
    depthwise = LinearTwin(first, first.get_config(), input_shape, kernels["depthwise_kernel"])
    between = depthwise.layer.compute_output_shape(input_shape)
    return [depthwise, LinearTwin(second, second.get_config(), between, kernels["pointwise_kernel"])]


class Propagation:
    """Relevance propagation through the operations of one model; holds the parts of its kernels.

    Args:
      alpha, beta: of the alpha-beta rule; relevance is kept where `alpha - beta` is 1.
    """

    def __init__(self, alpha: float = 2.0, beta: float = 1.0):
        self.alpha, self.beta = alpha, beta
        self._twins: dict[int, list[LinearTwin]] = {}

    def __call__(self, step: Recorded, arriving: Sequence) -> list:
        """The relevance of a step's inputs from that of its outputs; None where the walk ends."""
        passes = find_rule(step.call.operation).relevance
        if passes != "contributions":
            return PASSES[passes](step, arriving)
        plain = not getattr(step.call.operation, "quantization_mode", None)
        return self.by_contributions(step, arriving) if plain else in_proportion(step, arriving)

    def by_contributions(self, step: Recorded, arriving: Sequence) -> list:
        layer = step.call.operation
        if id(layer) not in self._twins:
            self._twins[id(layer)] = twins_of(layer, step.call.input_shapes[0])
        twins, maps = self._twins[id(layer)], [step.inputs[0]]
        for twin in twins[:-1]:
            maps.append(twin.summed([twin.positive + twin.negative], [ops.cast(maps[-1], "float32")]))
        relevance = arriving[0]
        for twin, x in zip(twins[::-1], maps[::-1], strict=True):
            relevance = twin.relevance(x, relevance, self.alpha, self.beta)
        return [relevance, *(None for _ in step.inputs[1:])]


PASSES: dict[str, Callable] = {
    "in_proportion": in_proportion,
    "pass_on": pass_on,
    "transport": transport,
    "equal_parts": in_equal_parts,
}
