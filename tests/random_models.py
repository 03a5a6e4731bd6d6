"""Draws, by hypothesis, small functional models over the operations that kprune has rules for."""

import keras
import numpy as np
from hypothesis import strategies as st
from random_layers import Derived, Mixer

layers = keras.layers
ACTIVATIONS = [None, "relu", "sigmoid", "softplus", "tanh", "hard_sigmoid", "elu", "gelu", "exponential"]


def randomize(model, seed=0):
    """Fills all weights with numbers, BatchNorm with statistics that leave no channel at rest; returns the model."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = []
        for variable in layer.weights:
            if not variable.dtype.startswith(("float", "bfloat")):
                values.append(keras.ops.convert_to_numpy(variable))
                continue
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
            lambda: layers.Cropping2D(1)(x) if min(x.shape[1:3]) > 3 else keras.ops.sigmoid(x),
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

    def rearranged(self):
        x = self.pick()
        channels = x.shape[-1]
        even = channels % 2 == 0
        flipped = keras.ops.flip(x, -1)
        backwards = flipped if keras.backend.backend() == "torch" else x[..., ::-1]  # PyTorch has no such slices
        makers = [
            lambda: flipped,
            lambda: backwards,
            lambda: keras.ops.roll(x, 1, axis=1),
            lambda: keras.activations.relu(x),
            lambda: keras.ops.repeat(x, 2, axis=-1),
            lambda: keras.ops.tile(x, (1, 1, 1, 2)),
            lambda: keras.ops.moveaxis(layers.BatchNormalization(axis=1)(keras.ops.moveaxis(x, -1, 1)), 1, -1),
            lambda: keras.ops.mean(x[:, None], axis=1),
            lambda: keras.ops.squeeze(keras.ops.expand_dims(x, 2), 2),
            lambda: keras.ops.take(x, np.arange(channels)[::-1] // 2 * 2 % channels, axis=-1),
            lambda: keras.ops.nn.space_to_depth(x, 2) if x.shape[1] % 2 == x.shape[2] % 2 == 0 else x * 2.0,
            lambda: keras.ops.nn.depth_to_space(x, 2) if channels % 4 == 0 else x[..., ::2],
            lambda: x[..., 1::2] if channels > 1 else x + 1.0,
            lambda: keras.ops.multiply(*keras.ops.split(x, 2, axis=-1)) if even else -x,
            lambda: keras.ops.glu(x) if even else x - 0.5,
            lambda: self.shuffled(x) if even else x,
        ]
        return self.draw(st.sampled_from(makers))()

    def shuffled(self, x):
        _, height, width, channels = x.shape
        grid = layers.Reshape((height, width, 2, channels // 2))(x)
        return layers.Reshape((height, width, channels))(layers.Permute((1, 2, 4, 3))(grid))

    def normalized(self):
        x = self.pick()
        groups = self.draw(st.sampled_from([g for g in (1, 2, 3, x.shape[-1]) if x.shape[-1] % g == 0]))
        axes = [-1] if keras.backend.backend() == "torch" else [-1, (1, 2)]  # Keras knows the last axes only there
        makers = [
            lambda: layers.GroupNormalization(groups)(x),
            lambda: layers.UnitNormalization()(x),
            lambda: layers.LayerNormalization(axis=self.draw(st.sampled_from(axes)))(x),
        ]
        return self.draw(st.sampled_from(makers))()

    def broadcast(self):
        x = self.pick()
        makers = [
            lambda: layers.Multiply()([x, layers.Conv2D(1, 1, activation="sigmoid")(x)]),
            lambda: x * np.linspace(0.5, 2.0, x.shape[-1], dtype="float32"),
            lambda: x + x[..., -1:],
            lambda: keras.ops.stack([x, layers.Conv2D(x.shape[-1], 1)(x)], axis=-1)[..., 0],
            lambda: keras.ops.where(keras.ops.greater(x, 0.0), x, layers.Conv2D(x.shape[-1], 1)(x)),
        ]
        return self.draw(st.sampled_from(makers))()

    def hidden(self, x):
        """A map of one channel, from hidden layers of its own."""
        activation = self.draw(st.sampled_from(["relu", "sigmoid", "tanh"]))
        hidden = layers.Conv2D(self.width(), self.draw(st.sampled_from([1, 3])), padding="same", activation="relu")(x)
        return layers.Conv2D(1, 1, activation=activation)(hidden)

    def gated(self):
        """Maps that one number for each place, each image or each branch weighs, masks or divides."""
        x = self.pick()
        makers = [
            lambda: layers.Multiply()([x, self.hidden(x)]),
            lambda: x * keras.ops.mean(self.hidden(x), axis=(1, 2), keepdims=True),
            lambda: keras.ops.where(keras.ops.greater(self.hidden(x), 0.1), x, 0.5 * x),
            lambda: keras.ops.where(keras.ops.greater(layers.Conv2D(x.shape[-1], 1)(x), 0.0), x, -x),
            lambda: keras.ops.divide(x, 1.0 + keras.ops.square(self.hidden(x))),
            lambda: keras.ops.maximum(x, self.hidden(x)),
            lambda: keras.ops.softmax(self.hidden(x), axis=1) * x,
            lambda: self.selective(x),
        ]
        return self.draw(st.sampled_from(makers))()

    def selective(self, x):
        """Two branches, weighed by a softmax over the two for each channel, or by one number each."""
        width = self.width()
        one, two = (layers.Conv2D(width, size, padding="same", activation="relu")(x) for size in (1, 3))
        pooled = keras.ops.mean(one + two, axis=(1, 2))
        squeezed = layers.Dense(self.width(), activation="relu")(pooled)
        if self.draw(st.booleans()):
            weights = layers.Dense(2, activation="softmax")(squeezed)
            return one * weights[:, None, None, :1] + two * weights[:, None, None, 1:]
        weights = keras.ops.softmax(keras.ops.stack([layers.Dense(width)(squeezed) for _ in range(2)], axis=1), axis=1)
        return one * weights[:, 0][:, None, None] + two * weights[:, 1][:, None, None]

    def compared(self):
        """The distance or the product of two maps, summed over channels: one number for each place."""
        x, y = self.same_shape()
        makers = [
            lambda: keras.ops.sum(keras.ops.square(x - y), axis=-1, keepdims=True),
            lambda: keras.ops.sum(keras.ops.absolute(x - y), axis=-1, keepdims=True),
            lambda: keras.ops.expand_dims(keras.ops.einsum("bhwc,bhwc->bhw", x, y), -1),
        ]
        return self.draw(st.sampled_from(makers))()

    def derived(self):
        """Layers of classes derived from those of Keras."""
        x = self.pick()
        return Derived(self.width(), 3, padding="same", activation=self.activation())(x)

    def head_over_scales(self):
        """One small head on a map and on the map at half its size."""
        x = self.pick()
        low = layers.MaxPooling2D(2, padding="same")(x)
        first = layers.Conv2D(self.width(), 3, padding="same", activation="relu")
        last = layers.Conv2D(self.width(), 1)
        pooled = keras.ops.mean(last(first(low)), axis=(1, 2), keepdims=True)
        return last(first(x)) + pooled

    def again(self):
        """One conv after itself."""
        x = self.pick()
        conv = layers.Conv2D(x.shape[-1], 3, padding="same", activation="relu")
        return conv(conv(x))

    def contracted(self):
        """Attention between the places of a map."""
        x = self.pick()
        _, height, width, _ = x.shape
        flat = layers.Reshape((height * width, x.shape[-1]))(x)
        query, key, value = (layers.Dense(self.width(), activation=self.activation())(flat) for _ in range(3))
        key = layers.Dense(query.shape[-1], activation=self.activation())(key)
        scores = keras.ops.softmax(keras.ops.einsum("bic,bjc->bij", query, key), axis=-1)
        return layers.Reshape((height, width, value.shape[-1]))(keras.ops.matmul(scores, value))

    def attention(self):
        """Attention layers, from one map to itself or to another."""
        x, y = (layers.Reshape((z.shape[1] * z.shape[2], z.shape[3]))(z) for z in self.same_shape())
        makers = [
            lambda: layers.Attention()([x, y]),
            lambda: layers.AdditiveAttention()([x, x, y]),
            lambda: layers.MultiHeadAttention(2, 3, output_shape=self.draw(st.sampled_from([None, 5])))(x, y),
            lambda: layers.GroupQueryAttention(3, 4, 2)(x, x),
        ]
        return keras.ops.expand_dims(self.draw(st.sampled_from(makers))(), 2)

    def recurrent(self):
        x = self.pick()
        rows = layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]))(x)
        cell = self.draw(st.sampled_from([layers.LSTM, layers.GRU, layers.SimpleRNN]))
        reader = cell(3, return_sequences=True)
        reader = layers.Bidirectional(reader) if self.draw(st.booleans()) else reader
        return keras.ops.expand_dims(reader(rows), 2)

    def over_time(self):
        """The columns of a map as moments."""
        x = self.pick()
        inner = layers.Conv1D(self.width(), 3, padding="same", activation=self.activation())
        return layers.TimeDistributed(inner)(x)

    def nested(self):
        """A model inside the model, or one inside that; called once or on two tensors."""
        x = self.pick()
        model = self.inside(x, self.draw(st.integers(1, 2)))
        twins = [t for t in self.tensors if t.shape == x.shape]
        return model(x) if self.draw(st.booleans()) else model(x) + model(self.draw(st.sampled_from(twins)))

    def inside(self, x, depth):
        """A model for tensors like `x`, or for such of any size."""
        inputs = keras.Input(x.shape[1:] if self.draw(st.booleans()) else (None, None, x.shape[-1]))
        y = layers.ReLU()(inputs) if self.draw(st.booleans()) else inputs
        y = self.inside(y, depth - 1)(y) if depth > 1 else layers.BatchNormalization()(y)
        return keras.Model(inputs, layers.Conv2D(self.width(), 3, padding="same", activation=self.activation())(y))

    def shared(self):
        """One conv on two tensors."""
        x = self.pick()
        twins = [t for t in self.tensors if t.shape[-1] == x.shape[-1] and t.shape[1:3] == x.shape[1:3]]
        conv = layers.Conv2D(self.width(), 3, padding="same", activation=self.activation())
        return layers.Concatenate()([conv(x), conv(self.draw(st.sampled_from(twins)))])

    def made_of_others(self):
        """A layer of the user's own on one tensor or two, called once or twice, now and then with a number."""
        x, mixer = self.pick(), Mixer(self.width(), self.activation())
        twins = [t for t in self.tensors if t.shape[1:3] == x.shape[1:3]]
        other = self.draw(st.sampled_from([None, *twins]))
        options = self.draw(st.sampled_from([{}, {"scale": -0.5}]))
        y = mixer(x, other, **options)
        if y.shape[-1] == x.shape[-1] and self.draw(st.booleans()):
            y = mixer(y, other, **self.draw(st.sampled_from([options, {"scale": 2.0}])))
        return y

    def channels_first(self):
        """There and back, with layers that have the channels first in between."""
        x, first = self.pick(), {"data_format": "channels_first", "padding": "same"}
        y = layers.Permute((3, 1, 2))(x)
        # On TensorFlow Keras adds a bias along the width where that is as long, and no CPU has such a conv in float16.
        tensorflow = keras.backend.backend() == "tensorflow"
        half = keras.config.dtype_policy().compute_dtype != "float32"
        convs = [
            lambda y: layers.Conv2D(
                self.width(), 3, strides=self.draw(st.integers(1, 2)), use_bias=not tensorflow, **first
            )(y)
        ]
        makers = [
            *(convs if not (tensorflow and half) else []),
            lambda y: layers.BatchNormalization(axis=1)(y),
            lambda y: layers.MaxPooling2D(2, **first)(y),
            lambda y: layers.Concatenate(axis=1)([y, y]),
            lambda y: layers.PReLU(shared_axes=[2, 3])(y),
            lambda y: y * layers.GlobalAveragePooling2D(data_format="channels_first", keepdims=True)(y),
        ]
        for maker in self.draw(st.lists(st.sampled_from(makers), min_size=1, max_size=3)):
            y = maker(y)
        return layers.Permute((2, 3, 1))(y)

    def output(self):
        x = self.pick()
        kind = self.draw(st.sampled_from(["pool", "flatten", "map"]))
        if kind == "map":
            return layers.Conv2D(2, 1)(x)
        x = layers.Flatten()(x) if kind == "flatten" else layers.GlobalMaxPooling2D()(x)
        return layers.Dense(3)(x)


STEPS = ["conv", "conv", "conv", "batch_normalization", "batch_normalization", "unary", "unary", "merged", "merged"]
STEPS += ["grouped", "depthwise", "separable", "transposed", "concatenated", "shortcut", "split", "squeeze_excite"]
STEPS += ["sequence", "rearranged", "rearranged", "normalized", "broadcast", "contracted", "recurrent", "over_time"]
STEPS += ["nested", "shared", "made_of_others", "channels_first", "attention"]
STEPS += ["gated", "gated", "compared", "derived", "head_over_scales", "again"]


def random_model(draw, most_steps=9):
    """A functional model with random weights: branches, merges, strides, groups, odd widths, one or two outputs.

    One input; or two, as a list or by name.
    """
    size, two = draw(st.sampled_from([6, 7, 8])), draw(st.sampled_from([None, None, None, list, dict]))
    inputs = {name: keras.Input((size, size, draw(st.integers(1, 3))), name=name) for name in ("image", "other")}
    builder = Builder(draw, layers.Conv2D(draw(st.integers(3, 9)), 3, padding="same")(inputs["image"]))
    if two:
        builder.tensors.append(layers.Conv2D(draw(st.integers(3, 9)), 3, padding="same")(inputs["other"]))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=most_steps)):
        made = getattr(builder, step)()
        if made.shape[1] >= 2 and made.shape[1] <= 16 and made.shape[-1] <= 40:
            builder.tensors.append(made)
    outputs = [builder.output() for _ in range(draw(st.integers(1, 2)))]
    inputs = {None: inputs["image"], list: list(inputs.values()), dict: inputs}[two]
    return randomize(keras.Model(inputs, outputs), draw(st.integers(0, 99)))
