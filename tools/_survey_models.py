"""What tools/survey.py looks at: keras.applications, image backbones of KerasHub, files of Keras 2."""

import pathlib
import tempfile

LARGER = {"InceptionV3": 96, "InceptionResNetV2": 96, "Xception": 96}  # the others take 64 pixels
KERAS2 = ("VGG16", "ResNet50V2", "MobileNet", "MobileNetV3Small", "EfficientNetB0", "DenseNet121", "NASNetMobile")
HUB_CONFIGS = {
    "ResNetBackbone": {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128, 256, 512],
        "stackwise_num_blocks": [2, 2, 2, 2],
        "stackwise_num_strides": [1, 2, 2, 2],
        "block_type": "basic_block",
    },
    "VGGBackbone": {"stackwise_num_repeats": [2, 2, 3, 3, 3], "stackwise_num_filters": [64, 128, 256, 512, 512]},
    "DenseNetBackbone": {"stackwise_num_repeats": [6, 12, 24, 16]},
    "XceptionBackbone": {
        "stackwise_conv_filters": [[32, 64], [64, 128], [256, 256]],
        "stackwise_pooling": [True, True, False],
    },
    "EfficientNetBackbone": {
        "stackwise_kernel_sizes": [3, 3, 3, 3, 3, 3],
        "stackwise_num_repeats": [2, 4, 4, 6, 9, 15],
        "stackwise_input_filters": [24, 24, 48, 64, 128, 160],
        "stackwise_output_filters": [24, 48, 64, 128, 160, 256],
        "stackwise_expansion_ratios": [1, 4, 4, 4, 6, 6],
        "stackwise_squeeze_and_excite_ratios": [0.0, 0.0, 0, 0.25, 0.25, 0.25],
        "stackwise_strides": [1, 2, 2, 2, 1, 2],
        "stackwise_block_types": ["fused"] * 3 + ["unfused"] * 3,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "input_shape": (64, 64, 3),
    },
    "CSPNetBackbone": {
        "stem_filters": 32,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 2, 4],
        "stackwise_strides": [1, 2, 2],
        "stackwise_num_filters": [32, 64, 128],
        "block_type": "dark_block",
        "stage_type": "dark",
    },
    "MobileNetBackbone": {
        "stackwise_expansion": [[40, 56], [64, 144, 144], [72, 72]],
        "stackwise_num_blocks": [2, 3, 2],
        "stackwise_num_filters": [[16, 16], [24, 24, 24], [24, 24]],
        "stackwise_kernel_size": [[3, 3], [5, 5, 5], [5, 5]],
        "stackwise_num_strides": [[2, 1], [2, 1, 1], [1, 1]],
        "stackwise_se_ratio": [[None, None], [0.25, 0.25, 0.25], [0.3, 0.3]],
        "stackwise_activation": [["relu", "relu"], ["hard_swish"] * 3, ["hard_swish"] * 2],
        "stackwise_padding": [[1, 1], [2, 2, 2], [2, 2]],
        "output_num_filters": 1024,
        "input_activation": "hard_swish",
        "output_activation": "hard_swish",
        "input_num_filters": 16,
        "depthwise_filters": 16,
        "depthwise_stride": 2,
        "depthwise_residual": False,
        "squeeze_and_excite": 0.5,
        "last_layer_filter": 288,
    },
    "HGNetV2Backbone": {
        "depths": [1, 2, 4],
        "embedding_size": 32,
        "hidden_sizes": [64, 128, 256],
        "stem_channels": [3, 16, 32],
        "hidden_act": "relu",
        "use_learnable_affine_block": False,
        "stackwise_stage_filters": [(32, 16, 64, 1, 1, 3), (64, 32, 128, 2, 1, 3), (128, 64, 256, 4, 1, 3)],
        "apply_downsample": [False, True, True],
        "use_lightweight_conv_block": [False, False, False],
    },
    "MobileNetV5Backbone": {
        "stackwise_block_types": [["er"], ["uir", "uir"]],
        "stackwise_num_blocks": [1, 2],
        "stackwise_num_filters": [[24], [48, 48]],
        "stackwise_strides": [[2], [2, 1]],
        "stackwise_act_layers": [["relu"], ["relu", "relu"]],
        "stackwise_exp_ratios": [[4.0], [6.0, 6.0]],
        "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
        "stackwise_dw_kernel_sizes": [[0], [5, 5]],
        "stackwise_dw_start_kernel_sizes": [[0], [0, 0]],
        "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
        "stackwise_exp_kernel_sizes": [[3], [0, 0]],
        "stackwise_pw_kernel_sizes": [[1], [0, 0]],
        "stackwise_num_heads": [[0], [0, 0]],
        "stackwise_key_dims": [[0], [0, 0]],
        "stackwise_value_dims": [[0], [0, 0]],
        "stackwise_kv_strides": [[0], [0, 0]],
        "stackwise_use_cpe": [[False], [False, False]],
        "use_msfa": False,
    },
    "SwinTransformerBackbone": {
        "embed_dim": 96,
        "depths": (2, 2),
        "num_heads": (3, 6),
        "window_size": 7,
        "image_shape": (56, 56, 3),
    },
    "MiTBackbone": {
        "num_layers": 2,
        "hidden_dims": [32, 64],
        "layerwise_depths": [2, 2],
        "layerwise_num_heads": [1, 2],
        "layerwise_sr_ratios": [8, 4],
        "layerwise_patch_sizes": [7, 3],
        "layerwise_strides": [4, 2],
        "max_drop_path_rate": 0.0,
    },
    "ViTBackbone": {
        "patch_size": 16,
        "num_layers": 2,
        "num_heads": 4,
        "hidden_dim": 64,
        "mlp_dim": 128,
    },
    "DeiTBackbone": {
        "patch_size": 16,
        "num_layers": 2,
        "num_heads": 4,
        "hidden_dim": 64,
        "intermediate_dim": 128,
    },
    "ViTDetBackbone": {
        "hidden_size": 32,
        "num_layers": 2,
        "intermediate_dim": 64,
        "num_heads": 2,
        "global_attention_layer_indices": [1],
        "num_output_channels": 16,
        "window_size": 2,
    },
    "DeepLabV3Backbone": {
        "image_encoder": "ResNetBackbone",
        "low_level_feature_key": "P2",
        "spatial_pyramid_pooling_key": "P5",
        "upsampling_size": 8,
        "dilation_rates": [6, 12, 18],
    },
    "RetinaNetBackbone": {"image_encoder": "ResNetBackbone", "min_level": 3, "max_level": 7, "use_p5": False},
    "BASNetBackbone": {"image_encoder": "ResNetBackbone", "num_classes": 1},
    "SegFormerBackbone": {"image_encoder": "MiTBackbone", "projection_filters": 64},
}


def applications():
    """Makers of all models of keras.applications, by name."""
    import keras

    functions = {name: f for name, f in vars(keras.applications).items() if name[0].isupper() and callable(f)}
    for name, function in functions.items():
        size = LARGER.get(name, 64)
        yield (
            name,
            lambda function=function, size=size: function(
                weights=None, input_shape=(size, size, 3), classifier_activation=None
            ),
        )


def backbones():
    """Makers of the image backbones of KerasHub, by name; none where it is not installed."""
    try:
        import keras_hub
    except ImportError:
        return

    def make(name, shape=(64, 64, 3)):
        config = dict(HUB_CONFIGS[name])
        if "image_encoder" in config:  # BASNet wants to tell its encoder the size itself
            inner = (None, None, 3) if name == "BASNetBackbone" else shape
            config["image_encoder"] = make(config["image_encoder"], inner)
        if "image_shape" not in config and name not in ("EfficientNetBackbone", "SegFormerBackbone"):
            config["image_shape"] = shape
        return getattr(keras_hub.models, name)(**config)

    for name in HUB_CONFIGS:
        yield f"keras_hub/{name}", lambda name=name: make(name)


def keras2_files():
    """Makers of models that Keras 2 built and wrote to `.h5`, by name; none where tf_keras is not installed."""
    try:
        import tf_keras
    except ImportError:
        return
    import kprune

    def make(name):
        old = getattr(tf_keras.applications, name)(weights=None, input_shape=(64, 64, 3), classifier_activation=None)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / f"{name}.h5"
            old.save(path)
            return kprune.load_keras2(path)

    for name in KERAS2:
        yield f"keras2/{name}.h5", lambda name=name: make(name)
