import dataclasses
import html.parser
import json
import pathlib

import numpy as np
import pytest
from models import build, residual

import kprune
from kprune.report import Measurement, Report, run_facts
from kprune.report.plots import plot_run


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
        kprune.utils.files.write_by_rename(path, lambda temporary: (_ for _ in ()).throw(OSError("no room")))
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["r.md"]


def test_the_plot_is_a_picture(plan, tmp_path):
    history = {"val_accuracy": [0.5, 0.6], "pruned_flops": [0.0, 0.4]}
    assert plot_run(plan, history, tmp_path / "run.png").stat().st_size > 10_000


def test_files_get_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    path = kprune.utils.files.write_by_rename(tmp_path / "renamed", lambda temporary: temporary.write_text("x"))
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


class Page(html.parser.HTMLParser):
    """Counts elements, collects text and addresses, and checks that every element is closed in its turn."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.addresses = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def full(plan):
    """A report that has everything, with names that HTML must not take for its own."""
    rng = np.random.default_rng(0)
    timings = [
        kprune.deploy.Timing.of(name, rng.normal(ms, 0.01, 20), 1) for name, ms in (("a.tflite", 2.0), ("b", 1.0))
    ]
    rows = [
        Measurement("before", 0.9, 2e6, 1200, 2048, 1.5, 1.25, 2.0, 8192.0),
        Measurement("<b>after</b>", 0.875, 1e6, 600, 1024, 1.0, 0.9, 1.1, 4096.0),
    ]
    return Report(
        rows,
        plan,
        {"val_accuracy": [0.5, 0.6], "pruned_flops": [0.0, 0.4]},
        (
            kprune.deploy.Export(
                pathlib.Path("small.tflite"), "int8 TFLite file", 4096, 0.0123, 0.991, 360, arena_bytes=20480
            ),
        ),
        kprune.deploy.Benchmark(tuple(timings), {"processor": "some CPU", "cores": 2}),
        run_facts(seed=7),
        "Pruning & co",
    )


def test_the_page_is_well_formed_and_needs_no_other_file(full):
    text = full.html()
    page = Page(text)
    assert not page.open and not {"script", "link", "iframe"} & set(page.tags)
    assert page.addresses and all(address.startswith("data:") for address in page.addresses)
    assert "@import" not in text and "url(" not in text and "<b>after</b>" not in text


def test_the_page_tells_what_the_report_knows(full):
    text = "\n".join(Page(full.html()).texts)
    for part in ("Pruning & co", "<b>after</b>", "−2.50 points", "−50.0 %", "8.0 KiB → 4.0 KiB", "0.012", "99.1%"):
        assert part in text, part
    for entry in full.plan.layers:
        assert entry.path in text and (entry.reason or "") in text
    assert (
        str(full.timings.speedup(1)) in text
        and "some CPU" in text
        and kprune.utils.machine.metadata.version("keras") in text
    )


def test_the_page_tells_the_arena_where_it_is_known(full):
    text = "\n".join(Page(full.html()).texts)
    assert "arena, TFLite Micro" in text and "20.0 KiB" in text and "20.5 kB of arena" in full.markdown()
    unknown = dataclasses.replace(full, exports=[dataclasses.replace(full.exports[0], arena_bytes=None)])
    assert "arena" not in unknown.html() and "arena" not in unknown.markdown()


def test_the_page_carries_the_plan_and_the_pictures(full):
    import base64

    addresses = Page(full.html()).addresses
    contents = {address.partition(";")[0]: base64.b64decode(address.partition(",")[2]) for address in addresses}
    assert kprune.Plan.from_dict(json.loads(contents["data:application/json"])) == full.plan
    assert b"<svg" in contents["data:image/svg+xml"]


def test_a_report_from_json_is_the_same_report(full, tmp_path):
    loaded = Report.load(full.save(tmp_path / "report.json"))
    assert loaded.html() == full.html() and loaded.markdown() == full.markdown()


def test_a_report_of_two_rows_alone_is_a_page(full):
    alone = dataclasses.replace(full, plan=None, history=None, exports=(), timings=None, facts={})
    assert "img" not in Page(alone.html()).tags and "| before " in alone.markdown()


def test_unknown_forms_and_broken_files_are_refused(full, tmp_path):
    with pytest.raises(kprune.OptionError, match=".html, .md, .json"):
        full.save(tmp_path / "report.pdf")
    (tmp_path / "report.json").write_text('{"schema": 1}')
    with pytest.raises(kprune.OptionError, match="is no report"):
        Report.load(tmp_path / "report.json")
