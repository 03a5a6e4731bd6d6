"""Faults of Keras that pruning meets, each found by trying it on the version in use."""

import functools

import keras
import numpy as np

from kprune.compat.variables import to_numpy


@functools.cache
def misplaces_bias() -> bool:
    """Whether a bias of shape (1, channels, 1, 1) is added along the last axis where that is as long: so does the `add`
    of Keras 3.15 and older on TensorFlow, which takes anything that can be squeezed to a vector for a bias.
    """
    total = keras.ops.add(np.zeros((1, 2, 1, 2), "float32"), np.array([0, 1], "float32").reshape(1, 2, 1, 1))
    return not to_numpy(total)[0, 1].all()
