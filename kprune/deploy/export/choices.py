"""Which outputs of a model choose among classes: only there does the largest one mean something."""

import contextlib

import keras

from kprune.compat.functional import functional, is_model, nodes, output_names
from kprune.compat.training import compile_arguments
from kprune.utils.errors import ModelError

SOFTMAX = ("softmax", "log_softmax")
LOSSES = ("categoricalcrossentropy", "categoricalfocalcrossentropy")  # and sparse ones
POOLING = ("GlobalAveragePooling", "GlobalAvgPool", "GlobalMaxPooling", "GlobalMaxPool")


def choices(model) -> list[str]:
    """The names, as files have them, of the outputs that are a choice of classes."""
    try:
        outputs, makers = _outputs(model)
    except ModelError:
        return []
    losses = _losses(model, list(outputs))
    found = []
    for name, tensor in outputs.items():
        if len(tensor.shape) > 1 and tensor.shape[-1] != 1:
            maker, inputs = makers(tensor)
            loss, linear = losses.get(name), _activation(maker) == "linear"
            logits = linear and (loss.endswith(LOSSES) if loss else not losses and _is_head(maker, inputs, makers))
            if logits or _activation(maker) in SOFTMAX:
                found.append(name)
    return found


def _outputs(model) -> tuple:
    """The symbolic outputs by name, and what tells the layer that made a tensor and its inputs."""
    if isinstance(model, keras.Model):
        function = functional(model)
        struct, flat = function._outputs_struct, function.outputs
        made = {id(tensor): node for node in nodes(function) for tensor in node.outputs}

        def makers(tensor):
            node = made.get(id(tensor))
            return (None, []) if node is None else (node.operation, node.inputs)
    else:
        struct, flat = model.output, model.outputs

        def makers(tensor):
            layer = tensor._keras_history.layer
            inputs = layer.input if layer._inbound_nodes and len(layer._inbound_nodes) == 1 else []
            return getattr(layer, "layer", layer), inputs if isinstance(inputs, list) else [inputs]

    if isinstance(struct, dict) and not any(isinstance(value, (dict, list, tuple)) for value in struct.values()):
        return {str(name): struct[name] for name in sorted(struct)}, makers  # as flat lists of losses lie
    return {f"output_{index}": tensor for index, tensor in enumerate(flat)}, makers


def _activation(maker) -> str:
    """The name of what a layer or operation does last, "linear" for a weighted layer without an activation."""
    if maker is None:
        return ""
    if type(maker).__name__ in ("Softmax", "LogSoftmax"):
        return "softmax" if getattr(maker, "axis", -1) in (-1, None) else ""
    if is_model(maker):
        nested, inner = _outputs(maker)
        return _activation(inner(next(iter(nested.values())))[0]) if len(nested) == 1 else ""
    function = getattr(maker, "activation", None)
    function = getattr(function, "activation", function)  # that of a layer wrapped for quantization
    return getattr(function, "__name__", "linear" if hasattr(maker, "kernel") or hasattr(maker, "units") else "")


def _is_head(maker, inputs: list, makers) -> bool:
    """Whether a layer is a Dense after a global pooling, as classifiers end; dropout between counts for nothing."""
    if type(maker).__name__ != "Dense" or not inputs:
        return False
    before, its_inputs = makers(inputs[0])
    while type(before).__name__ in ("Dropout", "Flatten", "BatchNormalization") and its_inputs:
        before, its_inputs = makers(its_inputs[0])
    return type(before).__name__.startswith(POOLING)


def _losses(model, names: list[str]) -> dict[str, str]:
    """What the model is compiled to learn, by output; nothing where it is not compiled."""
    if isinstance(model, keras.Model):
        given = (compile_arguments(model) or {}).get("loss")
    else:
        given = getattr(model, "loss", None)
    if isinstance(given, dict):
        keys = output_names(functional(model), given) if isinstance(model, keras.Model) else names
        given = [given.get(key) for key in keys] if set(given) <= set(keys) else []
    if given is not None and not isinstance(given, (list, tuple)):
        given = [given] * len(names)
    found = {}
    for name, loss in zip(names, given or [], strict=False):
        with contextlib.suppress(AttributeError):
            text = loss if isinstance(loss, str) else getattr(loss, "__name__", None) or type(loss).__name__
            found[name] = text.replace("_", "").lower()
    return found
