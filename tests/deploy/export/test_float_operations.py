"""What of an int8 file computes in float is named, with the reason; and where the largest output means a class."""

import dataclasses
import json
import logging

import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.deploy.export import export_tflite
from kprune.deploy.export.choices import choices

IMAGES = np.random.default_rng(0).normal(size=(16, 8, 8, 4)).astype("float32")
PARTS = {
    "elu": (lambda x: layers.ELU(name="bent")(x), "ELU", "no form of it in integers"),
    "sine": (lambda x: layers.Conv2D(4, 1)(ops.sin(layers.Conv2D(4, 1)(x))), "SIN", "no form of it in integers"),
    "floor": (lambda x: layers.Conv2D(4, 1)(ops.floor(x)), "FLOOR", "no form of it in integers"),
}


def in_float(path):
    """The same question to the runtime, without its delegates."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    kind = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    run = litert.Interpreter(str(path), experimental_op_resolver_type=kind)
    run.allocate_tensors()
    dtypes = {detail["index"]: detail["dtype"] for detail in run.get_tensor_details()}
    return [
        operation["op_name"]
        for operation in run._get_ops_details()
        if operation["op_name"] not in ("QUANTIZE", "DEQUANTIZE")
        and np.float32 in {dtypes.get(index) for index in (*operation["inputs"], *operation["outputs"])}
    ]


@pytest.mark.parametrize("part", PARTS)
def test_operations_in_float_are_named_with_a_reason(part, tmp_path, caplog):
    make, operator, reason = PARTS[part]
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, make(layers.Conv2D(4, 3, activation="relu")(inputs)), name="net")
    with caplog.at_level(logging.WARNING, "kprune"):
        export = export_tflite(model, tmp_path / "net.tflite", quantize="int8", representative_data=IMAGES)
    assert [found.operator for found in export.float_operations] == in_float(export.path)
    found = next(found for found in export.float_operations if found.operator == operator)
    assert reason in found.reason and found.layer and str(found) in str(export) and str(found) in caplog.text
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.reason = ""
    json.dumps(export.to_json())


@pytest.mark.parametrize("quantize", [None, "float16", "dynamic", "int8"])
def test_nothing_is_named_where_nothing_is_amiss(quantize, tmp_path, caplog):
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(layers.MaxPooling2D()(inputs)))
    export = export_tflite(model, tmp_path / "net.tflite", quantize=quantize, representative_data=IMAGES)
    assert export.float_operations == () and not caplog.text and len(str(export).splitlines()) == 2


def features(x):
    return layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(x))


OUTPUTS = {
    "softmax": (lambda x: layers.Dense(3, activation="softmax")(layers.Flatten()(x)), None, True),
    "softmax operation": (lambda x: ops.softmax(layers.Dense(3)(features(x))), None, True),
    "a class for each pixel": (lambda x: layers.Softmax()(layers.Conv2D(3, 1)(x)), None, True),
    "softmax over another axis": (lambda x: layers.Softmax(axis=1)(x), None, False),
    "logits after a global pooling": (lambda x: layers.Dense(3)(layers.Dropout(0.2)(features(x))), None, True),
    "the same, compiled for regression": (lambda x: layers.Dense(3)(features(x)), "mse", False),
    "logits that the loss tells": (
        lambda x: layers.Dense(3)(layers.Flatten()(x)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        True,
    ),
    "coordinates": (lambda x: layers.Dense(4)(layers.Flatten()(x)), None, False),
    "features": (features, None, False),
    "a map of numbers": (lambda x: layers.Conv2D(2, 1)(x), None, False),
    "labels that do not exclude each other": (
        lambda x: layers.Dense(4, activation="sigmoid")(features(x)),
        None,
        False,
    ),
    "one unit": (lambda x: layers.Dense(1)(features(x)), "binary_crossentropy", False),
    "a distance": (lambda x: ops.sum(ops.abs(x), axis=(1, 2)), None, False),
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_same_class_is_told_where_outputs_choose_one(output, tmp_path):
    make, loss, told = OUTPUTS[output]
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, make(inputs))
    if loss is not None:
        model.compile("sgd", loss)
    export = export_tflite(model, tmp_path / "net.tflite", check_data=IMAGES)
    assert ("same class" in str(export)) == (export.agreement is not None) == told


def test_each_output_is_judged_by_itself():
    inputs = keras.Input((8, 8, 4))
    boxes = layers.Dense(4, name="b")(layers.Dense(8)(layers.Flatten()(inputs)))
    heads = {
        "label": layers.Dense(3, name="a")(layers.Flatten()(inputs)),
        "box": boxes,
    }
    model = keras.Model(inputs, heads)
    assert choices(model) == []
    model.compile("sgd", {"label": "categorical_crossentropy", "box": "mse"})
    assert choices(model) == ["label"]
