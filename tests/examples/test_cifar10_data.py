import numpy as np
import pytest

import cifar10_data


def numbered_images(count=10, size=32):
    return np.random.default_rng(0).integers(1, 256, (count, size, size, 3), dtype="uint8"), np.arange(count)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["data/cifar10_jpeg.npz", "data"])
def test_both_sources_hold_every_class_equally_often(shared, place):
    if place == "data":
        pytest.importorskip("tensorflow_datasets")
    (x_train, y_train), (x_test, y_test) = cifar10_data.load_cifar10(shared / place)
    assert x_train.shape == (50_000, 32, 32, 3) and x_test.shape == (10_000, 32, 32, 3)
    assert x_train.dtype == x_test.dtype == np.uint8
    assert np.bincount(y_train).tolist() == [5000] * 10 and np.bincount(y_test).tolist() == [1000] * 10


def test_an_epoch_has_every_image_once():
    x, y = numbered_images()
    dataset = cifar10_data.training_dataset(x, y, batch=4, seed=0)
    assert [len(dataset[i][0]) for i in range(len(dataset))] == [4, 4, 2]
    assert sorted(np.concatenate([dataset[i][1] for i in range(len(dataset))])) == list(range(10))


def test_batches_follow_from_seed_and_epoch_in_any_order_of_asking():
    x, y = numbered_images()
    one, two = (cifar10_data.training_dataset(x, y, batch=4, seed=7) for _ in range(2))
    for _ in range(2):
        forward, backward = [one[i] for i in (0, 1, 2)], [two[i] for i in (2, 1, 0)]
        for (x1, y1), (x2, y2) in zip(forward, reversed(backward), strict=True):
            np.testing.assert_array_equal(x1, x2)
            np.testing.assert_array_equal(y1, y2)
        one.on_epoch_end()
        two.on_epoch_end()


def test_epochs_and_seeds_differ():
    x, y = numbered_images()
    dataset = cifar10_data.training_dataset(x, y, batch=10, seed=0)
    first = dataset[0][1].tolist()
    dataset.on_epoch_end()
    other_seed = cifar10_data.training_dataset(x, y, batch=10, seed=1)
    assert len({tuple(first), tuple(dataset[0][1]), tuple(other_seed[0][1])}) == 3


def test_augmented_images_are_windows_of_the_padded_image_or_their_mirrors():
    images, _ = numbered_images(count=40, size=6)
    result = cifar10_data.augment(images, np.random.default_rng(0), pad=2)
    padded = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)])
    places = set()
    for image, crop in zip(padded, result, strict=True):
        windows = {(t, s, f): image[t : t + 6, s : s + 6][:, ::f] for t in range(5) for s in range(5) for f in (1, -1)}
        (found,) = [place for place, window in windows.items() if (window == crop).all()]
        places.add(found)
    assert {t for t, _, _ in places} == {s for _, s, _ in places} == set(range(5))
    assert {f for _, _, f in places} == {1, -1}
