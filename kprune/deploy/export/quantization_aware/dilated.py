"""Dilated convolutions of tf_keras as one operation each."""

import functools
import importlib

DILATED = ("Conv2D", "DepthwiseConv2D")


@functools.cache
def dilated_class(kind: str) -> type:
    """A subclass of tf_keras' `kind` that computes what it does in one operation.

    tf_keras rearranges images into batches and back instead, and TFLite does not recognize that once ranges stand
    between; then the convolution would compute in float.
    """
    import tensorflow as tf

    tf_keras = importlib.import_module("tf_keras")

    def convolution_op(self, inputs, kernel):
        padding, strides = self.padding.upper(), list(self.strides)
        return tf.nn.conv2d(inputs, kernel, strides, padding, dilations=list(self.dilation_rate))

    def call(self, inputs):
        outputs = tf.raw_ops.DepthwiseConv2dNative(
            input=inputs,
            filter=self.depthwise_kernel,
            strides=[1, *self.strides, 1],
            padding=self.padding.upper(),
            dilations=[1, *self.dilation_rate, 1],
        )
        outputs = tf.nn.bias_add(outputs, self.bias) if self.use_bias else outputs
        return self.activation(outputs) if self.activation is not None else outputs

    method = {"convolution_op": convolution_op} if kind == "Conv2D" else {"call": call}
    made = type(f"Dilated{kind}", (getattr(tf_keras.layers, kind),), {"kind": kind, **method})
    return tf_keras.saving.register_keras_serializable(package="kprune")(made)
