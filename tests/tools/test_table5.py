"""The tool that makes table 5: what it finds by computing; the timings themselves need an idle machine."""

import json

import keras
import numpy as np
import pytest
from latency_tables import make_table, network
from models import build, residual

import kprune


def row(threads, *variants):
    """A row as the tool writes it; a variant is its name, FLOPs and milliseconds."""
    first, facts = variants[0], []
    for name, flops, ms in variants:
        fact = {"variant": name, "flops": flops, "median_ms": ms, "p10_ms": 0.9 * ms, "p90_ms": 1.1 * ms}
        speedup, theoretical = first[2] / ms, first[1] / flops
        fact |= {"speedup": [speedup, 0.9 * speedup, 1.2 * speedup], "theoretical": theoretical}
        facts.append(fact | {"quotient": [value / theoretical for value in fact["speedup"]]})
    key = {"network": "resnet56", "runtime": "litert int8", "threads": threads, "criterion": "similarity"}
    key |= {"target": 0.5, "round_to": ["1"], "weights": None}
    return key | {"runs": 60, "variants": facts, "machine": {}}


def test_rows_that_are_there_are_shown_and_not_timed_again(run_script, tmp_path, capsys):
    rows = [row(threads, ("full", 100.0, 3.0), ("pruned", 50.0, 2.0)) for threads in (1, 2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    with pytest.raises(SystemExit) as ended:
        run_script("table5", f"--output={tmp_path}", "--networks=resnet56", "--runtimes=litert int8")
    printed = capsys.readouterr().out
    assert not ended.value.code and [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert printed.count("| pruned | 50.0% | 2.00 (1.80-2.20) | 1.50 (1.35-1.80) | 2.00 | 0.75 (0.68-0.90) |") == 2


@pytest.mark.parametrize(
    "flag, word",
    [
        ("--networks=vgg", "vgg"),
        ("--threads=1,0", "threads"),
        ("--weights=resnet56=none.npz", "none.npz"),
        ("--tables=resnet56=none.json", "none.json"),
    ],
)
def test_wrong_flags_are_one_line(run_script, tmp_path, capsys, flag, word):
    with pytest.raises(SystemExit) as ended:
        run_script("table5", f"--output={tmp_path / 'new'}", flag)
    printed = capsys.readouterr()
    assert ended.value.code == 2 and word in printed.err and len(printed.err.splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_the_uniformly_narrower_network_has_one_rate_and_the_flops(run_script, share):
    keras.utils.set_random_seed(0)
    model = build(residual)
    flops = kprune.model_cost(model).flops
    narrower = run_script("table5", run_name="table5")["uniformly_narrower"]("other", model, share * flops)
    assert kprune.model_cost(narrower).flops == pytest.approx(share * flops, rel=0.15)
    widths = [[c.channels for c in kprune.model_cost(m).layers if c.channels] for m in (model, narrower)]
    kept = np.array(widths[1][:-1]) / np.array(widths[0][:-1])  # the last layer is the output
    assert np.ptp(kept) <= 1 / min(widths[0][:-1]) + 1e-9


def test_a_plan_by_a_table_meets_the_flops_at_widths_without_waste(run_script):
    model = network()
    plan = run_script("table5", run_name="table5")["plan_by_table"](model, make_table(model), 0.4)
    assert 0.3 * plan.flops[0] < plan.flops[1] <= 0.6 * plan.flops[0]
    assert {len(entry.keep) % 8 for entry in plan.layers if entry.path in ("stem", "middle", "end")} == {0}
