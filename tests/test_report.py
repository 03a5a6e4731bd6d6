import json

import pytest
from test_graph import build, residual

import kprune
from kprune.plots import plot_run
from kprune.report import Measurement, Report


@pytest.fixture
def plan():
    return kprune.plan_pruning(build(residual), 0.4)


def test_the_table_is_aligned_and_says_what_was_not_measured(plan):
    lines = (
        Report([Measurement("before", 0.9917, 2e6, 1200, 2048, 1.5, 1.25, 2.0), Measurement("after")])
        .table()
        .splitlines()
    )
    assert len({len(line) for line in lines}) == 1
    for text in ("99.17%", "2.00 M", "1,200", "2.0 KiB", "1.500 (1.250-2.000)"):
        assert text in lines[2]
    assert lines[3].count(" - ") == 5


def test_the_report_carries_the_plan_layer_by_layer(plan, tmp_path):
    report = Report([Measurement("before")], plan, {"accuracy": [0.5]})
    text = report.save(tmp_path / "r.md").read_text()
    assert all(entry.path in text for entry in plan.layers) and "it is a model output" in text
    assert json.loads(report.save(tmp_path / "r.json").read_text())["plan"]["layers"][0]["path"] == "stem"


def test_a_failing_write_leaves_the_old_file(plan, tmp_path):
    path = tmp_path / "r.md"
    path.write_text("old")
    with pytest.raises(kprune.ExportError, match="no room"):
        kprune.files.write_by_rename(path, lambda temporary: (_ for _ in ()).throw(OSError("no room")))
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["r.md"]


def test_the_plot_is_a_picture(plan, tmp_path):
    history = {"val_accuracy": [0.5, 0.6], "pruned_flops": [0.0, 0.4]}
    assert plot_run(plan, history, tmp_path / "run.png").stat().st_size > 10_000


def test_files_get_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    path = kprune.files.write_by_rename(tmp_path / "renamed", lambda temporary: temporary.write_text("x"))
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
