"""Which operations of a TFLite file compute in float."""

import dataclasses

# What the converter can write in 8 bits, by the names of TFLite's operations.
INTEGER = frozenset(
    """
    ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_TO CONCATENATION CONV_2D
    DEPTHWISE_CONV_2D DEPTH_TO_SPACE EQUAL EXPAND_DIMS FULLY_CONNECTED GATHER GATHER_ND GELU GREATER GREATER_EQUAL
    HARD_SWISH L2_NORMALIZATION LEAKY_RELU LESS LESS_EQUAL LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM
    MIRROR_PAD MUL NOT_EQUAL PACK PAD PADV2 PRELU REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RSQRT SELECT SELECT_V2 SLICE SOFTMAX SPACE_TO_BATCH_ND
    SPACE_TO_DEPTH SPLIT SPLIT_V SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TILE TOPK_V2 TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK
    """.split()
)
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
# What only hands tensors on, or calls graphs whose operations are looked at themselves.
CARRIERS = frozenset("WHILE IF CALL CALL_ONCE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE".split())


@dataclasses.dataclass(frozen=True)
class FloatOperation:
    """An operation that takes or gives floats.

    Attributes:
      operator: TFLite's name of it, such as "ELU".
      layer: the name of the tensor that it gives, which holds the name of the layer.
      reason: why it computes in float.
    """

    operator: str
    layer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operator} ({self.layer}): {self.reason}"


def float_operations(path) -> tuple[FloatOperation, ...]:
    """Asks a TFLite file which of its operations take or give floats.

    QUANTIZE and DEQUANTIZE count only where they lead through float within the graph, from integers to integers.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    names = _operator_names()
    operators = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    return tuple(found for graph in model.subgraphs for found in _in_graph(graph, operators))


def _in_graph(graph, operators: list[str]):
    kinds = [operators[operation.opcodeIndex] for operation in graph.operators]
    readers = {}
    for operation, kind in zip(graph.operators, kinds, strict=True):
        for tensor in operation.inputs:
            readers.setdefault(int(tensor), []).append(kind)
    floats = {
        index: _float_tensors(graph, operation)
        for index, operation in enumerate(graph.operators)
        if kinds[index] not in (*CONVERSIONS, *CARRIERS)
    }
    without_kernel = {t: kinds[i] for i, found in floats.items() for t in found if kinds[i] not in INTEGER | {"SHAPE"}}
    for index, operation in enumerate(graph.operators):
        output = graph.tensors[operation.outputs[0]].name if len(operation.outputs) else kinds[index]
        output = (output.decode() if isinstance(output, bytes) else str(output)).split(";")[-1]
        if floats.get(index):
            neighbours = {without_kernel[tensor] for tensor in floats[index] if tensor in without_kernel}
            yield FloatOperation(kinds[index], output, _reason(kinds[index], neighbours))
        elif kinds[index] == "DEQUANTIZE" and set(readers.get(int(operation.outputs[0]), [])) == {"QUANTIZE"}:
            yield FloatOperation(kinds[index], output, "two scales meet that TFLite does not convert directly")


def _float_tensors(graph, operation) -> list[int]:
    from tensorflow.lite.python.schema_py_generated import TensorType

    floats = {getattr(TensorType, name) for name in ("FLOAT32", "FLOAT16", "FLOAT64")}
    tensors = [int(index) for index in (*operation.inputs, *operation.outputs) if index >= 0]
    return [index for index in tensors if graph.tensors[index].type in floats]


def _reason(kind: str, neighbours: set[str]) -> str:
    if kind == "SHAPE":
        return "it reads the size of a float tensor; nothing is computed"
    if kind not in INTEGER:
        return "TFLite's converter has no form of it in integers"
    if neighbours:
        return f"it is next to {', '.join(sorted(neighbours))}, which the converter has in float only"
    return "what it takes or gives has no range of its own in this model"


def _operator_names() -> dict[int, str]:
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator

    return {value: name for name, value in vars(BuiltinOperator).items() if isinstance(value, int)}
