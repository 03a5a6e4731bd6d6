"""FLOPs counted a second way: from the shapes of the built weights and of the built tensors, nothing of kprune."""

import math

import keras

LAYERS = keras.layers


def places(tensor, layer):
    """Places of a feature map."""
    sizes = list(tensor.shape[1:])
    del sizes[0 if getattr(layer, "data_format", None) == "channels_first" else -1]
    return math.prod(sizes)


def layer_flops(layer):
    """Multiply-accumulates of one layer that is called once."""
    if isinstance(layer, LAYERS.SeparableConv1D | LAYERS.SeparableConv2D):
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        return sum(math.prod(kernel.shape) for kernel in kernels) * places(layer.output, layer)
    if isinstance(layer, LAYERS.Conv1DTranspose | LAYERS.Conv2DTranspose | LAYERS.Conv3DTranspose):
        return math.prod(layer.kernel.shape) * places(layer.input, layer)
    convs = (LAYERS.Conv1D, LAYERS.Conv2D, LAYERS.Conv3D, LAYERS.DepthwiseConv1D, LAYERS.DepthwiseConv2D)
    if isinstance(layer, (*convs, LAYERS.Dense)):
        return math.prod(layer.kernel.shape) * places(layer.output, layer)
    return 0


def count_flops(model):
    """Multiply-accumulates of the conv and dense layers of a functional model without shared layers."""
    return sum(layer_flops(layer) for layer in model.layers)
