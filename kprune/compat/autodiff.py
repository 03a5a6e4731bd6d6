"""The only code that differentiates: one function in front of TensorFlow, JAX and PyTorch."""

import contextlib
from collections.abc import Callable, Sequence

import keras


def linearize(function: Callable, inputs: Sequence) -> tuple[list, Callable]:
    """Applies a function and prepares to carry gradients back through it.

    Args:
      function: takes one tensor per input, gives a list of tensors; built of Keras operations or of the backend's own.
      inputs: floating-point tensors of the backend in use.

    Returns:
      The outputs, and `pullback`. `pullback(cotangents)`, with one tensor per output, gives one tensor per input: the
      gradient of `sum(output * cotangent)`, the product of the cotangents with the Jacobian (zeros where an output does
      not depend on an input). It can be called once.

    Example:
      >>> outputs, pullback = linearize(lambda x: [x * x], [keras.ops.ones((3,))])
      >>> pullback(outputs)[0]
      [2., 2., 2.]
    """
    return _ENGINES[keras.backend.backend()](function, list(inputs))


def without_gradients():
    """A context in which the backend keeps nothing for gradients; PyTorch would keep everything."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def _by_tensorflow(function: Callable, inputs: list):
    import tensorflow as tf

    inputs = [tf.identity(x) for x in inputs]  # a tensor given twice has two gradients
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        outputs = function(*inputs)

    def pullback(cotangents):
        seeds = [tf.cast(c, y.dtype) for c, y in zip(cotangents, outputs, strict=True)]
        return tape.gradient(outputs, inputs, seeds, unconnected_gradients="zero")

    return outputs, pullback


def _by_jax(function: Callable, inputs: list):
    import jax

    outputs, carry_back = jax.vjp(function, *inputs)
    return outputs, lambda cotangents: list(
        carry_back([c.astype(y.dtype) for c, y in zip(cotangents, outputs, strict=True)])
    )


def _by_torch(function: Callable, inputs: list):
    import torch

    leaves = [x.detach().requires_grad_(True) for x in inputs]
    with torch.enable_grad():
        outputs = function(*leaves)

    def pullback(cotangents):
        reached = [(y, c.to(y.dtype)) for y, c in zip(outputs, cotangents, strict=True) if y.requires_grad]
        if not reached:
            return [torch.zeros_like(x) for x in leaves]
        ends, seeds = zip(*reached, strict=True)
        found = torch.autograd.grad(ends, leaves, seeds, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]

    return [y.detach() for y in outputs], pullback


_ENGINES = {"tensorflow": _by_tensorflow, "jax": _by_jax, "torch": _by_torch}
