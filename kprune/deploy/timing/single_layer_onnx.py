"""ONNX files of one layer each, channels first, as whole files are once the runtime has merged its transposes."""

import functools

import numpy as np

from kprune.rules import OperatorConfig

OPSET, IR_VERSION = 17, 8


def one_layer(kind: OperatorConfig, width_in: int, width_out: int, quantize: str | None) -> bytes:
    """The bytes of a float32 file with one layer; see `kprune.deploy.timing.single_layer_tflite.one_layer`."""
    from onnx import TensorProto, helper

    widths = [width_in if kind.reads else width_out] * kind.operands
    shapes = [(kind.size[0], width) if kind.operation == "dense" else (1, width, *kind.size) for width in widths]
    names = [f"input{index}" for index in range(len(shapes))]
    nodes, constants = WRITERS[kind.operation](kind, names, width_in, width_out)
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info(*pair) for pair in zip(names, [TensorProto.FLOAT] * 9, shapes, strict=False)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION).SerializeToString()


def weights(shape: tuple[int, ...], filters: int) -> list:
    """A kernel and a bias as constants."""
    from onnx import numpy_helper

    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return [numpy_helper.from_array(values, "kernel"), numpy_helper.from_array(np.zeros(filters, np.float32), "bias")]


def window(kind: OperatorConfig) -> dict:
    """The attributes of what slides a window."""
    padding = {"same": "SAME_UPPER", "valid": "VALID"}[kind.padding]
    dilation = {"dilations": kind.dilation} if kind.dilation else {}
    return {"kernel_shape": kind.kernel, "strides": kind.strides, "auto_pad": padding, **dilation}


def write_conv(kind: OperatorConfig, names: list[str], width_in: int, width_out: int):
    from onnx import helper

    deep = kind.operation == "depthwise"
    shape = (width_out, 1 if deep else width_in, *kind.kernel)
    groups = width_out if deep else 1
    conv = helper.make_node("Conv", [*names, "kernel", "bias"], ["sum"], group=groups, **window(kind))
    return [conv, helper.make_node("Relu", ["sum"], ["output"])], weights(shape, width_out)


def write_dense(kind: OperatorConfig, names: list[str], width_in: int, width_out: int):
    from onnx import helper

    return [helper.make_node("Gemm", [*names, "kernel", "bias"], ["output"])], weights((width_in, width_out), width_out)


def write_merge(operation: str, kind: OperatorConfig, names: list[str], *_):
    from onnx import helper

    sums = [names[0], *(f"sum{index}" for index in range(1, len(names) - 1)), "sum"]
    steps = [helper.make_node(operation, [sums[i], names[i + 1]], [sums[i + 1]]) for i in range(len(names) - 1)]
    return [*steps, helper.make_node("Relu", ["sum"], ["output"])], []


def write_pool(operation: str, kind: OperatorConfig, names: list[str], *_):
    from onnx import helper

    return [helper.make_node(operation, names, ["output"], **window(kind))], []


def write_mean(kind: OperatorConfig, names: list[str], *_):
    from onnx import helper

    return [helper.make_node("GlobalAveragePool", names, ["output"])], []


WRITERS = {
    "conv": write_conv,
    "depthwise": write_conv,
    "dense": write_dense,
    "add": functools.partial(write_merge, "Add"),
    "multiply": functools.partial(write_merge, "Mul"),
    "max_pool": functools.partial(write_pool, "MaxPool"),
    "average_pool": functools.partial(write_pool, "AveragePool"),
    "mean": write_mean,
}
