"""Every layer that kprune writes as a matrix product equals that product."""

import keras
import numpy as np
import pytest

from kprune.compat.variables import to_numpy, variables_by_name
from kprune.graph import trace
from kprune.rules import find_rule
from kprune.rules.linear_maps import choose_places

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
    "einsum": ((7, 5), lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 4), bias_axes="d")),
    "einsum, two axes": ((3, 5, 2), lambda: layers.EinsumDense("...bc,dbc->...d", output_shape=4, bias_axes="d")),
    "einsum, another order": ((7, 5), lambda: layers.EinsumDense("abc,dc->adb", output_shape=(4, 7))),
}


def maps_of(layer, x):
    """The linear maps of a layer, and its output."""
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, layer(inputs))
    call = trace(model).calls[-1]
    return find_rule(layer).linear_maps(call), to_numpy(model(x))


@pytest.mark.parametrize("rows", [7, 10**6])
@pytest.mark.parametrize("case", CASES)
def test_rows_times_matrix_is_the_layers_output(case, rows):
    shape, build = CASES[case]
    rng = np.random.default_rng(0)
    layer, x = build(), rng.normal(size=(3, *shape)).astype("float32")
    (linear,), y = maps_of(layer, x)
    kernel = to_numpy(variables_by_name(layer)[linear.weight])
    places = choose_places(rng, len(x), linear.map_shape(layer, x, y), rows)
    matrix = linear.matrix(layer, kernel)
    product = np.concatenate(list(linear.rows(layer, x, places) @ matrix), axis=-1)
    np.testing.assert_allclose(product, linear.outputs_at(layer, y, places), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(linear.kernel(layer, matrix, kernel.shape), kernel)


def test_places_are_drawn_without_repetition():
    places = choose_places(np.random.default_rng(0), 4, (5, 5), 40)
    assert places.index.shape == (4, 10)
    assert all(len(set(row)) == 10 for row in places.index.tolist())


def test_a_layer_with_a_call_of_its_own_is_not_taken_for_its_base_class():
    class Scaled(layers.Dense):
        def call(self, x):
            return 2 * super().call(x)

    inputs = keras.Input((4,))
    layer = Scaled(3)
    call = trace(keras.Model(inputs, layer(inputs))).calls[-1]
    assert find_rule(layer).linear_maps(call) == []


def test_a_subclass_that_computes_alike_has_the_same_map():
    class Named(layers.Conv2D):
        def get_config(self):
            return super().get_config()

    (linear,), _ = maps_of(Named(4, 3), np.zeros((2, 6, 6, 3), "float32"))
    assert linear == find_rule(layers.Conv2D(4, 3)).linear_maps(None)[0]


RECURRENT = {
    "lstm": lambda: layers.LSTM(4, return_sequences=True),
    "gru": lambda: layers.GRU(4, return_sequences=True),
    "gru, one bias": lambda: layers.GRU(4, return_sequences=True, reset_after=False),
    "simple": lambda: layers.SimpleRNN(4, return_sequences=True),
    "both ways": lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
    "no bias": lambda: layers.GRU(4, return_sequences=True, use_bias=False),
}


@pytest.mark.parametrize("case", RECURRENT)
def test_a_product_inside_is_that_of_the_cell(case):
    """A change of the input that the kernel and the bias cancel is not heard."""
    layer, rng = RECURRENT[case](), np.random.default_rng(0)
    x = rng.normal(size=(3, 6, 5)).astype("float32")
    linears, before = maps_of(layer, x)
    assert len(linears) == (2 if case == "both ways" else 1)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0].astype("float32")
    for linear in linears:
        kernel = variables_by_name(layer)[linear.weight]
        matrix = linear.matrix(layer, to_numpy(kernel))[0]
        if case != "no bias":
            linear.shift(layer, -np.full(5, 0.3, "float32") @ turn @ (turn.T @ matrix))
        kernel.assign(linear.kernel(layer, (turn.T @ matrix)[None], tuple(kernel.shape)))
    moved = (x + (0.0 if case == "no bias" else 0.3)) @ turn
    np.testing.assert_allclose(to_numpy(layer(moved)), before, rtol=1e-4, atol=1e-5)
