"""From a trained network to its report by shell, as the documentation says; and the command of an installed wheel."""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from models import build, residual

import kprune
from digits_data import build_digits_resnet, load_digits_images, train_digits

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Pruning with data and the export compute with TensorFlow; the others start faster on NumPy.
CHAIN = """
set -euo pipefail
kprune() { "$PYTHON" -m kprune "$@"; }
files=pruned/small.tflite
kprune prune digits.keras --target_flops=0.4 --criterion=l1 --data=images.npy --output=pruned --save_config=run.json
kprune export pruned/model.keras --output=pruned/small.tflite --quantize=int8 \\
    --representative_data=images.npy --record=pruned/small.json
if [ "$ONNX" = yes ]; then
    kprune export pruned/model.keras --format=onnx --output=pruned/small.onnx --batch_size=1 --record=pruned/onnx.json
    files="$files pruned/small.onnx"
fi
"$PYTHON" "$TOOLS/prune.py" --config=run.json --output=again
export KERAS_BACKEND=numpy
kprune benchmark $files --runs=20 --output=pruned/timings.json
kprune report pruned --title="Digits"
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder with a network trained on the digits, images for its repair, and all that the chain makes of them."""
    folder = tmp_path_factory.mktemp("chain")
    (x, y), test = load_digits_images()
    train_digits(build_digits_resnet(), x, y, epochs=4).save(folder / "digits.keras")
    np.save(folder / "images.npy", x[:128])
    has_onnx = all(map(importlib.util.find_spec, ("tf2onnx", "onnxruntime")))
    environment = {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "TOOLS": str(ROOT / "tools")}
    environment |= {"ONNX": "yes" if has_onnx else "no"}
    command = ["bash", "-c", CHAIN]
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, test


@pytest.mark.slow
def test_prune_export_benchmark_report(digits):
    folder, (x_test, y_test) = digits
    pruned = folder / "pruned"
    report = kprune.Report.load(pruned / "report.json")
    assert report.plan.flops[1] <= 0.6 * report.plan.flops[0]
    before, after = (row.size_bytes for row in report.rows)  # the file before has the optimizer's state, too
    assert 0.5 < after / before < 0.8 and (folder / "digits.keras").stat().st_size > 1.5 * before
    exports = {export.path.name: export for export in report.exports}
    assert exports["small.tflite"].size_bytes == (pruned / "small.tflite").stat().st_size
    timed = json.loads((pruned / "timings.json").read_text())["models"]
    assert len(report.timings) == len(timed) and all(timing.median_ms > 0 for timing in report.timings)
    page = (pruned / "report.html").read_text()
    assert all(part in page for part in ("<h1>Digits</h1>", "small.tflite", "stage3_1_conv", "data:image/svg+xml"))
    logits = kprune.run_tflite(pruned / "small.tflite", x_test)
    assert (logits.argmax(-1) == y_test).mean() > 0.8


@pytest.mark.slow
def test_the_chain_has_an_onnx_file(digits):
    pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    pruned = digits[0] / "pruned"
    report = kprune.Report.load(pruned / "report.json")
    assert [timing.kind for timing in report.timings] == ["tflite", "onnx"]
    assert {export.path.name: export.error for export in report.exports}["small.onnx"] < 1e-4


@pytest.mark.slow
def test_the_saved_config_makes_the_same_network(digits):
    folder, (x_test, _) = digits
    plans = [kprune.Plan.load(folder / name / "plan.json") for name in ("pruned", "again")]
    assert plans[0] == plans[1]
    models = [keras.saving.load_model(folder / name / "model.keras") for name in ("pruned", "again")]
    outputs = [model.predict(x_test, verbose=0) for model in models]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-4)


PROJECT = ("kprune", "tools", "docs", "examples", "tests")
FILES = ("setup.cfg", "pyproject.toml", "MANIFEST.in", "ruff.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
SDIST = "from setuptools import build_meta; build_meta.build_sdist({folder!r})"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The project's source distribution, unpacked."""
    # Not find_spec: setuptools warns where it finds distutils imported, as by tests before.
    if not {"pip", "setuptools"} <= {found.name for found in importlib.metadata.distributions()}:
        pytest.skip("needs pip and setuptools")
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"  # a copy: building leaves files where it builds
    source.mkdir()
    for name in PROJECT:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*FILES, "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-c", SDIST.format(folder=str(folder))]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def installed(sdist, tmp_path_factory):
    """A prefix that holds the wheel of the source distribution, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, *build], cwd=sdist, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    install = ["install", "--no-deps", "--no-compile", "--ignore-installed", "--prefix", str(folder / "prefix")]
    subprocess.run([*pip, *install, str(wheel)], check=True, capture_output=True)
    return folder / "prefix"


@pytest.mark.slow
def test_the_source_distribution_is_complete(sdist):
    assert sdist.name == f"kprune-{kprune.__version__}"
    for folder in PROJECT:
        there, packed = ({path.relative_to(top) for path in (top / folder).rglob("*")} for top in (ROOT, sdist))
        missing = {path for path in there - packed if path.suffix != ".pyc" and path.name != "__pycache__"}
        assert not missing


@pytest.mark.slow
def test_the_installed_command_prunes_and_nothing_else_is_installed(installed, tmp_path):
    (package,) = installed.rglob("kprune/__main__.py")
    packages = package.parents[1]
    names = {path.name for path in packages.iterdir()}
    assert names == {"kprune", f"kprune-{kprune.__version__}.dist-info"} and not (installed / "share").exists()
    environment = os.environ | {"PYTHONPATH": str(packages)}

    def command(*arguments):
        program = [installed / "bin" / "kprune", *arguments]
        return subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert command("--version").stdout == f"kprune {kprune.__version__}\n"
    listing = command()
    assert listing.returncode == 0 and "\n  prune " in listing.stdout and not listing.stderr
    build(residual).save(tmp_path / "model.keras")
    pruned = command("prune", "model.keras", "--target_flops=0.4", "--criterion=l1", "--output=small")
    assert pruned.returncode == 0 and not pruned.stderr, pruned.stderr
    assert "Written to small" in pruned.stdout.splitlines()[-1]
    plan = kprune.Plan.load(tmp_path / "small" / "plan.json")
    assert keras.models.load_model(tmp_path / "small" / "model.keras").count_params() == plan.params[1]
    missing = command("benchmark", "missing.tflite")
    assert missing.returncode == 2 and "There is no file missing.tflite" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1
