"""Where the ranges of quantizers start: at what the float model's activations span."""

import importlib

import numpy as np

BATCH = 32


def start_ranges(translated, trained, arrays: list[np.ndarray]) -> None:
    """Sets the ranges of the quantizers to those of the float model's activations, from the least value that the data
    gives to the greatest: as in quantization after training, nothing is clipped."""
    layers = [layer for layer in translated.layers if not isinstance(layer.output, (list, dict))]
    model = importlib.import_module("tf_keras").Model(translated.inputs, [layer.output for layer in layers])
    ranges = []
    for start in range(0, len(arrays[0]), BATCH):
        outputs = model([array[start : start + BATCH] for array in arrays], training=False)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        ranges.append([(float(np.min(x)), float(np.max(x))) for x in map(np.asarray, outputs)])
    ranges = np.asarray(ranges)
    ends = zip(ranges[..., 0].min(0), ranges[..., 1].max(0), strict=True)
    found = dict(zip((layer.name for layer in layers), ends, strict=True))
    for layer in trained.layers:
        for variable in layer.weights:
            quantizer, _, end = variable.name.split("/")[-1].split(":")[0].rpartition("_")
            if end in ("min", "max"):
                _start_range(layer, variable, quantizer, end == "max", found)


def _start_range(layer, variable, quantizer: str, upper: bool, found: dict) -> None:
    """Sets one end of one range; `quantizer` is what the variable is named after."""
    weights = {w.name.split("/")[-1].split(":")[0]: w.numpy() for w in layer.weights}
    if quantizer in weights:  # of a kernel, symmetric, over all of it or for each slice of one axis
        kernel = np.abs(weights[quantizer])
        axes = [i for i in (-1, -2) if variable.shape.num_elements() == kernel.shape[i]]
        rows = np.moveaxis(kernel, axes[0], -1).reshape(-1, kernel.shape[axes[0]]) if axes else kernel.reshape(-1, 1)
        variable.assign(np.reshape(rows.max(0) if upper else -rows.max(0), variable.shape))
        return
    names = _input_names(layer) if quantizer.startswith("quantize_layer") else [layer.name]
    source = names[0].removeprefix("quant_") if names else ""
    if source in found:
        low, high = found[source]
        variable.assign(np.reshape(max(high, 0.0) if upper else min(low, 0.0), variable.shape))


def _input_names(layer) -> list[str]:
    nodes = [node.inbound_layers for node in layer._inbound_nodes]
    return [one.name for node in nodes for one in (node if isinstance(node, list) else [node])]
