"""The record of a run: equal lists, true numbers, and a file that gives it back."""

import pytest

import kprune
from kprune.selection.plan import LayerPlan


def plan(kept, frozen=()):
    """A plan of layers with 10 filters each; cost grows with the filters kept."""
    layers = tuple(
        LayerPlan(name, 10, tuple(range(n)), "frozen" if name in frozen else None) for name, n in kept.items()
    )
    total, left = 10 * len(kept), sum(kept.values())
    return kprune.Plan(layers, flops=(100.0 * total, 100.0 * left), params=(4 * total, 4 * left))


def record():
    made = kprune.PruningRecord()
    made.measured({"loss": 9.0})  # before the first round: nobody's
    made.add(plan({"a": 8, "b": 10}), ratio=0.35)
    made.measured({"loss": 2.0})
    made.measured({"loss": 1.0, "val_loss": 1.5, "pruned_flops": 7.0})
    made.add(plan({"a": 5, "b": 10}), relaxed="closest pairs")
    return made


def test_every_list_has_one_entry_per_round():
    history = record().history
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(history, 2)
    assert history["loss"] == [1.0, None] and history["val_loss"] == [1.5, None]
    assert history["ratio"] == [0.35, None] and history["relaxed"] == [None, "closest pairs"]


def test_shares_filters_and_rates_are_against_the_network_before_the_first_round():
    made = record()
    assert made.history["pruned_flops"] == pytest.approx([0.1, 0.25])
    assert made.history["params"] == [72, 60] and made.history["filters"] == [2, 5]
    assert made.rate("a") == pytest.approx([0.2, 0.5]) and made.rate("b") == [0, 0]


def test_frozen_layers_have_no_rate():
    made = kprune.PruningRecord()
    made.add(plan({"a": 8, "logits": 10}, frozen=["logits"]))
    assert list(made.history["rates"][0]) == ["a"]


def test_a_line_names_share_relaxation_and_metrics():
    assert "10.00% of the FLOPs" in record().line(0) and "val_loss 1.5000" in record().line(0)
    assert "closest pairs" in record().line() and "loss" not in record().line()


def test_it_is_read_back_as_it_was_written(tmp_path):
    made = record()
    made.save(tmp_path / "record.json")
    assert kprune.PruningRecord.load(tmp_path / "record.json").history == made.history


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": 7, "history": {}}', '{"schema": 1, "history": {"a": [1], "b": []}}']
)
def test_damaged_files_are_refused(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(kprune.PlanError, match="Fix"):
        kprune.PruningRecord.load(tmp_path / "record.json")
