"""The mend for several workers; tests/examples/test_distributed_training.py runs it on two of them."""

import keras
import numpy as np
from training_runs import build, compiled

from kprune.compat.multiworker import fix_multiworker_fit, with_axis


def test_it_does_nothing_where_there_is_one_worker():
    model = compiled()
    before = dict(vars(model))
    assert fix_multiworker_fit(model) is model
    assert vars(model).keys() == before.keys()


def test_metrics_become_vectors_of_one_element_once():
    step = with_axis(
        with_axis(lambda data: {"loss": keras.ops.sum(data), "accuracy": keras.ops.convert_to_tensor(0.5)})
    )
    told = {name: keras.ops.convert_to_numpy(value).tolist() for name, value in step(np.ones(3)).items()}
    assert told == {"loss": [3.0], "accuracy": [0.5]}


def test_nothing_of_it_is_saved(tmp_path):
    model = build()
    model.train_step = with_axis(model.train_step)
    model.save(tmp_path / "model.keras")
    assert type(keras.models.load_model(tmp_path / "model.keras").train_step) is not type(model.train_step)
