"""Every layer that kprune writes as a matrix product equals that product."""

import keras
import numpy as np
import pytest

from kprune import _keras
from kprune.linear import choose_places, linear_map

layers = keras.layers
CASES = {
    "dense": ((5,), lambda: layers.Dense(4)),
    "dense on a map": ((3, 2, 5), lambda: layers.Dense(4)),
    "conv1d causal": ((9, 3), lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2)),
    "conv1d same, strided": ((10, 3), lambda: layers.Conv1D(4, 4, strides=3, padding="same")),
    "conv2d valid": ((7, 6, 3), lambda: layers.Conv2D(4, (3, 2))),
    "conv2d same": ((7, 6, 3), lambda: layers.Conv2D(4, (3, 2), padding="same")),
    "conv2d strided": ((7, 8, 3), lambda: layers.Conv2D(4, 3, strides=2, padding="same")),
    "conv2d pointwise, strided": ((7, 8, 3), lambda: layers.Conv2D(4, 1, strides=2, padding="same")),
    "conv2d dilated": ((9, 8, 3), lambda: layers.Conv2D(4, 3, dilation_rate=2, padding="same")),
    "conv2d grouped": ((7, 6, 6), lambda: layers.Conv2D(4, 3, groups=2)),
    "conv3d": ((4, 5, 6, 2), lambda: layers.Conv3D(3, 2, padding="same")),
    "transposed valid": ((4, 5, 3), lambda: layers.Conv2DTranspose(2, 3, strides=2)),
    "transposed same": ((4, 5, 3), lambda: layers.Conv2DTranspose(2, 3, strides=2, padding="same")),
    "transposed small kernel": ((4, 5, 3), lambda: layers.Conv2DTranspose(2, 2, strides=3, padding="same")),
    "transposed 1d": ((6, 3), lambda: layers.Conv1DTranspose(2, 4, strides=2, padding="same")),
    "separable": ((6, 7, 3), lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2, padding="same")),
    "separable 1d": ((9, 3), lambda: layers.SeparableConv1D(4, 3, strides=2)),
}


@pytest.mark.parametrize("rows", [7, 10**6])
@pytest.mark.parametrize("case", CASES)
def test_rows_times_matrix_is_the_layers_output(case, rows):
    shape, build = CASES[case]
    rng = np.random.default_rng(0)
    layer, x = build(), rng.normal(size=(3, *shape)).astype("float32")
    y = _keras.to_numpy(layer(x))
    linear = linear_map(layer)
    kernel = _keras.to_numpy(_keras.variables_by_name(layer)[linear.weight])
    places = choose_places(rng, len(x), linear.map_shape(layer, x, y), rows)
    matrix = linear.matrix(layer, kernel)
    product = np.concatenate(list(linear.rows(layer, x, places) @ matrix), axis=-1)
    np.testing.assert_allclose(product, linear.outputs(layer, y, places), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(linear.kernel(layer, matrix, kernel.shape), kernel)


def test_places_are_drawn_without_repetition():
    places = choose_places(np.random.default_rng(0), 4, (5, 5), 40)
    assert places.index.shape == (4, 10)
    assert all(len(set(row)) == 10 for row in places.index.tolist())


def test_a_layer_with_a_call_of_its_own_is_not_taken_for_its_base_class():
    class Scaled(layers.Dense):
        def call(self, x):
            return 2 * super().call(x)

    assert linear_map(Scaled(3)) is None
