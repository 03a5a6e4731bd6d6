"""Relevance propagation (method section 2), written out one contribution at a time."""

import numpy as np


def linear(x, matrix, relevance, alpha=2.0, beta=1.0):
    """The alpha-beta rule of one example: `x` `[in]`, `matrix` `[out, in]`, `relevance` `[out]`."""
    result = np.zeros(len(x))
    for j in range(len(matrix)):
        positive = sum(max(w * v, 0.0) for w, v in zip(matrix[j], x, strict=True))
        negative = sum(min(w * v, 0.0) for w, v in zip(matrix[j], x, strict=True))
        for i in range(len(x)):
            contribution = matrix[j, i] * x[i]
            if contribution > 0:
                result[i] += alpha * relevance[j] * contribution / positive
            elif contribution < 0:
                result[i] -= beta * relevance[j] * contribution / negative
    return result


def matrix_of(function, shape):
    """The matrix of a linear function of one example, column by column: what each unit vector becomes."""
    size = int(np.prod(shape))
    return np.stack([np.ravel(function(unit.reshape(1, *shape))) for unit in np.eye(size, dtype="float32")], axis=1)


def conv_matrix(kernel, size):
    """The matrix of a 3x3 conv with stride 1 and zero padding on `[size, size, in]` maps."""
    inputs, outputs = kernel.shape[2:]
    matrix = np.zeros((size, size, outputs, size, size, inputs))
    for y in range(size):
        for x in range(size):
            for dy in range(3):
                for dx in range(3):
                    if 0 <= y + dy - 1 < size and 0 <= x + dx - 1 < size:
                        matrix[y, x, :, y + dy - 1, x + dx - 1, :] = kernel[dy, dx].T
    return matrix.reshape(size * size * outputs, size * size * inputs)


def max_pool(x, relevance):
    """2x2 pooling of `[size, size, channels]`: all to the largest place, if it is not zero."""
    result = np.zeros_like(x)
    for y in range(0, len(x), 2):
        for left in range(0, len(x), 2):
            for c in range(x.shape[2]):
                window = x[y : y + 2, left : left + 2, c]
                dy, dx = np.unravel_index(window.argmax(), (2, 2))
                if window[dy, dx] != 0:
                    result[y + dy, left + dx, c] = relevance[y // 2, left // 2, c]
    return result
