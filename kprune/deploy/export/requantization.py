"""What 8-bit files multiply sums by to fit them into 8 bits again."""

import numpy as np

from kprune.utils.errors import ExportError

SUMS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
XNNPACK_LIMIT = 256.0


def check_factors(model, name: str) -> None:
    """Refuses a file that LiteRT's XNNPACK cannot open: some versions end the whole process at it.

    A sum of products is multiplied by `scale of the inputs * scale of the weights / scale of the outputs`; XNNPACK
    wants less than 256. More means that the outputs go far beyond the range that was learnt for them.

    Args:
      model: the `ModelT` of a TFLite file.
      name: the model, for the message.

    Raises:
      ExportError: a factor is 256 or more.
    """
    found = [found for graph in model.subgraphs for found in _factors(model, graph)]
    factor, layer = max(found, default=(0.0, ""))
    if factor >= XNNPACK_LIMIT:
        raise ExportError(
            f"'{layer}' of {name} would multiply its sums by {factor:.4g} to fit them into 8 bits, so its outputs go "
            "far beyond the range that was learnt for them.",
            f"Less than {XNNPACK_LIMIT:g}, or LiteRT's XNNPACK does not open the file.",
            "Look whether the weights of this layer exploded; else train at a lower learning rate, or learn the ranges "
            "from data like those on the device.",
        )


def _factors(model, graph):
    """The largest factor of each sum of products with 8-bit outputs, and the name of its weights."""
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator

    sums = {getattr(BuiltinOperator, name) for name in SUMS}
    for operation in graph.operators:
        if model.operatorCodes[operation.opcodeIndex].builtinCode in sums:
            inputs, weights, outputs = (graph.tensors[i] for i in (*operation.inputs[:2], operation.outputs[0]))
            factors = [_scales(inputs)[:1] * _scales(weights) / scale for scale in _scales(outputs)]
            if factors and factors[0].size:
                text = weights.name.decode() if isinstance(weights.name, bytes) else str(weights.name)
                yield float(factors[0].max()), text.split(";")[-1]


def _scales(tensor) -> np.ndarray:
    found = tensor.quantization.scale if tensor.quantization is not None else None
    return np.asarray([] if found is None else found, "float64")
