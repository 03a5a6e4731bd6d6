"""FLOPs counted a second way: from the shapes of the built weights and of the built tensors, nothing of kprune."""

import math

import keras
from random_layers import Mixer

LAYERS = keras.layers


def places(tensor, layer):
    """Places of a feature map."""
    sizes = list(tensor.shape[1:])
    del sizes[0 if getattr(layer, "data_format", None) == "channels_first" else -1]
    return math.prod(sizes)


def layer_flops(layer, given, made):
    """Multiply-accumulates of one layer from one tensor to another."""
    if isinstance(layer, LAYERS.SeparableConv1D | LAYERS.SeparableConv2D):
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        return sum(math.prod(kernel.shape) for kernel in kernels) * places(made, layer)
    if isinstance(layer, LAYERS.Conv1DTranspose | LAYERS.Conv2DTranspose | LAYERS.Conv3DTranspose):
        return math.prod(layer.kernel.shape) * places(given, layer)
    if isinstance(layer, Mixer):
        convs = (layer.first, layer.beside, layer.last)
        return sum(math.prod(conv.kernel.shape) for conv in convs) * places(made, layer)
    convs = (LAYERS.Conv1D, LAYERS.Conv2D, LAYERS.Conv3D, LAYERS.DepthwiseConv1D, LAYERS.DepthwiseConv2D)
    if isinstance(layer, (*convs, LAYERS.Dense)):
        return math.prod(layer.kernel.shape) * places(made, layer)
    return 0


def moments(call, layer):
    """How often a recurrent layer or a `TimeDistributed` works in one call."""
    return call.input_tensors[0].shape[1]


def recurrent_flops(layer):
    """Multiply-accumulates of one moment of a recurrent layer."""
    inside = [layer.forward_layer, layer.backward_layer] if isinstance(layer, LAYERS.Bidirectional) else [layer]
    return sum(math.prod(k.shape) for one in inside for k in (one.cell.kernel, one.cell.recurrent_kernel))


def heads_flops(layer, query, value, key=None):
    """Multiply-accumulates of the weights of attention by heads; no products of activations, as everywhere."""
    tokens = {"query": query, "value": value, "key": value if key is None else key, "gate": query, "output": query}
    inside = [(getattr(layer, f"_{name}_dense", None), x.shape[1]) for name, x in tokens.items()]
    return sum(math.prod(dense.kernel.shape) * count for dense, count in inside if dense is not None)


def call_flops(layer, call):
    """Multiply-accumulates of one layer in one call."""
    if isinstance(layer, LAYERS.MultiHeadAttention | LAYERS.GroupQueryAttention):
        return heads_flops(layer, *call.input_tensors)
    if isinstance(layer, LAYERS.RNN | LAYERS.Bidirectional):
        return recurrent_flops(layer) * moments(call, layer)
    if isinstance(layer, LAYERS.TimeDistributed):
        return math.prod(layer.layer.kernel.shape) * math.prod(call.outputs[0].shape[1:-1])
    if isinstance(layer, keras.Model):
        if any(None in x.shape[1:] for x in layer.inputs):
            inputs = [keras.Input(batch_shape=x.shape) for x in call.input_tensors]
            layer = keras.models.clone_model(layer, input_tensors=inputs if len(inputs) > 1 else inputs[0])
        return count_flops(layer)
    if hasattr(layer, "layer"):  # a mask around it
        layer = layer.layer
    return layer_flops(layer, call.input_tensors[0], call.outputs[0])


def count_flops(model):
    """Multiply-accumulates of the conv and dense layers of a functional model, for each time that they are called."""
    calls = [node for nodes in model._nodes_by_depth.values() for node in nodes if not node.is_input]
    return sum(call_flops(call.operation, call) for call in calls)
