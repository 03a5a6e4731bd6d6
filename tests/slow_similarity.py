"""Method 1.1 of Wu 2023, written out as slowly and obviously as possible."""

import math


def redundant_filters(kernel, alpha, ratio):
    """The redundant filters of one kernel, literal rule; pure Python, one pair after the other."""
    count = kernel.shape[-1]
    filters = [kernel[..., j].astype("float64").ravel().tolist() for j in range(count)]
    distance = {}
    for i in range(count):
        for j in range(i + 1, count):
            distance[i, j] = math.sqrt(sum((a - b) ** 2 for a, b in zip(filters[i], filters[j], strict=True)))
    mean = sum(distance.values()) / len(distance)
    deviation = math.sqrt(sum((d - mean) ** 2 for d in distance.values()) / len(distance))
    threshold = mean - alpha * deviation
    similar_to = [0] * count
    for (i, j), d in distance.items():
        if d < threshold:
            similar_to[i] += 1
            similar_to[j] += 1
    return [n / count >= ratio for n in similar_to]
