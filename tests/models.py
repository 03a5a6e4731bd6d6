"""Small networks of every structure, and what tests ask of them."""

import keras
from random_models import randomize

layers, ops = keras.layers, keras.ops


def conv(x, filters, name, **options):
    return layers.Conv2D(filters, 3, padding="same", name=name, **options)(x)


def chain(x):
    x = layers.BatchNormalization()(conv(x, 8, "a"))
    return conv(layers.Activation("sigmoid")(x), 8, "b")


def residual(x):
    x = conv(x, 8, "stem")
    y = layers.BatchNormalization()(conv(x, 6, "middle"))
    return layers.ReLU()(layers.Add()([x, conv(y, 8, "end")]))


def inverted_residual(x):
    x = conv(x, 6, "stem")
    y = layers.BatchNormalization()(conv(x, 12, "expand"))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(layers.ReLU(6.0)(y))
    return layers.Add()([x, conv(y, 6, "project")])


def dense_block(x):
    x = conv(x, 6, "stem")
    for name in ("one", "two", "three"):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, conv(y, 4, name)])
    return conv(x, 6, "transition")


def squeeze_excite(x):
    x = conv(x, 8, "a")
    gate = layers.Dense(4, activation="relu", name="squeeze")(layers.GlobalAveragePooling2D()(x))
    gate = layers.Dense(8, activation="sigmoid", name="excite")(gate)
    return layers.Multiply()([x, layers.Reshape((1, 1, 8))(gate)])


def grouped(x):
    return conv(conv(conv(x, 8, "a"), 12, "b", groups=4), 6, "c")


def option_a(x):
    x = conv(x, 4, "a")
    shortcut = ops.pad(x[:, ::2, ::2, :], [[0, 0], [0, 0], [0, 0], [2, 2]])
    return shortcut + conv(x, 8, "b", strides=2)


def split_and_shuffle(x):
    x = conv(x, 8, "a")
    left, right = x[..., :4], x[..., 4:]
    x = layers.Concatenate()([left, conv(right, 4, "b")])
    _, h, w, c = x.shape
    x = layers.Reshape((h, w, 2, c // 2))(x)
    return conv(layers.Reshape((h, w, c))(layers.Permute((1, 2, 4, 3))(x)), 6, "c")


def shared(x):
    twice = layers.Conv2D(6, 3, padding="same", name="shared")
    return conv(layers.Concatenate()([twice(x), twice(x * 0.5)]), 6, "last")


def nested(x):
    inner = keras.Input(x.shape[1:])
    y = layers.BatchNormalization(name="inner_bn")(conv(inner, 8, "inner_conv"))
    return conv(keras.Model(inner, y, name="inside")(x), 6, "outer")


def prelu_flatten(x):
    x = layers.PReLU()(conv(x, 6, "a"))
    return layers.Reshape((1, 1, 8))(layers.Dense(8, name="hidden")(layers.Flatten()(x)))


def one_dimensional(x):
    x = layers.Reshape((64, 3))(x)
    x = layers.SeparableConv1D(8, 3, name="a")(layers.Conv1D(6, 3, name="b")(x))
    x = layers.Conv1DTranspose(5, 3, name="c")(layers.MaxPooling1D(2)(x))
    return layers.Reshape((1, 1, 5))(layers.GlobalAveragePooling1D()(x))


def three_dimensional(x):
    x = layers.Conv3D(6, 3, padding="same", name="a")(layers.Reshape((8, 8, 3, 1))(x))
    x = layers.Conv3D(4, 3, name="b", padding="same")(layers.ZeroPadding3D(1)(layers.BatchNormalization()(x)))
    return layers.Reshape((1, 1, 4))(layers.GlobalMaxPooling3D()(x))


def transposed(x):
    return layers.Conv2DTranspose(6, 3, strides=2, name="b")(conv(x, 6, "a", activation="softplus"))


STRUCTURES = [chain, residual, inverted_residual, dense_block, squeeze_excite, grouped, option_a, split_and_shuffle]
STRUCTURES += [shared, nested, prelu_flatten, one_dimensional, three_dimensional, transposed]


def build(structure, seed=0):
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.GlobalAveragePooling2D()(structure(inputs))
    return randomize_all(keras.Model(inputs, layers.Dense(3, name="logits")(x)), seed)


def randomize_all(model, seed=0):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            randomize(layer, seed)
    inside = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return model if inside else randomize(model, seed)


def run(model, images):
    return keras.ops.convert_to_numpy(model(images))


def writer(graph, name):
    return next(w for w in graph.writers if w.path.endswith(name))


def sets_of(graph, name):
    weight = writer(graph, name)
    return weight.axes[weight.writes]
