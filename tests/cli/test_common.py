"""What the commands share: flags from files, arguments without a name, arrays."""

import json

import numpy as np
import pytest

import kprune
from kprune.cli import common


def test_a_saved_config_gives_the_same_run_and_flags_beside_it_win(command, folder):
    given = ["model.keras", "--target_flops=0.3", "--exclude=stem,st*", "--criterion=l1", "--nostrict"]
    assert command("prune", *given, "--output=first", "--save_config=run.json")[0] == 0
    config = json.loads((folder / "run.json").read_text())
    assert config["model"] == "model.keras" and config["exclude"] == ["stem", "st*"]
    assert config["strict"] is False and "alpha" not in config
    assert command("prune", "--config=run.json", "--output=second")[0] == 0
    plans = [kprune.Plan.load(folder / name / "plan.json") for name in ("first", "second")]
    assert plans[0] == plans[1] and plans[0].target == {"flops": 0.3}
    facts = kprune.Report.load(folder / "second" / "report.json").facts
    assert facts["settings"]["output"] == "second" and facts["settings"]["target_flops"] == 0.3


@pytest.mark.parametrize(
    "content, words", [('{"modle": 1}', "has modle"), ("[1]", "JSON list"), ("{", "cannot be read as JSON")]
)
def test_a_wrong_config_is_one_line(mistake, folder, content, words):
    (folder / "wrong.json").write_text(content)
    assert words in mistake("export", "--config=wrong.json")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["profile"], ["--model is missing", "--output is missing"]),
        (["export", "--modle=x"], ["Unknown command line flag 'modle'", "Did you mean: model?"]),
        (["export", "x", "--quantize=int4"], ["int4", "float16"]),
        (["export", "x", "z"], ["Unexpected argument 'z'"]),
        (["export", "--model=x", "z"], ["Unexpected argument 'z'", "a model already"]),
        (["benchmark", "--runs=0", "x"], ["--runs=0", "positive"]),
        (["plot", "distnaces", "--output=x.png"], ["distnaces", "distances"]),
    ],
)
def test_a_wrong_flag_is_one_line(mistake, arguments, words):
    error = mistake(*arguments)
    assert all(word in error for word in words) and error.rstrip().endswith("Try --help."), error


def test_flags_of_one_run_are_gone_in_the_next(command, mistake):
    assert command("export", "model.keras", "--nooverwrite", "--output=once.tflite")[0] == 0
    assert command("export", "model.keras", "--output=once.tflite")[0] == 0
    assert "already there" in mistake("export", "model.keras", "--nooverwrite", "--output=once.tflite")


def test_arrays_are_read_by_key_or_all(folder):
    np.savez(folder / "two.npz", images=np.zeros((9, 2)), labels=np.zeros(9))
    (folder / "broken.tflite").write_text("broken")
    assert set(common.load_arrays(folder / "two.npz")) == {"images", "labels"}
    assert common.load_arrays(folder / "two.npz", "labels").shape == (9,)
    with pytest.raises(kprune.OptionError, match="no key 'x'"):
        common.load_arrays(folder / "two.npz", "x")
    with pytest.raises(kprune.OptionError, match="cannot be read"):
        common.load_arrays(folder / "broken.tflite")


def test_a_model_with_masks_is_read(command, folder):
    """Also by a process that has not imported what makes them, as kprune benchmark."""
    assert command("prune", "model.keras", "--target_flops=0.3", "--mode=soft", "--output=soft")[0] == 0
    assert any(isinstance(layer, kprune.MaskedLayer) for layer in common.load_model(folder / "soft/model.keras").layers)
