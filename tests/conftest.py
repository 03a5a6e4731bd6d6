"""What every test gets: quiet TensorFlow, a fixed seed, and the folder of trained networks and real images."""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402  (TensorFlow reads the variable above when it is imported)
import pytest  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def pytest_runtest_setup(item):
    """Skips, on the other backends, what only TensorFlow can do."""
    if item.get_closest_marker("tensorflow") and keras.backend.backend() != "tensorflow":
        pytest.skip("needs the TensorFlow backend")


@pytest.fixture(scope="session")
def shared():
    """The folder with `models/` and `data/`: KPRUNE_SHARED, or `shared` beside the repository; else skips."""
    folder = pathlib.Path(os.environ.get("KPRUNE_SHARED", ROOT.parent / "shared"))
    if not (folder / "models").is_dir() or not (folder / "data").is_dir():
        pytest.skip("needs trained networks and CIFAR-10: set KPRUNE_SHARED to the folder that has models/ and data/")
    return folder
