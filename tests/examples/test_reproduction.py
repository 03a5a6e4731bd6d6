"""The scripts of the evidence: tables without a network, and a clear word where one is missing."""

import json
import pathlib
import subprocess
import sys

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent.parent / "examples" / "reproduction"


def run(script, *arguments):
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


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
    first, second = result.stdout.strip().split("\n\nother: ")
    facts, _, header, rule, *lines = first.splitlines()
    assert facts.startswith("net: 88.00% before") and facts.endswith("not pruned: 88.00 ± 1.41 % (2)")
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
