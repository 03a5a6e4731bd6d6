"""TensorFlow functions of images, as operations of keras.ops, with TensorFlow's arguments."""

import math

import numpy as np
from keras import ops

from kprune.utils.errors import ModelError

METHODS = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")


def refused(what: str) -> ModelError:
    """The error for a call that only TensorFlow computes."""
    return ModelError(
        f"A function of the model is called with {what}, which Keras 3 does not compute.",
        "Options that both have.",
        "Replace it by a layer before translating.",
    )


def _resize(images, size, method="bilinear", preserve_aspect_ratio=False, antialias=False):
    method = str(getattr(method, "value", method)).lower()
    if preserve_aspect_ratio or method not in METHODS:
        raise refused(f"preserve_aspect_ratio={preserve_aspect_ratio}, method={method!r}")
    size = tuple(int(n) for n in np.asarray(size).reshape(-1))
    return ops.image.resize(images, size, interpolation=method, antialias=antialias, data_format="channels_last")


def _old_resize(method: str):
    """The resizing of TensorFlow 1, which by default does not look at the middle of a pixel."""

    def resize(images, size, align_corners=False, half_pixel_centers=False):
        factors = [n // m if m and n % m == 0 else 0 for n, m in zip(size, images.shape[1:3], strict=True)]
        if method == "nearest" and not align_corners and all(factors):  # both ways of looking find the same pixels
            return _resize(images, size, method)
        if align_corners or not half_pixel_centers:
            raise refused(f"align_corners={align_corners}, half_pixel_centers={half_pixel_centers}")
        return _resize(images, size, method)

    return resize


def _window(values, rank: int, data_format) -> int | tuple:
    """The size of a window in space, or one per axis; from one number, one per axis in space, or one per axis."""
    values = [int(n) for n in np.asarray(values).reshape(-1)]
    if len(values) == rank and rank > 2:
        values = values[2:] if _first(data_format) else values[1:-1]
    return values[0] if len(set(values)) == 1 else tuple(values)


def _first(data_format) -> bool:
    return data_format is not None and str(data_format).upper().startswith("NC")


def _pool(function):
    def pool(input, ksize, strides, padding, data_format="NHWC"):
        rank = len(input.shape)
        order = "channels_first" if _first(data_format) else "channels_last"
        sizes = (_window(n, rank, data_format) for n in (ksize, strides))
        return function(input, *sizes, padding=padding.lower(), data_format=order)

    return pool


def _convolution(function, kernel: str):
    def convolve(input, filters=None, strides=1, padding="VALID", data_format="NHWC", dilations=None, **options):
        filters = options.get(kernel, filters)
        if not isinstance(padding, str):
            raise refused(f"padding={padding}")
        order = "channels_first" if _first(data_format) else "channels_last"
        steps, rates = (_window(1 if n is None else n, len(input.shape), data_format) for n in (strides, dilations))
        return function(input, filters, steps, padding.lower(), data_format=order, dilation_rate=rates)

    return convolve


def _depth_to_space(input, block_size, data_format="NHWC"):
    if _first(data_format):
        raise refused(f"data_format={data_format!r}")
    if hasattr(ops, "depth_to_space"):
        return ops.depth_to_space(input, block_size, "channels_last")
    _, height, width, channels = input.shape
    blocks = ops.reshape(input, (-1, height, width, block_size, block_size, channels // block_size**2))
    return ops.reshape(
        ops.transpose(blocks, (0, 1, 3, 2, 4, 5)), (-1, height * block_size, width * block_size, blocks.shape[-1])
    )


def _space_to_depth(input, block_size, data_format="NHWC"):
    if _first(data_format):
        raise refused(f"data_format={data_format!r}")
    if hasattr(ops, "space_to_depth"):
        return ops.space_to_depth(input, block_size, "channels_last")
    _, height, width, channels = input.shape
    height, width = height // block_size, width // block_size
    blocks = ops.reshape(input, (-1, height, block_size, width, block_size, channels))
    return ops.reshape(ops.transpose(blocks, (0, 1, 3, 2, 4, 5)), (-1, height, width, channels * block_size**2))


def _standardization(image):
    axes = (-3, -2, -1)
    least = 1.0 / math.sqrt(math.prod(image.shape[axis] for axis in axes))
    middle = ops.subtract(image, ops.mean(image, axes, keepdims=True))
    return ops.divide(middle, ops.maximum(ops.std(image, axes, keepdims=True), least))


def _bias_add(value, bias, data_format=None):
    if _first(data_format):
        raise refused(f"data_format={data_format!r}")
    return ops.add(value, bias)


FUNCTIONS = {
    "nn.bias_add": _bias_add,
    **{f"{kind}max_pool{n}": _pool(ops.max_pool) for kind in ("nn.", "compat.v1.nn.") for n in ("1d", "2d", "")},
    **{f"{kind}avg_pool{n}": _pool(ops.average_pool) for kind in ("nn.", "compat.v1.nn.") for n in ("1d", "2d", "")},
    **{f"{kind}conv2d": _convolution(ops.conv, "filter") for kind in ("nn.", "compat.v1.nn.")},
    **{f"{k}depthwise_conv2d": _convolution(ops.depthwise_conv, "filter") for k in ("nn.", "compat.v1.nn.")},
    **{f"{kind}depth_to_space": _depth_to_space for kind in ("nn.", "compat.v1.")},
    **{f"{kind}space_to_depth": _space_to_depth for kind in ("nn.", "compat.v1.")},
    "image.resize": _resize,
    "compat.v1.image.resize_bilinear": _old_resize("bilinear"),
    "compat.v1.image.resize_nearest_neighbor": _old_resize("nearest"),
    "image.rgb_to_grayscale": lambda images: ops.image.rgb_to_grayscale(images, data_format="channels_last"),
    "image.flip_left_right": lambda image: ops.flip(image, -2),
    "image.flip_up_down": lambda image: ops.flip(image, -3),
    "image.per_image_standardization": _standardization,
}
