"""TensorFlow functions that tf_keras records in a graph, as operations of keras.ops, with TensorFlow's arguments."""

import numpy as np
from keras import KerasTensor, ops

from kprune.compat.keras2.spatial import FUNCTIONS as SPATIAL
from kprune.compat.keras2.spatial import refused


def _reduce(function):
    return lambda input_tensor, axis=None, keepdims=False: function(input_tensor, axis=axis, keepdims=bool(keepdims))


def _unary(function):
    """One tensor, whatever TensorFlow calls it; some functions take it by name."""
    return lambda *args, **named: function(*(args or named.values()))


def _binary(function):
    """Two tensors; a number takes the type of the other, as in TensorFlow."""
    return lambda x, y: function(x, y)


def _pad(tensor, paddings, mode="CONSTANT", constant_values=0, name=None):
    mode = mode.lower()
    pairs = [tuple(int(n) for n in pair) for pair in np.asarray(paddings)]
    return ops.pad(tensor, pairs, mode, constant_values if mode == "constant" else None)


def _cuts(sections):
    """TensorFlow counts parts or gives their sizes, NumPy counts parts or gives where to cut."""
    if np.ndim(sections) == 0:
        return int(sections)
    return np.cumsum(np.asarray(sections)[:-1]).tolist()


def _split(value, num_or_size_splits, axis=0, num=None):
    sizes = np.asarray(num_or_size_splits)
    if sizes.ndim and -1 in sizes:
        sizes = np.where(sizes == -1, value.shape[axis] - sizes.sum() - 1, sizes)
    return ops.split(value, _cuts(sizes), axis)


def _unstack(value, num=None, axis=0):
    return [ops.squeeze(x, axis) for x in ops.split(value, value.shape[axis], axis)]


def _squeeze(input, axis=None, squeeze_dims=None):
    axis = squeeze_dims if axis is None else axis
    axis = None if axis is None or np.size(axis) == 0 else axis
    for place in sorted((a % len(input.shape) for a in np.atleast_1d(axis)), reverse=True) if axis is not None else ():
        input = ops.squeeze(input, int(place))
    return ops.squeeze(input) if axis is None else input


def _gather(params, indices, validate_indices=None, axis=None, batch_dims=0):
    if batch_dims:
        raise refused(f"batch_dims={batch_dims}")
    return ops.take(params, indices, axis=0 if axis is None else int(axis))


def _matmul(a, b, transpose_a=False, transpose_b=False, **options):
    turned = [ops.swapaxes(x, -1, -2) if turn else x for x, turn in ((a, transpose_a), (b, transpose_b))]
    if any(options.get(name) for name in ("adjoint_a", "adjoint_b")):
        raise refused("a conjugated matrix")
    return ops.matmul(*turned)


def _slice(input_, begin, size):
    pairs = zip(np.asarray(begin).tolist(), np.asarray(size).tolist(), strict=True)
    return input_[tuple(slice(b or None, None if n == -1 else b + n) for b, n in pairs)]


def _l2_normalize(x, axis=None, epsilon=1e-12, dim=None):
    axis = dim if axis is None else axis
    return ops.multiply(x, ops.rsqrt(ops.maximum(ops.sum(ops.square(x), axis=axis, keepdims=True), epsilon)))


def _norm(tensor, ord="euclidean", axis=None, keepdims=None, keep_dims=None):
    if ord not in ("euclidean", 2, 2.0):
        raise refused(f"ord={ord!r}")
    return ops.sqrt(ops.sum(ops.square(tensor), axis=axis, keepdims=bool(keepdims or keep_dims)))


def _where(condition, x=None, y=None):
    if x is None or y is None:
        raise refused("a condition alone")
    return ops.where(condition, x, y)


def _cumsum(x, axis=0, exclusive=False, reverse=False):
    if exclusive or reverse:
        raise refused(f"exclusive={exclusive}, reverse={reverse}")
    return ops.cumsum(x, int(axis))


def _dtype(value) -> str:
    return getattr(value, "name", value)


def _constant(value, dtype=None, *rest, **options):
    return value if isinstance(value, KerasTensor) or dtype is None else np.asarray(value, _dtype(dtype))


_UNARY = {
    "math": "abs exp expm1 log log1p sqrt rsqrt square sigmoid tanh softplus negative sin cos tan sinh cosh erf sign "
    "floor ceil round reciprocal logical_not is_nan:isnan asin:arcsin acos:arccos atan:arctan log_sigmoid:log_sigmoid",
    "nn": "relu relu6 selu sigmoid tanh softplus softsign",
    "": "abs exp sqrt square round sign sigmoid tanh zeros_like ones_like stop_gradient",
    "compat.v1": "zeros_like ones_like",
}
_BINARY = {
    "math": "add subtract multiply divide truediv:divide pow:power maximum minimum floordiv:floor_divide mod "
    "floormod:mod atan2:arctan2 equal not_equal greater greater_equal less less_equal logical_and logical_or",
    "compat.v1": "floor_div:floor_divide div:divide",
    "": "add subtract multiply divide maximum minimum pow:power equal not_equal greater less",
    "__operators__": "add",
}


def _table(kinds: dict, wrap) -> dict:
    """{name in TensorFlow: function}, from words `name` or `name in TensorFlow:name in Keras`."""
    pairs = [(kind, *(word.split(":") * 2)[:2]) for kind, words in kinds.items() for word in words.split()]
    found = {".".join(filter(None, (kind, old))): getattr(ops, new, None) for kind, old, new in pairs}
    return {name: wrap(function) for name, function in found.items() if function is not None}


_REDUCTIONS = {"mean": ops.mean, "sum": ops.sum, "max": ops.max, "min": ops.min, "prod": ops.prod, "std": ops.std}
_REDUCTIONS |= {"variance": ops.var, "any": ops.any, "all": ops.all, "logsumexp": ops.logsumexp}
FUNCTIONS = {
    **SPATIAL,
    **_table(_UNARY, _unary),
    **_table(_BINARY, _binary),
    **{f"math.reduce_{name}": _reduce(function) for name, function in _REDUCTIONS.items()},
    "math.squared_difference": lambda x, y: ops.square(ops.subtract(x, y)),
    "math.argmax": lambda input, axis=0, output_type=None: ops.argmax(input, axis),
    "math.argmin": lambda input, axis=0, output_type=None: ops.argmin(input, axis),
    "math.top_k": lambda input, k=1, sorted=True: ops.top_k(input, int(k), sorted),
    "math.cumsum": _cumsum,
    "math.l2_normalize": _l2_normalize,
    "linalg.l2_normalize": _l2_normalize,
    "nn.l2_normalize": _l2_normalize,
    "norm": _norm,
    "compat.v1.norm": _norm,
    "nn.elu": lambda features: ops.elu(features),
    "nn.silu": lambda features, beta=1.0: ops.multiply(features, ops.sigmoid(ops.multiply(features, beta))),
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate),
    "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, alpha),
    "nn.softmax": lambda logits, axis=-1: ops.softmax(logits, -1 if axis is None else axis),
    "nn.log_softmax": lambda logits, axis=-1: ops.log_softmax(logits, -1 if axis is None else axis),
    "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
    "concat": lambda values, axis: ops.concatenate(values, int(axis)),
    "stack": lambda values, axis=0: ops.stack(values, int(axis)),
    "unstack": _unstack,
    "split": _split,
    "compat.v1.split": _split,
    "transpose": lambda a, perm=None, conjugate=False: ops.transpose(a, perm),
    "compat.v1.transpose": lambda a, perm=None, conjugate=False: ops.transpose(a, perm),
    "expand_dims": lambda input, axis: ops.expand_dims(input, int(axis)),
    "squeeze": _squeeze,
    "compat.v1.squeeze": _squeeze,
    "pad": _pad,
    "compat.v1.pad": _pad,
    "repeat": lambda input, repeats, axis=None: ops.repeat(input, repeats, axis),
    "reverse": lambda tensor, axis: ops.flip(tensor, axis),
    "roll": lambda input, shift, axis: ops.roll(input, shift, axis),
    "gather": _gather,
    "compat.v1.gather": _gather,
    "slice": _slice,
    "where": _where,
    "one_hot": lambda indices, depth: ops.one_hot(indices, int(depth)),
    "cast": lambda x, dtype: ops.cast(x, _dtype(dtype)),
    "identity": lambda input: input,
    "convert_to_tensor": _constant,
    "linalg.matmul": _matmul,
    "matmul": _matmul,
    "einsum": lambda equation, *inputs: ops.einsum(equation, *inputs),
    "tensordot": lambda a, b, axes: ops.tensordot(a, b, axes),
}
# Functions of constants alone, which TensorFlow itself computes while translating: none of them touches a file.
FOLDED = frozenset(
    {*FUNCTIONS, "range", "linspace", "meshgrid", "zeros", "ones", "fill", "constant", "reshape", "tile"}
)
FOLDED |= {"broadcast_to", "eye", "strided_slice"}
# Functions that give each example its own output, so that the batch stays what it is.
BATCHWISE = frozenset({*_table(_UNARY, _unary), *_table(_BINARY, _binary), "image.resize", "clip_by_value", "cast"})


def slices(spec):
    """What stands between the brackets, from how tf_keras records it."""
    if isinstance(spec, dict):
        return slice(*(_place(spec[key]) for key in ("start", "stop", "step")))
    return tuple(map(slices, spec)) if isinstance(spec, (list, tuple)) else _place(spec)


def _place(value):
    """A place as Python counts them; tf.newaxis, None and an ellipsis as they are."""
    return int(value) if isinstance(value, np.ndarray | np.integer) else value
