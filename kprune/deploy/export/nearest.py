"""Repetition as resizing by the nearest pixel, which TFLite Micro has, in place of TILE, which it lacks."""

import contextlib
import importlib
import math

import keras
import numpy as np


@contextlib.contextmanager
def repeats_as_resizes():
    """Lets `keras.ops.repeat`, so UpSampling1D to 3D too, become RESIZE_NEAREST_NEIGHBOR in what is traced meanwhile.

    The values are the same: each is the one of its nearest neighbour. Where sizes are unknown nothing changes.
    """
    module = importlib.import_module("keras.src.backend.tensorflow.numpy")
    plain_repeat, plain_call = module.repeat, keras.layers.UpSampling2D.call

    def repeat(x, repeats, axis=None):
        resized = _repeated(x, repeats, axis)
        return plain_repeat(x, repeats, axis=axis) if resized is None else resized

    def call(layer, inputs):
        last = layer.data_format == "channels_last" and layer.interpolation == "nearest"
        sizes = inputs.shape[1:3]
        if not last or None in sizes or inputs.dtype != "float32":
            return plain_call(layer, inputs)
        return _resize(inputs, [size * factor for size, factor in zip(sizes, layer.size, strict=True)])

    module.repeat, keras.layers.UpSampling2D.call = repeat, call
    try:
        yield
    finally:
        module.repeat, keras.layers.UpSampling2D.call = plain_repeat, plain_call


def _repeated(x, repeats, axis: int | None):
    """`x` with each slice of an axis repeated, or None where that cannot be written as resizing an image."""
    import tensorflow as tf

    whole = (
        isinstance(repeats, (int, np.integer)) or isinstance(repeats, (list, tuple, np.ndarray)) and len(repeats) == 1
    )
    if axis is None or not whole or getattr(x, "dtype", None) != tf.float32 or x.shape.rank is None:
        return None
    factor, rank = int(np.ravel(repeats)[0]), x.shape.rank
    axis = axis % rank
    if axis == 0 or None in x.shape[1:] or factor < 1:
        return None
    shape = x.shape.as_list()
    # Slices that follow one another are repeated one by one: the axes before may be part of the same rows.
    channels = shape[-1] if axis < rank - 1 else 1
    rows, columns = math.prod(shape[1 : axis + 1]), math.prod(shape[axis + 1 : -1])
    resized = _resize(tf.reshape(x, [-1, rows, columns, channels]), [rows * factor, columns])
    return tf.reshape(resized, [-1, *shape[1:axis], shape[axis] * factor, *shape[axis + 1 :]])


def _resize(images, size: list[int]):
    import tensorflow as tf

    # Centers of pixels lie half a pixel from their edges, so no rounding decides which neighbour is nearest.
    return tf.raw_ops.ResizeNearestNeighbor(images=images, size=size, align_corners=False, half_pixel_centers=True)
