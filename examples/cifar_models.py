"""VGG, DenseNet and MobileNetV2 for CIFAR, as the pruning literature has them. The ResNets are in `cifar_resnet.py`.

model = build_network("densenet40")                       # by name: see NETWORKS
model = build_vgg(16, hidden=None)                        # VGG16 with the classifier straight on the features
"""

import keras
from keras import layers

from cifar_resnet import build_resnet

# Statistics of the RGB channels of the CIFAR-10 training images, in 0..1.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

# Convs before each of the five poolings (Simonyan and Zisserman 2015, table 1: A, B, D, E), and their widths.
VGG_CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
VGG_WIDTHS = (64, 128, 256, 512, 512)

# Expansion, channels, blocks, stride of the first block (Sandler et al. 2018, table 2). The strides of the stem and of
# the second stage are 1 in the place of 2, for images of 32 pixels.
MOBILENET_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def build_vgg(depth=16, widths=VGG_WIDTHS, hidden=512, classes=10):
    """Builds a VGG with BatchNorm for 32x32 colour images.

    The five poolings leave one pixel of 512 channels. What the pruning literature calls VGG16 on CIFAR-10 has one
    hidden dense layer of 512 behind it (Li et al. 2016, "Pruning Filters for Efficient ConvNets"; HRank): 13 convs and
    2 dense layers. Network slimming (Liu et al. 2017) and others put the classifier there: `hidden=None`.

    Args:
      depth: 11, 13, 16 or 19, as named for ImageNet (with three dense layers).
      widths: channels of the convs before each of the five poolings.
      hidden: units of the hidden dense layer, which has a BatchNorm; None: no such layer.
      classes: number of logits.

    Returns:
      A functional `keras.Model` from raw pixels (0..255) to logits, not compiled.

    Raises:
      ValueError: there is no VGG of this depth, or the widths are not five.

    Example:
      >>> build_vgg(16).name
      'vgg16'
    """
    if depth not in VGG_CONVS:
        raise ValueError(f"depth is {depth}. Expected: one of {sorted(VGG_CONVS)}.")
    if len(widths) != len(VGG_WIDTHS):
        raise ValueError(f"widths is {widths}. Expected: five numbers.")
    inputs, x = _pixels()
    for block, (width, convs) in enumerate(zip(widths, VGG_CONVS[depth], strict=True), 1):
        for place in range(1, convs + 1):
            x = _conv(x, width, 3, f"block{block}_conv{place}")
            x = _norm_relu(x, f"block{block}_bn{place}")
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    if hidden is not None:
        x = _norm_relu(layers.Dense(hidden, use_bias=False, name="hidden")(x), "hidden_bn")
    outputs = layers.Dense(classes, name="classifier")(x)
    return keras.Model(inputs, outputs, name=f"vgg{depth}")


def build_densenet(depth=40, growth=12, stem=None, classes=10):
    """Builds a DenseNet without bottlenecks and compression (Huang et al. 2017) for 32x32 colour images.

    Args:
      depth: number of weighted layers, `3 n + 4`: 40, 100.
      growth: channels that each layer adds.
      stem: channels of the first conv: 16 in the paper. None: `2 * growth`, as in the code that the pruning literature
        uses, with 283 M FLOPs at depth 40 and 1.04 M parameters in convs and dense layer.
      classes: number of logits.

    Returns:
      A functional `keras.Model` from raw pixels (0..255) to logits, not compiled.

    Raises:
      ValueError: the depth is not `3 n + 4`.

    Example:
      >>> build_densenet(40, growth=12).name
      'densenet40'
    """
    if depth < 7 or (depth - 4) % 3:
        raise ValueError(f"depth is {depth}. Expected: 3 n + 4, such as 40 or 100.")
    inputs, x = _pixels()
    x = _conv(x, 2 * growth if stem is None else stem, 3, "stem_conv")
    for block in (1, 2, 3):
        for place in range(1, (depth - 4) // 3 + 1):
            name = f"block{block}_layer{place}"
            y = _conv(_norm_relu(x, f"{name}_bn"), growth, 3, f"{name}_conv")
            x = layers.Concatenate(name=f"{name}_concat")([x, y])
        if block < 3:
            x = _conv(_norm_relu(x, f"transition{block}_bn"), x.shape[-1], 1, f"transition{block}_conv")
            x = layers.AveragePooling2D(2, name=f"transition{block}_pool")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(_norm_relu(x, "last_bn"))
    outputs = layers.Dense(classes, name="classifier")(x)
    return keras.Model(inputs, outputs, name=f"densenet{depth}")


def build_mobilenet_v2(stages=MOBILENET_STAGES, stem=32, last=1280, project=True, classes=10):
    """Builds a MobileNetV2 (Sandler et al. 2018) for 32x32 colour images.

    Args:
      stages: expansion, channels, blocks and first stride of each stage.
      stem, last: channels of the first and of the last conv.
      project: whether a block of stride 1 that changes the number of channels has a 1x1 conv as its shortcut, and the
        first block an expansion conv of factor 1, as in the code that CIFAR work uses: 2.30 M parameters, 91.2 M FLOPs
        in convs and dense layer, 94.6 M where BatchNorm counts as two more per number. False is the paper, which has
        neither.
      classes: number of logits.

    Returns:
      A functional `keras.Model` from raw pixels (0..255) to logits, not compiled.

    Example:
      >>> build_mobilenet_v2().name
      'mobilenet_v2'
    """
    inputs, x = _pixels()
    x = _norm_relu(_conv(x, stem, 3, "stem_conv"), "stem_bn", 6.0)
    for stage, (expansion, width, blocks, first) in enumerate(stages, 1):
        for block in range(1, blocks + 1):
            stride = first if block == 1 else 1
            x = _inverted_residual(x, expansion, width, stride, project, f"stage{stage}_block{block}")
    x = _norm_relu(_conv(x, last, 1, "last_conv"), "last_bn", 6.0)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, name="classifier")(x)
    return keras.Model(inputs, outputs, name="mobilenet_v2")


NETWORKS = {
    "vgg16": lambda: build_vgg(16),
    "resnet20": lambda: build_resnet(20),
    "resnet32": lambda: build_resnet(32),
    "resnet44": lambda: build_resnet(44),
    "resnet56": lambda: build_resnet(56),
    "resnet110": lambda: build_resnet(110),
    "densenet40": lambda: build_densenet(40),
    "mobilenet_v2": build_mobilenet_v2,
}


def build_network(name):
    """The network of this name, as the pruning literature has it, not trained.

    Raises:
      ValueError: no network has this name.
    """
    if name not in NETWORKS:
        raise ValueError(f"The network is {name!r}. Expected: one of {sorted(NETWORKS)}.")
    return NETWORKS[name]()


def _pixels():
    """The input and the normalised pixels; the statistics are constants of the layer, not weights."""
    inputs = keras.Input((32, 32, 3), name="image")
    mean, variance = [255 * m for m in MEAN], [(255 * s) ** 2 for s in STD]
    return inputs, layers.Normalization(mean=mean, variance=variance, name="normalization")(inputs)


def _conv(x, filters, size, name):
    conv = layers.Conv2D(filters, size, padding="same", use_bias=False, kernel_initializer="he_normal", name=name)
    return conv(x)


def _norm_relu(x, name, ceiling=None):
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
    return layers.ReLU(ceiling, name=name.replace("bn", "relu"))(x)


def _inverted_residual(x, expansion, width, stride, project, name):
    y = x
    if expansion > 1 or project:
        y = _norm_relu(_conv(y, expansion * x.shape[-1], 1, f"{name}_expand"), f"{name}_expand_bn", 6.0)
    # One pixel of padding on all sides, at stride 2 too, as in the trained networks of other frameworks.
    y = layers.ZeroPadding2D(1, name=f"{name}_pad")(y)
    y = layers.DepthwiseConv2D(3, stride, use_bias=False, depthwise_initializer="he_normal", name=f"{name}_depthwise")(
        y
    )
    y = _norm_relu(y, f"{name}_depthwise_bn", 6.0)
    y = _linear_bn(y, width, f"{name}_project")
    if stride == 1 and x.shape[-1] != width and project:
        x = _linear_bn(x, width, f"{name}_shortcut")
    if stride == 1 and x.shape[-1] == width:
        return layers.Add(name=f"{name}_add")([x, y])
    return y


def _linear_bn(x, filters, name):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(_conv(x, filters, 1, name))
