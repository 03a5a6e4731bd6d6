"""A layer made of others, as users write them: with one tensor or two, and a number."""

import keras

layers = keras.layers


@keras.saving.register_keras_serializable("kprune_tests")
class Mixer(layers.Layer):
    """Convs and a BatchNorm; what is beside is added in between.

    Args:
      filters: of all convs.
      activation: of the first.
    """

    def __init__(self, filters, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.activation = filters, activation
        self.first = layers.Conv2D(filters, 3, padding="same", activation=activation)
        self.beside = layers.Conv2D(filters, 1)
        self.norm = layers.BatchNormalization()
        self.last = layers.Conv2D(filters, 3, padding="same")

    def build(self, x_shape, other_shape=None):
        inside = (*x_shape[:-1], self.filters)
        self.first.build(x_shape)
        self.beside.build(x_shape if other_shape is None else other_shape)
        for layer in (self.norm, self.last):
            layer.build(inside)
        self.built = True

    def call(self, x, other=None, scale=1.0, training=None):
        y = self.first(x) + scale * self.beside(x if other is None else other)
        return self.last(keras.ops.relu(self.norm(y, training=training)))

    def get_config(self):
        return super().get_config() | {"filters": self.filters, "activation": self.activation}


@keras.saving.register_keras_serializable("kprune_tests")
class Derived(layers.Conv2D):
    """A conv by another name."""

    def get_config(self):
        return super().get_config()
