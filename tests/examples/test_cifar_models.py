"""The CIFAR networks have the sizes that the pruning literature states, and are pruned by both modes."""

import math

import keras
import numpy as np
import pytest
from independent_cost import count_flops
from random_models import randomize

import cifar_models
import kprune
from cifar_models import MOBILENET_STAGES, build_densenet, build_mobilenet_v2, build_network, build_vgg
from cifar_resnet import build_resnet


def trainable(model):
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def kernels(model):
    return sum(math.prod(v.shape) for v in model.trainable_variables if v.name in ("kernel", "bias"))


def numbers_after_batchnorm(model):
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return sum(math.prod(layer.output.shape[1:]) for layer in norms)


@pytest.fixture(scope="module")
def networks():
    return {name: build_network(name) for name in ("vgg16", "resnet110", "densenet40", "mobilenet_v2")}


# HRank (Lin et al. 2020): VGG16 313.73 M and 14.98 M, ResNet-110 252.89 M and 1.72 M, DenseNet-40
# 282.92 M and 1.04 M. It counts the bias of VGG's convs, 0.28 M, which a BatchNorm makes useless and ours lack.
@pytest.mark.parametrize(
    ("name", "flops", "parameters"),
    [
        ("vgg16", 313.46e6, 14.99e6),
        ("resnet110", 252.89e6, 1.728e6),
        ("densenet40", 282.92e6, 1.059e6),
        ("mobilenet_v2", 91.15e6, 2.297e6),
    ],
)
def test_flops_and_parameters_are_those_of_the_literature(networks, name, flops, parameters):
    model = networks[name]
    assert count_flops(model) == pytest.approx(flops, rel=1e-4)
    assert trainable(model) == pytest.approx(parameters, rel=1e-3)
    assert kprune.model_cost(model).flops == count_flops(model)


def test_densenet_has_104_million_weights_without_batchnorm(networks):
    assert kernels(networks["densenet40"]) == pytest.approx(1.04e6, rel=5e-3)


def test_mobilenet_has_94_million_flops_where_batchnorm_counts(networks):
    model = networks["mobilenet_v2"]
    assert count_flops(model) + 2 * numbers_after_batchnorm(model) == pytest.approx(94.6e6, rel=1e-3)


def test_the_papers_own_variants():
    assert trainable(build_densenet(40, stem=16)) == pytest.approx(1.02e6, rel=1e-3)  # Huang et al. 2017: 1.0 M
    assert trainable(build_mobilenet_v2(project=False)) == pytest.approx(2.237e6, rel=1e-3)
    direct = build_vgg(16, hidden=None)
    assert trainable(direct) == pytest.approx(14.72e6, rel=1e-3) and count_flops(direct) < 313.21e6


@pytest.mark.parametrize(
    ("name", "convs", "smallest"), [("vgg16", 13, 1), ("resnet110", 109, 8), ("densenet40", 39, 8)]
)
def test_depth_and_resolution(networks, name, convs, smallest):
    model = networks[name]
    maps = [x.output.shape[1] for x in model.layers if len(x.output.shape) == 4]
    assert sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers) == convs
    assert min(maps) == smallest


def test_mobilenet_ends_at_4x4_with_17_blocks(networks):
    model = networks["mobilenet_v2"]
    assert model.get_layer("last_conv").output.shape == (None, 4, 4, 1280)
    assert sum(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in model.layers) == 17


SMALL = {
    "vgg11": lambda: build_vgg(11, widths=(8, 12, 16, 20, 20), hidden=16),
    "resnet": lambda: build_resnet(8),
    "densenet": lambda: build_densenet(13, growth=6),
    "mobilenet_v2": lambda: build_mobilenet_v2(((1, 8, 1, 1), (3, 12, 2, 2)), stem=12, last=32),
    "mobilenet_v2 paper": lambda: build_mobilenet_v2(((1, 8, 1, 1), (3, 12, 2, 2)), stem=12, last=32, project=False),
}


def check_both_modes(model, target):
    """Prunes a model by both modes: the target is met, and the two agree."""
    randomize(model)
    plan = kprune.plan_pruning(model, target_flops=target)
    soft, hard = kprune.apply_plan(model, plan, "soft"), kprune.apply_plan(model, plan, "hard")
    removed = 1 - count_flops(hard) / count_flops(model)
    assert target <= removed <= target + 0.01
    x = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    masked, smaller = (keras.ops.convert_to_numpy(m(x, training=False)) for m in (soft, hard))
    assert np.abs(masked - smaller).max() <= 1e-5 * np.abs(masked).max()


@pytest.mark.parametrize("name", SMALL)
def test_small_versions_are_pruned_by_both_modes(name):
    check_both_modes(SMALL[name](), 0.4)


@pytest.mark.slow
@pytest.mark.parametrize("name", cifar_models.NETWORKS)
def test_the_networks_are_pruned_by_both_modes(networks, name):
    check_both_modes(networks.get(name) or build_network(name), 0.5)


@pytest.mark.parametrize("name", SMALL)
def test_small_versions_are_pruned_while_they_train_and_in_rounds(name):
    """Algorithm 1 in both of its modes: masks in `fit`, and smaller models with training in between."""
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, (16, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 16)
    model, pruning = randomize(SMALL[name]()), kprune.SimilarityPruning(0.4)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)

    def fit(model):
        return model.fit(*data, batch_size=8, verbose=0)

    run = kprune.prune_iteratively(model, fit, 0.4, criterion="l1", rounds=2, verbose=False)
    model.fit(*data, epochs=2, batch_size=8, verbose=0, callbacks=[pruning])
    small = kprune.strip(model)
    for plan, pruned in ((run.plan, run.model), (pruning.plan, small)):
        assert plan.flops[1] == count_flops(pruned) and 0.4 <= 1 - count_flops(pruned) / count_flops(model) <= 0.42
    masked, smaller = (m.predict(data[0], verbose=0) for m in (model, small))
    assert np.abs(masked - smaller).max() <= 1e-4 * np.abs(masked).max()


@pytest.mark.parametrize(
    "build",
    [
        lambda: build_vgg(17),
        lambda: build_vgg(16, widths=(8, 8)),
        lambda: build_densenet(41),
        lambda: build_network("alexnet"),
    ],
)
def test_impossible_shapes_are_refused(build):
    with pytest.raises(ValueError, match="Expected"):
        build()


def test_every_stride_and_width_of_mobilenet_is_in_its_table():
    assert sum(blocks for _, _, blocks, _ in MOBILENET_STAGES) == 17
    assert set(cifar_models.NETWORKS) >= {"resnet20", "resnet32", "resnet56", "resnet110"}
