"""How each layer of a translated model is quantized: where 8-bit values arise, and where none do."""

import functools
import importlib

from kprune.deploy.export.quantization_aware.tfmot import load_tfmot

DEFAULT_8BIT = "tensorflow_model_optimization.python.core.quantization.keras.default_8bit"
# Operations and layers that move values, or mix them within one scale, as TFLite's kernels do: a range of their own
# would clip what comes in.
MOVING = frozenset(("GetItem", "Pad", "Transpose", "Reshape", "Squeeze", "ExpandDims", "Split", "Flip", "Identity"))
MOVING |= frozenset(("RepeatVector", "Masking", "Permute", "Flatten", "Reshape", "Repeat", "Tile", "Roll", "Resize"))
MOVING |= frozenset(("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ActivityRegularization"))
MOVING |= frozenset(("GaussianNoise", "GaussianDropout", "AlphaDropout", "Resizing", "CenterCrop", "DepthToSpace"))
MOVING |= frozenset(("MaxPool", "AveragePool", "Max", "Min", "Take", "BroadcastTo", "Moveaxis", "Swapaxes", "Ravel"))
MOVING |= frozenset(
    f"{kind}{rank}D"
    for kind in ("MaxPooling", "AveragePooling", "GlobalMaxPooling", "ZeroPadding", "Cropping", "UpSampling")
    for rank in (1, 2, 3)
)
# Activations whose outputs have the same range whatever comes in: TFLite knows it.
BOUNDED = ("softmax", "sigmoid", "tanh")
WEIGHTED = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel", "Conv2DTranspose": "kernel"}


class Configs:
    """Which `QuantizeConfig` each layer of a tf_keras model gets.

    Args:
      model: the model; what reads a layer decides too.
    """

    def __init__(self, model):
        self._readers: dict[str, list] = {layer.name: [] for layer in model.layers}
        for nodes in model._nodes_by_depth.values():
            for node in nodes:
                for parent in node.parent_nodes:
                    self._readers[parent.layer.name].append(node.layer)
        for tensor in model.outputs:
            self._readers[tensor._keras_history.layer.name].append(None)

    def __call__(self, layer):
        """The config of a layer."""
        kind = kind_of(layer)
        if self._has_no_range(layer, kind):
            output = False
        elif kind in ("BatchNormalization", "Add"):
            output = not self._is_fused(layer)
        else:
            output = True
        if kind in WEIGHTED:
            output = output and not self._is_fused(layer)
            return _weights_config(kind, output)
        configs = importlib.import_module(f"{DEFAULT_8BIT}.default_8bit_quantize_configs")
        return configs.Default8BitOutputQuantizeConfig() if output else configs.NoOpQuantizeConfig()

    def _has_no_range(self, layer, kind: str) -> bool:
        if kind in MOVING or kind == "Softmax":
            return not _fills_in(layer)
        return kind == "Activation" and getattr(getattr(layer, "activation", None), "__name__", "") in BOUNDED

    def _is_fused(self, layer) -> bool:
        """Whether one reader alone, which TFLite makes part of the layer, gives the range."""
        readers = self._readers[layer.name]
        if len(readers) != 1 or readers[0] is None:
            return False
        kind, reader = kind_of(readers[0]), readers[0]
        linear = getattr(getattr(layer, "activation", None), "__name__", "linear") == "linear"
        relu = kind in ("Relu", "Relu6") or kind == "ReLU" and not (reader.negative_slope or reader.threshold)
        function = getattr(getattr(reader, "activation", None), "__name__", "")
        relu = relu or kind == "Activation" and function in ("relu", "relu6")
        return linear and (relu or kind == "BatchNormalization" and kind_of(layer) in ("Conv2D", "DepthwiseConv2D"))


def kind_of(layer) -> str:
    """The name of its class, or of the operation that it stands for."""
    return getattr(layer, "kind", type(layer).__name__)


def _fills_in(layer) -> bool:
    """Whether an operation adds values of its own, which may lie beyond the range of its input."""
    arguments = getattr(layer, "settings", {})
    return bool(arguments.get("constant_values") or arguments.get("fill_value"))


def _weights_config(kind: str, output: bool):
    registry = importlib.import_module(f"{DEFAULT_8BIT}.default_8bit_quantize_registry")
    if kind == "DepthwiseConv2D":
        return depthwise_config()(output)
    names = {"Conv2D": "Default8BitConvQuantizeConfig", "Conv2DTranspose": "Default8BitConvTransposeQuantizeConfig"}
    config = getattr(registry, names.get(kind, "Default8BitQuantizeConfig"))
    return config([WEIGHTED[kind]], ["activation"] if output else [], False)


@functools.cache
def depthwise_config() -> type:
    """A QuantizeConfig that rounds each filter of a depthwise convolution by its own scale, as TFLite does; tfmot has
    one scale for all of them."""
    import tensorflow as tf

    registry = importlib.import_module(f"{DEFAULT_8BIT}.default_8bit_quantize_registry")
    quantizers = load_tfmot().quantization.keras.quantizers

    class EachFilter(quantizers.Quantizer):
        """Rounds symmetrically to 8 bits; gradients pass as if it did not."""

        def build(self, tensor_shape, name, layer):
            return {}

        def __call__(self, inputs, training, weights, **kwargs):
            scale = tf.maximum(tf.reduce_max(tf.abs(inputs), axis=(0, 1), keepdims=True), 1e-9) / 127.0
            return inputs + tf.stop_gradient(tf.round(inputs / scale) * scale - inputs)

        def get_config(self):
            return {}

    class DepthwiseConfig(registry.Default8BitQuantizeConfig):
        """Quantizes the kernel of a depthwise convolution and, where it has a range, its output."""

        def __init__(self, output: bool = True):
            super().__init__([WEIGHTED["DepthwiseConv2D"]], ["activation"] if output else [], False)
            self.weight_quantizer, self._output = EachFilter(), output

        def get_config(self):
            return {"output": self._output}

    return DepthwiseConfig


@functools.cache
def scheme() -> object:
    """tfmot's 8-bit scheme without its patterns: the configs already say all."""
    package = DEFAULT_8BIT
    transforms = importlib.import_module(f"{package}.default_8bit_transforms")
    base = importlib.import_module(f"{package}.default_8bit_quantize_scheme").Default8BitQuantizeScheme
    graph = "tensorflow_model_optimization.python.core.quantization.keras.graph_transformations.model_transformer"
    transformer = importlib.import_module(graph).ModelTransformer

    class Layout:
        """Quantizes the inputs."""

        def apply(self, model, layer_quantize_map):
            steps = [transforms.InputLayerQuantize()]
            return transformer(model, steps, set(layer_quantize_map), layer_quantize_map).transform()

    class Scheme(base):
        def get_layout_transformer(self):
            return Layout()

    return Scheme()
