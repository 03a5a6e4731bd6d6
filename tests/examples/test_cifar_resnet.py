import keras
import numpy as np
import pytest

import cifar10_data
import cifar_resnet


@pytest.fixture(scope="module")
def test_images(shared):
    return cifar10_data.load_split(shared / "data" / "cifar10_jpeg.npz", "test")


@pytest.mark.parametrize(
    ("depth", "file", "percent", "every", "tolerance"),
    [
        (20, "resnet20_cifar10_jpeg.npz", 88.42, 1, 0.02),
        (20, "resnet20_cifar10.npz", 81.03, 1, 0.02),
        # The deeper ones on a part of the images, within what chance makes of it.
        pytest.param(32, "resnet32_cifar10.npz", 82.56, 5, 1.7, marks=pytest.mark.slow),
        pytest.param(56, "resnet56_cifar10.npz", 83.20, 5, 1.7, marks=pytest.mark.slow),
    ],
)
def test_trained_networks_reach_their_known_accuracy(shared, test_images, depth, file, percent, every, tolerance):
    model = cifar_resnet.load_npz(cifar_resnet.build_resnet(depth), shared / "models" / file)
    images, labels = (array[::every] for array in test_images)
    predicted = model.predict(images, batch_size=250, verbose=0).argmax(axis=1)
    assert 100 * np.mean(predicted == labels) == pytest.approx(percent, abs=tolerance)


def test_a_file_of_another_depth_is_refused(shared):
    with pytest.raises(ValueError, match="equal depths"):
        cifar_resnet.load_npz(cifar_resnet.build_resnet(32), shared / "models" / "resnet20_cifar10.npz")
    with pytest.raises(ValueError, match="equal depths"):
        cifar_resnet.load_npz(cifar_resnet.build_resnet(20), shared / "models" / "resnet32_cifar10.npz")


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_trainable_parameters_are_those_of_the_paper(depth, parameters):
    model = cifar_resnet.build_resnet(depth)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters


def test_widths_and_inner_set_the_channels_of_stream_and_blocks():
    model = cifar_resnet.build_resnet(8, widths=(5, 8, 8), inner=(3, 4, 7), classes=2)
    convs = [layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert convs == [5, 3, 5, 4, 8, 7, 8]
    assert model.output_shape == (None, 2)


def test_an_odd_number_of_new_channels_is_padded_with_one_more_behind():
    model = cifar_resnet.build_resnet(8, widths=(4, 7, 7))
    for name in ("stage2_block1_conv2", "stage2_block1_bn2"):
        layer = model.get_layer(name)
        layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    # With the block's own branch at zero, what is left of the sum is the shortcut.
    stage1, stage2 = (model.get_layer(f"stage{s}_block1_relu2").output for s in (1, 2))
    before, after = keras.Model(model.inputs, [stage1, stage2]).predict(np.full((1, 32, 32, 3), 99.0), verbose=0)
    np.testing.assert_allclose(after, np.pad(before[:, ::2, ::2], [(0, 0), (0, 0), (0, 0), (1, 2)]), atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"depth": 21}, {"depth": 20, "widths": (16, 8, 64)}, {"depth": 20, "inner": (8, 8)}]
)
def test_impossible_shapes_are_refused(options):
    with pytest.raises(ValueError, match="Expected"):
        cifar_resnet.build_resnet(**options)


def test_the_model_is_saved_and_loaded_without_this_module(tmp_path):
    model = cifar_resnet.build_resnet(8)
    model.save(tmp_path / "resnet.keras")
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    loaded = keras.models.load_model(tmp_path / "resnet.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6, atol=1e-6)
