"""TFLite files of one layer each, written directly, so that hundreds of widths take no conversion."""

import functools

import numpy as np

from kprune.rules import OperatorConfig

# Builtin operators: the name in the format, and the version that also knows 8 bits per channel.
CONV, DEPTHWISE, DENSE = ("CONV_2D", 3), ("DEPTHWISE_CONV_2D", 3), ("FULLY_CONNECTED", 4)
ADD, MULTIPLY, MEAN = ("ADD", 2), ("MUL", 2), ("MEAN", 2)
MAX_POOL, AVERAGE_POOL = ("MAX_POOL_2D", 2), ("AVERAGE_POOL_2D", 2)
INPUT_SCALE, WEIGHT_SCALE = 0.02, 0.01  # of 8-bit tensors; time does not depend on them


class File:
    """A TFLite file that grows operation by operation.

    Args:
      quantize: None for float32, "int8" for 8-bit activations and weights and 32-bit biases.
    """

    def __init__(self, quantize: str | None):
        from tensorflow.lite.python import schema_py_generated as schema

        self.schema, self.quantized = schema, quantize == "int8"
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs, self.model.operatorCodes = 3, [self.graph], []
        self.model.buffers = [schema.BufferT()]
        self.graph.tensors, self.graph.operators, self.graph.inputs, self.graph.outputs = [], [], [], []
        self.rng = np.random.default_rng(0)

    def tensor(self, shape: tuple[int, ...], data: np.ndarray | None = None, scale=INPUT_SCALE, axis: int = 0) -> int:
        """Adds a tensor, by default one of activations; gives its index."""
        tensor = self.schema.TensorT()
        values = np.zeros(0, np.int8 if self.quantized else np.float32) if data is None else data
        types = {np.dtype(np.float32): "FLOAT32", np.dtype(np.int8): "INT8", np.dtype(np.int32): "INT32"}
        tensor.shape, tensor.name = [int(size) for size in shape], f"tensor{len(self.graph.tensors)}"
        tensor.type = getattr(self.schema.TensorType, types[values.dtype])
        tensor.buffer = len(self.model.buffers) if data is not None else 0
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
        if self.quantized and scale is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = np.atleast_1d(np.float32(scale))
            tensor.quantization.zeroPoint = np.zeros(len(tensor.quantization.scale), np.int64)
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def weights(self, shape: tuple[int, ...], filters_axis: int) -> list[int]:
        """Adds a kernel and a bias; gives their indices."""
        filters, values = shape[filters_axis], self.rng.normal(size=shape)
        if not self.quantized:
            return [self.tensor(shape, values.astype(np.float32)), self.tensor((filters,), np.zeros(filters, "f"))]
        scales = np.full(filters, WEIGHT_SCALE, np.float32)
        kernel = self.tensor(shape, np.clip(values * 40, -127, 127).astype(np.int8), scales, filters_axis)
        return [kernel, self.tensor((filters,), np.zeros(filters, np.int32), scales * np.float32(INPUT_SCALE))]

    def apply(self, operator: tuple[str, int], inputs: list[int], shape: tuple[int, ...], options) -> int:
        """Adds an operation; gives the index of its output."""
        code, operation = self.schema.OperatorCodeT(), self.schema.OperatorT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, operator[0])
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), operator[1]
        operation.opcodeIndex, operation.inputs = len(self.model.operatorCodes), inputs
        operation.outputs = [self.tensor(shape)]
        operation.builtinOptions = options
        operation.builtinOptionsType = getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operation)
        return operation.outputs[0]

    def input(self, shape: tuple[int, ...]) -> int:
        self.graph.inputs.append(self.tensor(shape))
        return self.graph.inputs[-1]

    def options(self, name: str, **values):
        """The options of an operation, by the names of the format."""
        options = getattr(self.schema, f"{name}OptionsT")()
        for key, value in values.items():
            setattr(options, key, value)
        return options

    def windows(self, name: str, kind: OperatorConfig, **values):
        """The options of an operation that slides a window, with a ReLU merged as a runtime does."""
        padding = getattr(self.schema.Padding, kind.padding.upper())
        return self.options(name, padding=padding, strideH=kind.strides[0], strideW=kind.strides[1], **values)

    def content(self, output: int) -> bytes:
        from tensorflow.lite.tools import flatbuffer_utils

        self.graph.outputs = [output]
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))


def one_layer(kind: OperatorConfig, width_in: int, width_out: int, quantize: str | None) -> bytes:
    """The bytes of a file with one layer.

    Args:
      kind: the kind of layer.
      width_in: its input channels, for kinds that read channels.
      width_out: its output channels.
      quantize: None or "int8".
    """
    file = File(quantize)
    return file.content(WRITERS[kind.operation](file, kind, width_in, width_out))


def output_size(kind: OperatorConfig) -> tuple[int, ...]:
    """Height and width of the output of a window."""
    spans = [(k - 1) * d + 1 for k, d in zip(kind.kernel, kind.dilation or (1, 1), strict=True)]
    whole = [n if kind.padding == "same" else n - span + 1 for n, span in zip(kind.size, spans, strict=True)]
    return tuple(-(-n // stride) for n, stride in zip(whole, kind.strides, strict=True))


def write_conv(file: File, kind: OperatorConfig, width_in: int, width_out: int) -> int:
    dilation = {"dilationHFactor": kind.dilation[0], "dilationWFactor": kind.dilation[1], "fusedActivationFunction": 1}
    image = file.input((1, *kind.size, width_in))
    weights = file.weights((width_out, *kind.kernel, width_in), 0)
    options = file.windows("Conv2D", kind, **dilation)
    return file.apply(CONV, [image, *weights], (1, *output_size(kind), width_out), options)


def write_depthwise(file: File, kind: OperatorConfig, _, width: int) -> int:
    dilation = {"dilationHFactor": kind.dilation[0], "dilationWFactor": kind.dilation[1], "fusedActivationFunction": 1}
    image, weights = file.input((1, *kind.size, width)), file.weights((1, *kind.kernel, width), 3)
    options = file.windows("DepthwiseConv2D", kind, depthMultiplier=1, **dilation)
    return file.apply(DEPTHWISE, [image, *weights], (1, *output_size(kind), width), options)


def write_dense(file: File, kind: OperatorConfig, width_in: int, width_out: int) -> int:
    vector, weights = file.input((*kind.size, width_in)), file.weights((width_out, width_in), 0)
    return file.apply(DENSE, [vector, *weights], (*kind.size, width_out), file.options("FullyConnected"))


def write_merge(operator: tuple[str, int], name: str, file: File, kind: OperatorConfig, _, width: int) -> int:
    shape = (1, *kind.size, width)
    first, *others = [file.input(shape) for _ in range(kind.operands)]
    for other in others:
        first = file.apply(operator, [first, other], shape, file.options(name, fusedActivationFunction=1))
    return first


def write_pool(operator: tuple[str, int], file: File, kind: OperatorConfig, _, width: int) -> int:
    options = file.windows("Pool2D", kind, filterHeight=kind.kernel[0], filterWidth=kind.kernel[1])
    return file.apply(operator, [file.input((1, *kind.size, width))], (1, *output_size(kind), width), options)


def write_mean(file: File, kind: OperatorConfig, _, width: int) -> int:
    image, axes = file.input((1, *kind.size, width)), file.tensor((2,), np.array([1, 2], np.int32), None)
    return file.apply(MEAN, [image, axes], (1, width), file.options("Reducer", keepDims=False))


WRITERS = {
    "conv": write_conv,
    "depthwise": write_depthwise,
    "dense": write_dense,
    "add": functools.partial(write_merge, ADD, "Add"),
    "multiply": functools.partial(write_merge, MULTIPLY, "Mul"),
    "max_pool": functools.partial(write_pool, MAX_POOL),
    "average_pool": functools.partial(write_pool, AVERAGE_POOL),
    "mean": write_mean,
}
