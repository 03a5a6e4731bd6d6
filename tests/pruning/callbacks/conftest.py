"""What tests of callbacks train on."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(48, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 48)
