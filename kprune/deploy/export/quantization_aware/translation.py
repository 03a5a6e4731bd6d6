"""A Keras 3 model as a tf_keras model of the operations that TFLite has in 8 bits.

The function stays the same. What changes is how it is written: convolutions over time become those over images that
TFLite makes of them anyway, so that their weights can be quantized in training; a BatchNormalization that TFLite would
leave in float becomes part of the layer before it, or a convolution of each channel by itself.
"""

import keras

from kprune.compat.functional import bare_operation, first_input, functional, is_layer, is_model, transparent
from kprune.compat.keras2.configs import COMMON_ACTIVATIONS
from kprune.compat.keras2.to_tf_keras import Translation
from kprune.deploy.export.quantization_aware.dilated import DILATED, dilated_class
from kprune.deploy.export.quantization_aware.stages import affine, batchnorms, constants, is_rewritten, stages

# Layers of several inputs that are made of pairs: TFLite has them for two inputs, each pair with a range of its own.
PAIRS = {"Add": "Add", "Multiply": "Multiply", "Maximum": "Maximum", "Minimum": "Minimum", "Average": "Add"}
# Layers that both sides have, with other options: Keras 3 itself computes them.
AS_OPERATION = (keras.layers.Resizing, keras.layers.CenterCrop)
BY_ELEMENT = (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.Activation)


class QuantizableTranslation(Translation):
    """Twins whose neighbours in TFLite are the same; nested models become part of the outer one."""

    def __init__(self):
        super().__init__(flat=True, activations=frozenset(("linear", "relu")))
        self._folded: dict[int, object] = {}  # the BatchNormalization that a layer takes in, by the layer's id
        self._kept: set[int] = set()  # BatchNormalizations that tf_keras and TFLite treat as they are
        self._stages: dict[int, list] = {}  # layers that stand for another, by its id
        self._images: dict[int, tuple] = {}  # by the id of a tensor, itself and the image that it was squeezed from

    def model(self, model: keras.Model):
        self._folded, self._kept = batchnorms(functional(model))
        return super().model(model)

    def _prepare(self, node) -> None:
        operation = transparent(node.operation)
        if id(operation) in self._stages or id(operation) in self._twins:
            return
        batchnorm = self._folded.get(id(operation))
        rank = len(node.inputs[0].shape)
        if batchnorm is not None or is_rewritten(operation, rank):
            self._stages[id(operation)] = stages(operation, batchnorm, rank)
        elif any(operation is one for one in self._folded.values()):
            self._stages[id(operation)] = []
        elif id(operation) not in self._kept and constants(operation, node.inputs) is not None:
            self._stages[id(operation)] = [affine(operation, *constants(operation, node.inputs))]
        for layer in self._stages.get(id(operation), [operation]):
            self._twin(layer)

    def _apply(self, node, args: tuple, kwargs: dict):
        operation = transparent(node.operation)
        if is_model(operation):
            return super()._apply(node, args, kwargs)
        if is_layer(operation):
            self._prepare(node)
            tensor = first_input(args, kwargs)
            if id(operation) in self._stages:
                return self._convolve(operation, tensor) if self._stages[id(operation)] else tensor
            if type(operation).__name__ in PAIRS and isinstance(tensor, (list, tuple)) and len(tensor) > 1:
                return self._in_pairs(operation, tensor)
            if id(tensor) in self._images and type(operation) in BY_ELEMENT:
                return self._on_image(lambda x: self._by_element(node, x), tensor)
        if is_hard_sigmoid(operation):
            return self._hard_sigmoid(operation.name, args[0])
        return super()._apply(node, args, kwargs)

    def _by_element(self, node, tensor):
        if is_hard_sigmoid(node.operation):
            return self._hard_sigmoid(node.operation.name, tensor)
        return super()._apply(node, (tensor,), {})

    def _make_twin(self, operation, inside: bool = False) -> tuple:
        if type(operation) in AS_OPERATION:
            return None, None
        if type(operation) is keras.layers.Activation and operation.activation.__name__ in COMMON_ACTIVATIONS:
            name = self._name(operation.name)
            return self._tf_keras.layers.Activation(operation.activation.__name__, name=name), None
        twin, activation = super()._make_twin(operation, inside)
        if type(twin).__name__ in DILATED and max(twin.dilation_rate) > 1:
            twin = dilated_class(type(twin).__name__).from_config(twin.get_config())
        return twin, activation

    def _follow(self, activation, tensor):
        if is_hard_sigmoid(activation):
            return self._hard_sigmoid(activation.name, tensor)
        twin, _ = self._make_twin(activation)
        return super()._follow(activation, tensor) if twin is None else twin(tensor)

    def _convolve(self, operation, tensor):
        if type(operation) is keras.layers.Dense and len(tensor.shape) not in (3, 4):
            return self._layers(operation, tensor)
        if getattr(operation, "padding", None) == "causal":
            width = (operation.kernel_size[0] - 1) * operation.dilation_rate[0]
            tensor = self._operation("Pad", operation.name, tensor, pad_width=((0, 0), (width, 0), (0, 0)))
        return self._on_image(lambda x: self._layers(operation, x), tensor)

    def _layers(self, operation, tensor):
        """Runs the layers that stand for another."""
        for layer in self._stages[id(operation)]:
            twin, activation = self._twin(layer)
            tensor = twin(tensor)
            twin.set_weights(layer.get_weights())
            tensor = tensor if activation is None else self._follow(activation, tensor)
        return tensor

    def _on_image(self, run, tensor):
        """Runs on a tensor of rank 2 or 3 as an image of height 1; such images stay images from layer to layer."""
        missing, image = 4 - len(tensor.shape), tensor
        if not missing:
            return run(tensor)
        if id(tensor) in self._images:
            image = self._images[id(tensor)][1]
        else:
            for _ in range(missing):
                image = self._operation("ExpandDims", "to_image", image, axis=1)
        result = image = run(image)
        for _ in range(missing):
            result = self._operation("Squeeze", "from_image", result, axis=1)
        self._images[id(result)] = result, image
        return result

    def _in_pairs(self, operation, tensors: list):
        kind, result = type(operation).__name__, tensors[0]
        layer = getattr(self._tf_keras.layers, PAIRS[kind])
        for tensor in tensors[1:]:
            result = layer(name=self._name(f"{operation.name}_pair"))([result, tensor])
        return result if kind != "Average" else self._with_number("Multiply", operation.name, result, 1 / len(tensors))

    def _hard_sigmoid(self, name: str, tensor):
        """`relu6(x + 3) / 6`, whose every step has a range."""
        shifted = self._with_number("Add", name, tensor, 3.0)
        clipped = self._tf_keras.layers.ReLU(6.0, name=self._name(f"{name}_relu"))(shifted)
        return self._with_number("Multiply", name, clipped, 1 / 6)

    def _with_number(self, kind: str, name: str, tensor, number: float):
        operation = bare_operation(kind)(name=f"{name}_{kind.lower()}")
        return self._as_operation(operation, (tensor, number), {})

    def _operation(self, kind: str, name: str, tensor, **options):
        operation = bare_operation(kind)(**options, name=f"{name}_{kind.lower()}")
        return self._as_operation(operation, (tensor,), {})


def is_hard_sigmoid(operation) -> bool:
    activation = operation.activation if type(operation) is keras.layers.Activation else None
    return type(operation).__name__ == "HardSigmoid" or activation is keras.activations.hard_sigmoid
