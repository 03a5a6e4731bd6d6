"""A Keras model as an ONNX file, through tf2onnx, checked with onnxruntime.

Keras' own exporter goes the same way and writes broken files, without an error, for `Normalization` (its inputs hang in
the air), grouped convolutions (a call into XLA) and the exact gelu (`Erfc`). Here the graph is traced without XLA, its
weights are frozen before tf2onnx sees it, and `Erfc` becomes 1 - `Erf`.
"""

import importlib.util
import pathlib

import keras

from kprune.deploy.export.check import Export, compare, reason
from kprune.deploy.export.metadata import KEY, dump
from kprune.deploy.export.source import RANDOM_SAMPLES, Source
from kprune.deploy.runtimes.base import quiet
from kprune.deploy.runtimes.onnxruntime import open_onnx
from kprune.deploy.runtimes.samples import random_samples
from kprune.utils.errors import ExportError, OptionError
from kprune.utils.files import write_by_rename
from kprune.utils.packages import need_package

OPSETS = range(13, 19)


def export_onnx(
    model: keras.Model,
    path,
    *,
    check_data=None,
    batch_size: int | None = None,
    opset: int = 17,
    overwrite: bool = True,
) -> Export:
    """Writes a Keras model as an ONNX file and runs the file in onnxruntime to check it. The model does not change.

    The file takes and gives what the model does: the channels stay last. Needs tf2onnx; without onnxruntime the file is
    written and not compared, and the result says so.

    Args:
      model: a built model with known inputs (functional or sequential), on the TensorFlow backend.
      path: the file to write. It appears whole, and only after the check.
      check_data: inputs to compare file and model on, as in `export_tflite`; default: 16 random normal inputs.
      batch_size: samples that one run takes; default: that of the model, so any number where it has none. TensorRT's
        `trtexec` is easiest with a fixed one.
      opset: the version of ONNX' operations, 13 to 18; TensorRT 8.0 (JetPack 4.6) reads 13, TensorRT 8.5 and later 17.
      overwrite: whether an existing file may be replaced.

    Returns:
      What was written and how close it is to the model.

    Raises:
      OptionError: data, `opset` or a `batch_size` that does not fit.
      ModelError: a model without known inputs, another backend than TensorFlow, or outputs that are not finite.
      ExportError: tf2onnx is missing or cannot convert the model, `path` cannot be written, or the file is broken or
        differs from the model by more than 0.001. Nothing is left behind.

    Example:
      >>> print(kprune.export_onnx(small, "small.onnx", check_data=x_test[:64]))
    """
    if opset not in OPSETS:
        raise OptionError(f"opset is {opset!r}.", f"{OPSETS[0]} to {OPSETS[-1]}.", "Pass opset=17.")
    source = Source(model, batch_size)
    check = source.read(check_data, "check_data") or random_samples(source.inputs, RANDOM_SAMPLES)
    _need("tf2onnx")
    _need("onnx")
    closeness = []

    def write(temporary: pathlib.Path) -> None:
        temporary.write_bytes(_convert(source, opset))
        if importlib.util.find_spec("onnxruntime") is None:
            closeness.extend((None, None))
        else:
            closeness.extend(compare(source, lambda: open_onnx(temporary), check, "ONNX file", exact=True))

    path = write_by_rename(path, write, overwrite)
    count = 0 if closeness[0] is None else len(next(iter(check.values())))
    return Export(path, f"ONNX opset {opset}", path.stat().st_size, *closeness, count)


def _need(package: str) -> None:
    need_package(package, "which writes ONNX files", "kprune[export]")


def _convert(source: Source, opset: int) -> bytes:
    import onnx
    import tf2onnx

    try:
        with quiet():
            graph, inputs, outputs = _frozen(source)
            proto, _ = tf2onnx.convert.from_graph_def(
                graph,
                input_names=list(inputs),
                output_names=list(outputs),
                opset=opset,
                custom_op_handlers={"Erfc": (_erfc, [])},
            )
            _rename(proto.graph, inputs | outputs)
            _name_batch(proto.graph, source.batch)
            onnx.helper.set_model_props(proto, {KEY: dump(source.description() | {"opset": opset})})
            onnx.checker.check_model(proto, full_check=True)
        return proto.SerializeToString()
    except Exception as error:
        raise ExportError(
            f"{source.name} could not be converted to ONNX: {reason(error)}.",
            f"A model of operations that tf2onnx knows at opset {opset}.",
            "Replace the operation that the reason names, or write the model with kprune.export_saved_model.",
        ) from error


def _frozen(source: Source) -> tuple:
    """The graph with its weights as constants, and the new name of each input and output tensor by its old one."""
    function, names = source.freeze()
    inputs = {tensor.name: source.names[spec.name] for tensor, spec in zip(function.inputs, source.inputs, strict=True)}
    outputs = {tensor.name: name for tensor, name in zip(function.outputs, names, strict=True)}
    return function.graph.as_graph_def(), inputs, outputs


def _erfc(context, node, name: str, _) -> None:
    """1 - erf(x), for tf2onnx, which does not know erfc."""
    import numpy as np

    output = node.output[0]
    consumers = context.find_output_consumers(output)
    dtype = context.get_dtype(output)
    one = context.make_const(f"{name}_one", np.array(1, "float32"))
    node.type = "Erf"
    difference = context.make_node(
        "Sub", [one.output[0], output], shapes=[context.get_shape(output)], dtypes=[dtype], name=f"{name}_complement"
    )
    context.replace_all_inputs(output, difference.output[0], ops=consumers)


def _rename(graph, names: dict[str, str]) -> None:
    """Gives the file's inputs and outputs the model's names instead of those of TensorFlow's tensors."""
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _name_batch(graph, batch: int | None) -> None:
    for value in (*graph.input, *graph.output):
        axes = value.type.tensor_type.shape.dim
        if batch is None and len(axes) and not axes[0].dim_value:
            axes[0].dim_param = "batch"
