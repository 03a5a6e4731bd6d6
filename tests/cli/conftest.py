"""The command in the process of the tests, which saves the seconds that a new one needs to import TensorFlow."""

import keras
import numpy as np
import pytest
from models import build, residual

from kprune.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, images for it, and the same images labelled as the model itself says, so that it has no errors."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("cli")
    model = build(residual)
    model.save(folder / "model.keras")
    x = np.random.default_rng(0).normal(size=(400, *model.input_shape[1:])).astype("float32")
    np.save(folder / "images.npy", x[:9])
    np.savez(folder / "data.npz", x=x, y=model.predict(x, verbose=0).argmax(-1))
    return folder


@pytest.fixture
def command(monkeypatch, capsys, folder):
    """Runs `kprune` with these arguments in the folder; gives its exit code, output and errors."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        with pytest.raises(SystemExit) as done:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return done.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def mistake(command):
    """Runs `kprune` with a mistake; gives the one line that it writes, which says whose it is."""

    def run(*arguments):
        code, printed, error = command(*arguments)
        assert code == 2 and not printed and len(error.splitlines()) == 1, error
        assert error.startswith("kprune"), error
        return error

    return run
