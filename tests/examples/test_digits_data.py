import numpy as np
import pytest

import digits_data

pytest.importorskip("sklearn")


def test_the_split_is_stratified_and_follows_from_the_seed():
    (x_train, y_train), (x_test, y_test) = digits_data.load_digits_images()
    assert x_train.shape == (1437, 8, 8, 1) and x_test.shape == (360, 8, 8, 1)
    assert x_train.dtype == np.float32 and x_train.min() == 0 and x_train.max() == 1
    assert np.ptp(np.bincount(y_test)) <= 2
    np.testing.assert_array_equal(digits_data.load_digits_images()[1][1], y_test)
    assert (digits_data.load_digits_images(seed=1)[1][1] != y_test).any()


def test_initial_weights_follow_from_the_seed_alone():
    first, again, other = (
        digits_data.build_digits_resnet(seed).get_layer("stage1_1_conv").kernel for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first) - np.asarray(other)).max() > 0.01


@pytest.mark.slow
def test_the_network_learns_the_digits():
    train, test = digits_data.load_digits_images()
    model = digits_data.train_digits(digits_data.build_digits_resnet(), *train)
    assert model.evaluate(*test, verbose=0)[1] >= 0.97
