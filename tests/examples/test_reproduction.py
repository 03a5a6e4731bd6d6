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
    common = {"network": "net", "target": 0.5, "epochs": 1, "learning_rate": 0.02, "removed_flops": 0.51, "pruned": 0.2}
    rows = [
        common | {"method": "l1", "params": 1000, "seed": seed, "after": after} for seed, after in enumerate((0.8, 0.9))
    ]
    rows.append(common | {"method": "random", "params": 1000, "seed": 0, "after": 0.5})
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("fine_tune.py", "--table", f"--results={file}")
    assert result.returncode == 0, result.stderr
    *_, first, second = result.stdout.strip().splitlines()
    assert "l1 (net" in first and "85.00 ± 7.07 %" in first and first.endswith("| 2 |")
    assert "random (net" in second and "| 50.00 % |" in second


def test_without_a_network_it_says_so(tmp_path):
    result = run("fine_tune.py", f"--output={tmp_path / 'out'}")
    assert result.returncode != 0 and "--weights=FILE" in result.stdout + result.stderr
    assert not list(tmp_path.iterdir())
