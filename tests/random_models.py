"""Draws, by hypothesis, small functional models over the operations that kprune has rules for."""

import keras
import numpy as np
from hypothesis import strategies as st

layers = keras.layers
ACTIVATIONS = [None, "relu", "sigmoid", "softplus", "tanh", "hard_sigmoid", "elu", "gelu", "exponential"]


def randomize(model, seed=0):
    """Fills all weights with numbers, BatchNorm with statistics that leave no channel at rest; returns the model."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = []
        for variable in layer.weights:
            value = rng.normal(0.1, 0.5, variable.shape) / max(1.0, np.sqrt(np.prod(variable.shape[:-1], dtype=float)))
            if variable.name in ("moving_variance", "variance"):
                value = rng.uniform(0.5, 1.5, variable.shape)
            elif variable.name in ("gamma", "beta", "moving_mean", "bias"):
                value = rng.normal(0.3, 0.6, variable.shape)
            values.append(value)
        layer.set_weights(values)
    return model


class Builder:
    """Grows a graph from drawn choices; `tensors` are the maps made so far, all `[batch, height, width, channels]`."""

    def __init__(self, draw, tensor):
        self.draw, self.tensors = draw, [tensor]

    def pick(self):
        return self.draw(st.sampled_from(self.tensors))

    def activation(self):
        return self.draw(st.sampled_from(ACTIVATIONS))

    def width(self):
        return self.draw(st.integers(2, 9))

    def conv(self):
        x = self.pick()
        stride, dilation = self.draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
        options = {
            "strides": stride,
            "dilation_rate": dilation,
            "padding": "same",
            "use_bias": self.draw(st.booleans()),
        }
        return layers.Conv2D(self.width(), self.draw(st.sampled_from([1, 3])), activation=self.activation(), **options)(
            x
        )

    def grouped(self):
        x = self.pick()
        groups = self.draw(st.sampled_from([g for g in (2, 3, x.shape[-1]) if x.shape[-1] % g == 0] or [1]))
        return layers.Conv2D(groups * self.draw(st.integers(1, 3)), 3, padding="same", groups=groups)(x)

    def depthwise(self):
        options = {"depth_multiplier": self.draw(st.integers(1, 2)), "activation": self.activation()}
        return layers.DepthwiseConv2D(3, padding="same", **options)(self.pick())

    def separable(self):
        return layers.SeparableConv2D(self.width(), 3, padding="same", depth_multiplier=2)(self.pick())

    def transposed(self):
        x = self.pick()
        stride = 2 if x.shape[1] <= 4 else 1
        return layers.Conv2DTranspose(self.width(), 3, strides=stride, padding="same", activation=self.activation())(x)

    def batch_normalization(self):
        options = {"scale": self.draw(st.booleans()), "center": self.draw(st.booleans())}
        return layers.BatchNormalization(**options)(self.pick())

    def unary(self):
        x = self.pick()
        makers = [
            lambda: layers.Activation(self.draw(st.sampled_from(ACTIVATIONS[1:])))(x),
            lambda: layers.PReLU(shared_axes=self.draw(st.sampled_from([None, [1, 2]])))(x),
            lambda: layers.LeakyReLU()(x),
            lambda: layers.SpatialDropout2D(0.2)(x),
            lambda: layers.Rescaling(2.0, offset=0.5)(x),
            lambda: layers.ZeroPadding2D(1)(x) if x.shape[1] <= 8 else x + 0.25,
            lambda: layers.UpSampling2D(2)(x) if x.shape[1] <= 4 else 0.5 * x,
            lambda: layers.MaxPooling2D(2, padding="same")(x),
            lambda: layers.AveragePooling2D(2, strides=1, padding="same")(x),
            lambda: layers.Cropping2D(1)(x) if x.shape[1] > 3 else keras.ops.sigmoid(x),
            lambda: layers.Permute((2, 1, 3))(x),
            lambda: 1.0 - x,
        ]
        return self.draw(st.sampled_from(makers))()

    def same_shape(self):
        """Two tensors of one shape; the second by a conv where there is no other."""
        x = self.pick()
        twins = [t for t in self.tensors if t.shape == x.shape and t is not x]
        if twins and self.draw(st.booleans()):
            return x, self.draw(st.sampled_from(twins))
        return x, layers.Conv2D(x.shape[-1], 3, padding="same", use_bias=False)(x)

    def merged(self):
        x, y = self.same_shape()
        kinds = [layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum]
        makers = [lambda kind=kind: kind()([x, y]) for kind in kinds] + [lambda: x + y, lambda: x * y]
        return self.draw(st.sampled_from(makers))()

    def concatenated(self):
        x = self.pick()
        fitting = [t for t in self.tensors if t.shape[1:3] == x.shape[1:3]]
        return layers.Concatenate(axis=-1)([x, self.draw(st.sampled_from(fitting))])

    def shortcut(self):
        """Option A: every second place, channels padded with zeros, added to a conv."""
        x = self.pick()
        front, back = self.draw(st.integers(0, 2)), self.draw(st.integers(0, 2))
        padded = keras.ops.pad(x[:, ::2, ::2, :], [[0, 0], [0, 0], [0, 0], [front, back]])
        y = layers.Conv2D(padded.shape[-1], 3, strides=2, padding="same")(x)
        return layers.Add()([padded, y])

    def split(self):
        x = self.pick()
        at = self.draw(st.integers(1, x.shape[-1] - 1)) if x.shape[-1] > 1 else 1
        return x[..., :at] if self.draw(st.booleans()) or at >= x.shape[-1] else x[..., at:]

    def squeeze_excite(self):
        x = self.pick()
        gate = layers.GlobalAveragePooling2D()(x)
        gate = layers.Dense(self.width(), activation="relu")(gate)
        gate = layers.Dense(x.shape[-1], activation="sigmoid")(gate)
        return layers.Multiply()([x, layers.Reshape((1, 1, x.shape[-1]))(gate)])

    def sequence(self):
        """To a sequence of places and back."""
        x = self.pick()
        _, height, width, channels = x.shape
        y = layers.Reshape((height * width, channels))(x)
        y = layers.Conv1D(channels, 3, padding="same")(y)
        return layers.Reshape((height, width, channels))(y)

    def output(self):
        x = self.pick()
        kind = self.draw(st.sampled_from(["pool", "flatten", "map"]))
        if kind == "map":
            return layers.Conv2D(2, 1)(x)
        x = layers.Flatten()(x) if kind == "flatten" else layers.GlobalMaxPooling2D()(x)
        return layers.Dense(3)(x)


STEPS = ["conv", "conv", "conv", "batch_normalization", "batch_normalization", "unary", "unary", "merged", "merged"]
STEPS += ["grouped", "depthwise", "separable", "transposed", "concatenated", "shortcut", "split", "squeeze_excite"]
STEPS += ["sequence"]


def random_model(draw, most_steps=9):
    """A functional model with random weights: branches, merges, strides, groups, odd widths, one or two outputs."""
    size = draw(st.sampled_from([6, 7, 8]))
    inputs = keras.Input((size, size, draw(st.integers(1, 3))))
    builder = Builder(draw, layers.Conv2D(draw(st.integers(3, 9)), 3, padding="same")(inputs))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=most_steps)):
        made = getattr(builder, step)()
        if made.shape[1] >= 2 and made.shape[1] <= 16 and made.shape[-1] <= 40:
            builder.tensors.append(made)
    outputs = [builder.output() for _ in range(draw(st.integers(1, 2)))]
    return randomize(keras.Model(inputs, outputs), draw(st.integers(0, 99)))
