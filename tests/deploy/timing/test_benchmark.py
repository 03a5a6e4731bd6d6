"""Timing and running TFLite files."""

import json
import sys

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.deploy.export import export_tflite
from kprune.deploy.timing import benchmark_tflite, run_tflite
from kprune.utils.errors import ModelError, OptionError

# Far from symmetric, so that the zero points of the integers matter.
IMAGES = np.random.default_rng(0).uniform(0, 4, size=(20, 16, 16, 3)).astype("float32")


@pytest.fixture(scope="module")
def nets():
    """A small and a large network with the same input."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    return [keras.Model(inputs, layers.Conv2D(4, 1)(layers.Conv2D(width, 3)(inputs))) for width in (2, 256)]


@pytest.fixture(scope="module")
def files(nets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return [export_tflite(net, folder / f"{index}.tflite").path for index, net in enumerate(nets)]


@pytest.fixture(scope="module")
def integer_file(nets, tmp_path_factory):
    """A file that takes and gives int8, as other tools write them."""
    import tensorflow as tf

    from kprune.deploy.runtimes.base import quiet

    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(nets[0])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in IMAGES)
        converter.inference_input_type = converter.inference_output_type = tf.int8
        content = converter.convert()
    path = tmp_path_factory.mktemp("integer") / "net.tflite"
    path.write_bytes(content)
    return path


def test_percentiles_are_ordered_and_those_of_the_samples(files):
    timing = benchmark_tflite(files[0], runs=20, warmup=1)
    assert 0 < timing.p10_ms <= timing.median_ms <= timing.p90_ms
    assert timing.median_ms == pytest.approx(np.median(timing.samples_ms)) and len(timing.samples_ms) == timing.runs


def test_more_work_takes_longer(files):
    small, large = benchmark_tflite(*files, runs=20)
    assert large.median_ms > 2 * small.median_ms


def test_files_take_turns(monkeypatch):
    order = []

    class Fake:
        inputs, batch = [], 1

        def __init__(self, path):
            self.path = path

        def feed(self, samples):
            pass

        def invoke(self):
            order.append(self.path)

    module = sys.modules["kprune.deploy.timing.benchmark"]  # the package's attribute of this name is the function
    monkeypatch.setattr(module, "open_tflite", lambda path, threads: Fake(path))
    timings = benchmark_tflite("a", "b", warmup=1, runs=3)
    assert order == ["a", "b"] * 4 and [timing.path for timing in timings] == ["a", "b"]


def test_one_file_gives_one_timing_that_reads_well(files):
    timing = benchmark_tflite(files[0], runs=5, threads=2)
    assert "median" in str(timing) and "5 runs, 2 threads" in str(timing) and "samples_ms" not in repr(timing)


@pytest.mark.parametrize("options", [{"runs": 0}, {"warmup": -1}, {"threads": 0}, {"runs": 2.5}])
def test_options_out_of_range_are_refused(files, options):
    with pytest.raises(OptionError, match=next(iter(options))):
        benchmark_tflite(files[0], **options)


def test_no_file_is_refused():
    with pytest.raises(OptionError, match="no file"):
        benchmark_tflite()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(OptionError, match="There is no file"):
        benchmark_tflite(tmp_path / "missing.tflite")


@pytest.mark.parametrize("keep", [0, 3, 200, -100])
def test_a_file_that_is_cut_short_is_refused(files, tmp_path, keep):
    path = tmp_path / "cut.tflite"
    path.write_bytes(files[0].read_bytes()[:keep])
    with pytest.raises(ModelError, match="could not be opened"):
        benchmark_tflite(path)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "text.tflite"
    path.write_text("no model " * 50)
    with pytest.raises(ModelError, match="could not be opened"):
        run_tflite(path, np.zeros((1, 3)))


def test_running_a_batch_gives_what_the_model_gives(nets, files):
    images = np.random.default_rng(1).normal(size=(5, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(run_tflite(files[0], images), nets[0](images), atol=1e-5)


def test_integers_are_quantized_on_the_way_in_and_out(nets, integer_file):
    wanted, got = np.asarray(nets[0](IMAGES)), run_tflite(integer_file, IMAGES)
    assert got.dtype == "float32" and np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()


def test_integer_files_are_timed(integer_file):
    assert benchmark_tflite(integer_file, runs=3).median_ms > 0


def test_inputs_that_do_not_fit_are_refused(files):
    with pytest.raises(OptionError, match="has shape"):
        run_tflite(files[0], np.zeros((16, 16, 3)))


def test_several_inputs_go_by_name(tmp_path):
    first, second = keras.Input((3,), name="zeta"), keras.Input((3,), name="alpha")
    path = export_tflite(keras.Model([first, second], first - 2 * second), tmp_path / "two.tflite").path
    np.testing.assert_allclose(run_tflite(path, {"alpha": np.ones((1, 3)), "zeta": np.zeros((1, 3))}), [[-2] * 3])
    with pytest.raises(OptionError, match="A dict of arrays"):
        run_tflite(path, [np.ones((1, 3)), np.zeros((1, 3))])


def test_a_model_is_timed_beside_its_file_whatever_its_inputs_are_called(tmp_path):
    first, second = keras.Input((3,), name="meta-data"), keras.Input((2,), name="image")
    model = keras.Model([first, second], keras.layers.Concatenate()([first, second]))
    path = export_tflite(model, tmp_path / "two.tflite").path
    data = {"meta-data": np.ones((1, 3), "float32"), "image": np.ones((1, 2), "float32")}
    for given in (None, data):
        assert len(kprune.benchmark(model, path, data=given, warmup=0, runs=2)) == 2


def test_an_input_of_free_size_cannot_be_timed(tmp_path):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3)(inputs))
    path = export_tflite(model, tmp_path / "free.tflite", check_data=np.ones((1, 8, 8, 3))).path
    with pytest.raises(OptionError, match="no random sample"):
        benchmark_tflite(path)


@pytest.fixture(scope="module")
def together(nets, files):
    """A small file, a large one and the small model in memory, timed together."""
    return kprune.benchmark(files[0], files[1], nets[0], data=IMAGES, runs=15, warmup=3)


def test_models_of_several_kinds_are_timed_with_their_memory(together, files):
    assert [timing.kind for timing in together] == ["tflite", "tflite", "keras"] and len(together) == 3
    assert together[1].median_ms > 2 * together[0].median_ms
    assert together[1].size_bytes == files[1].stat().st_size
    memory = [timing.memory_bytes for timing in together]
    if None not in memory:
        assert memory[1] > together[1].size_bytes / 2 and memory[1] > memory[0]


def test_ratios_are_those_of_the_rounds_and_carry_their_spread(together):
    ratio = together.speedup(0, reference=1)
    rounds = np.array(together[1].samples_ms) / np.array(together[0].samples_ms)
    assert ratio.median == pytest.approx(np.median(rounds)) and ratio.p10 <= ratio.median <= ratio.p90
    assert together.speedup(0).median == 1.0 and " to " in str(ratio)


def test_the_table_and_the_json_hold_every_model(together, files):
    text, facts = str(together), json.loads(json.dumps(together.to_json()))
    assert str(files[1]) in text and "threads: 1" in text and len(text.splitlines()) == 5
    assert len(facts["models"]) == 3 and facts["machine"]["cores"] and facts["models"][1]["speedup"]["p90"] > 0


@pytest.mark.parametrize(
    "models, options, words",
    [
        ([], {}, "no model"),
        (["missing.onnx"], {}, "There is no file"),
        (["net.tflite"], {"batch_size": 0}, "batch_size is 0"),
        (["net.tflite"], {"threads": 0}, "threads is 0"),
    ],
)
def test_wrong_calls_are_refused_before_anything_starts(models, options, words):
    with pytest.raises(OptionError, match=words):
        kprune.benchmark(*models, **options)


def test_a_broken_file_and_unlike_inputs_are_named(files, tmp_path):
    (tmp_path / "broken.tflite").write_text("no model")
    with pytest.raises(ModelError, match="broken.tflite could not be opened"):
        kprune.benchmark(tmp_path / "broken.tflite")
    inputs = keras.Input((4,))
    other = export_tflite(keras.Model(inputs, inputs + 1), tmp_path / "other.tflite").path
    with pytest.raises(OptionError, match="Models with the same inputs"):
        kprune.benchmark(files[0], other)
