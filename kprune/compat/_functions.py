"""TensorFlow functions that tf_keras records in a graph, as operations of keras.ops, with TensorFlow's arguments."""

from keras import ops


def _reduce(function):
    return lambda input_tensor, axis=None, keepdims=False: function(input_tensor, axis=axis, keepdims=keepdims)


def _resize(images, size, method="bilinear", preserve_aspect_ratio=False, antialias=False):
    return ops.image.resize(images, size, interpolation=method, antialias=antialias, data_format="channels_last")


def _pad(tensor, paddings, mode="CONSTANT", constant_values=0, name=None):
    mode = mode.lower()
    return ops.pad(tensor, paddings, mode, constant_values if mode == "constant" else None)


FUNCTIONS = {
    "__operators__.add": lambda x, y: x + y,
    "math.add": lambda x, y: x + y,
    "math.subtract": lambda x, y: x - y,
    "math.multiply": lambda x, y: x * y,
    "math.truediv": lambda x, y: x / y,
    "math.divide": lambda x, y: x / y,
    "math.pow": lambda x, y: x**y,
    "math.negative": lambda x: -x,
    "math.abs": ops.abs,
    "math.exp": ops.exp,
    "math.log": ops.log,
    "math.sqrt": ops.sqrt,
    "math.rsqrt": ops.rsqrt,
    "math.square": ops.square,
    "math.maximum": lambda x, y: ops.maximum(x, y),
    "math.minimum": lambda x, y: ops.minimum(x, y),
    "math.sigmoid": ops.sigmoid,
    "math.tanh": ops.tanh,
    "math.softplus": lambda features: ops.softplus(features),
    "math.reduce_mean": _reduce(ops.mean),
    "math.reduce_sum": _reduce(ops.sum),
    "math.reduce_max": _reduce(ops.max),
    "math.reduce_min": _reduce(ops.min),
    "nn.relu": lambda features: ops.relu(features),
    "nn.relu6": lambda features: ops.relu6(features),
    "nn.elu": lambda features: ops.elu(features),
    "nn.silu": lambda features, beta=1.0: features * ops.sigmoid(beta * features),
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate),
    "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, alpha),
    "nn.softmax": lambda logits, axis=-1: ops.softmax(logits, axis),
    "nn.sigmoid": ops.sigmoid,
    "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
    "concat": lambda values, axis: ops.concatenate(values, axis),
    "stack": lambda values, axis=0: ops.stack(values, axis),
    "split": lambda value, num_or_size_splits, axis=0: ops.split(value, _cuts(num_or_size_splits), axis),
    "reshape": lambda tensor, shape: ops.reshape(tensor, shape),
    "transpose": lambda a, perm=None, conjugate=False: ops.transpose(a, perm),
    "compat.v1.transpose": lambda a, perm=None, conjugate=False: ops.transpose(a, perm),
    "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
    "squeeze": lambda input, axis=None: ops.squeeze(input, axis),
    "compat.v1.squeeze": lambda input, axis=None: ops.squeeze(input, axis),
    "pad": _pad,
    "compat.v1.pad": _pad,
    "cast": lambda x, dtype: ops.cast(x, getattr(dtype, "name", dtype)),
    "identity": lambda input: input,
    "convert_to_tensor": lambda value, dtype=None: value,
    "linalg.matmul": lambda a, b: ops.matmul(a, b),
    "image.resize": _resize,
}


def _cuts(sections):
    """TensorFlow counts parts or gives their sizes, NumPy counts parts or gives where to cut."""
    if isinstance(sections, int):
        return sections
    total, cuts = 0, []
    for size in sections[:-1]:
        total += size
        cuts.append(total)
    return cuts


def slices(spec):
    """What stands between the brackets, from how tf_keras records it."""
    if isinstance(spec, dict):
        return slice(spec["start"], spec["stop"], spec["step"])
    return tuple(map(slices, spec)) if isinstance(spec, (list, tuple)) else spec
