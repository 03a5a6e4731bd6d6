"""The scripts of the evidence: tables without a network, and a clear word where one is missing."""

import ast
import json
import os
import pathlib
import subprocess
import sys

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent.parent / "examples" / "reproduction"


def run(script, *arguments):
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def run_code(code, *arguments):
    """Runs Python that can import the scripts in a process of its own: their flags would meet those of the tools."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    path = os.pathsep.join([str(SCRIPTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300)


def test_a_table_has_means_and_deviations_over_seeds(tmp_path):
    common = {"network": "net", "images": 50000, "epochs": 1, "learning_rate": 0.02, "before": 0.88, "pruned": 0.2}
    accuracies = {
        ("l1", 0.5): (0.8, 0.9),
        ("random", 0.5): (0.5,),
        ("random", 0.6): (0.4,),
        ("similarity, soft", 0.6): (0.6,),
        ("not pruned", 0.5): (0.87, 0.89),
    }
    rows = [
        common | {"method": method, "target": target, "params": 1000, "seed": seed, "after": after}
        for (method, target), values in accuracies.items()
        for seed, after in enumerate(values)
    ]
    rows.append(rows[0] | {"network": "other"})
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("fine_tune.py", "--table", f"--results={file}")
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.strip().split("\n\n**other: ")
    facts, _, header, rule, *lines = first.splitlines()
    assert facts.startswith("**net: 88.00% before") and facts.endswith("not pruned: 88.00 ± 1.41 % (2)**")
    assert header.count("last epoch") == 2 and rule.count("---") == header.count(" | ") + 1
    assert lines == [
        "| l1 | hard | 1,000 | 20.0% | 85.00 ± 7.07 % (2) |  |  |  |",
        "| similarity, soft | soft |  |  |  | 1,000 | 20.0% | 60.00 % (1) |",
        "| random | hard | 1,000 | 20.0% | 50.00 % (1) | 1,000 | 20.0% | 40.00 % (1) |",
    ]
    assert second.splitlines()[-1] == "| l1 | hard | 1,000 | 20.0% | 80.00 % (1) |"


def test_without_a_network_it_says_so(tmp_path):
    result = run("fine_tune.py", f"--output={tmp_path / 'out'}")
    assert result.returncode != 0 and "--weights=FILE" in result.stdout + result.stderr
    assert not list(tmp_path.iterdir())


def test_one_shot_runs_nothing_that_is_there_and_other_settings_are_other_rows(tmp_path):
    row = {"network": "8", "rule": "l1", "target": 0.5, "images": 2000, "calibration": 512}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    code = """
import sys
import one_shot
from absl.testing import flagsaver
one_shot.FLAGS(["", "--networks=8", "--rules=l1", "--targets=0.5", f"--results={sys.argv[1]}"])
one_shot.main(None)  # there are no images and no networks to load
for name, value in {"networks": ["20"], "rules": ["random"], "targets": ["0.3"], "images": 9, "calibration": 9}.items():
    with flagsaver.flagsaver(**{name: value}):
        print(one_shot.missing())
"""
    result = run_code(code, file)
    assert result.returncode == 0, result.stderr
    changes = {"network": "20", "rule": "random", "target": 0.3, "images": 9, "calibration": 9}
    keys = [row | {name: value} for name, value in changes.items()]
    assert [ast.literal_eval(line) for line in result.stdout.splitlines()] == [{key["network"]: [key]} for key in keys]
    assert file.read_text() == json.dumps(row) + "\n"


def test_fine_tune_knows_rows_without_the_later_fields_and_keeps_other_settings_apart(tmp_path):
    old = {"network": "net", "method": "l1", "target": 0.5, "epochs": 2, "learning_rate": 0.02, "images": 50000}
    found = {"params": 1000, "before": 0.9, "pruned": 0.2, "after": 0.8}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(old | {"seed": 0} | found) + "\n")
    code = """
import json
import sys
import numpy as np
import fine_tune
from absl.testing import flagsaver
x, y = np.zeros((50_000, 1), "uint8"), np.zeros(50_000, "int64")
fine_tune.load_cifar10 = lambda folder: ((x, y), (x[:10_000], y[:10_000]))
fine_tune.load_network = fine_tune.accuracy = lambda *arguments: None
fine_tune.run = lambda *arguments: json.loads(sys.argv[2])
fine_tune.FLAGS(["", "--weights=net.npz", "--methods=l1", "--seeds=0", f"--results={sys.argv[1]}"])
settings = {"epochs": 2}, {"batch": 64}, {"images": 100}, {"test_images": 500}, {"parts": 2}
for setting in settings * 2:
    with flagsaver.flagsaver(**setting):
        fine_tune.main(None)
print(fine_tune.table(fine_tune.rows()))
"""
    result = run_code(code, file, json.dumps(found))
    assert result.returncode == 0, result.stderr
    added = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    later = {"batch": 128, "repair_images": 512, "test_images": 10000, "parts": 3}
    changes = {"batch": 64}, {"repair_images": 100}, {"test_images": 500}, {"parts": 2}
    assert added == [old | {"seed": 0} | later | change | found for change in changes]
    facts = [line.strip("*").partition("0.02")[2] for line in result.stdout.splitlines() if line.startswith("**net: ")]
    assert sorted(facts) == ["", ", batch: 64", ", parts: 2", ", repair images: 100", ", test images: 500"]
    assert result.stdout.count("| 80.00 % (1) |") == 5
