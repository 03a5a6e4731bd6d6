"""The documentation is whole: links lead somewhere, public names have entries, the notebook runs, the pages build."""

import ast
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import kprune

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("docs/**/*.md")))]
TEXTS += [str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("examples/**/*.md"))]


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(text):
    """What the headings of a page are called in links."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken_links(path):
    """The links of a page to files or headings that are not there; those to the outside are not asked."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(read(path))):
        file, _, anchor = target.partition("#")
        found = (ROOT / path).parent / file if file else ROOT / path
        if not target.startswith("https://"):
            if not found.exists() or (anchor and anchor not in anchors(found.read_text(encoding="utf-8"))):
                yield target


@pytest.mark.parametrize("path", TEXTS)
def test_links_lead_somewhere(path):
    assert not list(broken_links(path))


def test_pages_of_docs_link_to_nothing_outside_of_docs():
    """There the built pages end."""
    outside = []
    for path in ROOT.glob("docs/**/*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", without_code(path.read_text(encoding="utf-8"))):
            inside = "://" in target or (path.parent / target).resolve().is_relative_to(ROOT / "docs")
            outside += [] if inside else [f"{path.name}: {target}"]
    assert not outside


def test_each_public_name_has_an_entry_in_the_api():
    entries = set(re.findall(r"^::: kprune\.(\S+)$", "\n".join(map(read, TEXTS)), re.MULTILINE))
    names = {entry.rpartition(".")[2] for entry in entries}
    assert not sorted(set(kprune.__all__) - {"criteria"} - names)
    assert not sorted(set(kprune.criteria.__all__) - {"Informed", "collect", "get_criterion", "inform"} - names)


def test_no_entry_is_a_module():
    """`kprune.pruning.search_space` is a file as well as the function in it; the builder takes the file."""
    entries = re.findall(r"^::: (\S+)$", "\n".join(map(read, TEXTS)), re.MULTILINE)
    paths = {entry: ROOT / entry.replace(".", "/") for entry in entries}
    assert len(entries) > 50 and not [
        e for e, path in paths.items() if path.is_dir() or path.with_suffix(".py").exists()
    ]


def shell_lines():
    """The commands of kprune in the shell blocks of all pages."""
    for path in TEXTS:
        for block in re.findall(r"```(?:sh|bash)\n(.*?)```", read(path), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            yield from (line.partition(" #")[0] for line in lines if line.startswith("kprune "))


def unknown_flags(line, known):
    """The flags of a command that its help does not name."""
    words = shlex.split(line)
    return [word for word in words[2:] if word.startswith("--") and word.split("=")[0] not in known.get(words[1], ())]


def test_commands_have_the_flags_that_pages_give_them():
    if not (ROOT / "docs/cli.md").exists():
        pytest.skip("docs/cli.md, the help of the commands, is not there")
    sections = re.split(r"^## kprune ", read("docs/cli.md"), flags=re.MULTILINE)[1:]
    known = {text.split()[0]: set(re.findall(r"--[a-z_]+", text.replace("--[no]", "--"))) for text in sections}
    lines = list(shell_lines())
    assert len(lines) >= 10 and not {line: bad for line in lines if (bad := unknown_flags(line, known))}


def notebook():
    return json.loads(read("docs/quickstart.ipynb"))


def cells():
    return ["".join(cell["source"]) for cell in notebook()["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_small_and_its_cells_are_python():
    stored = [output for cell in notebook()["cells"] for output in cell.get("outputs", ())]
    assert len(read("docs/quickstart.ipynb")) < 40_000 and all(one["output_type"] == "stream" for one in stored)
    assert len(cells()) >= 8 and all(map(ast.parse, cells()))


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_notebook_runs(tmp_path):
    """All cells in order, in a process of their own; what it prints at the end is what the page says."""
    pytest.importorskip("sklearn")
    (tmp_path / "cells.py").write_text("\n\n".join(cells()), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "cells.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    accuracies = [float(number) for number in re.findall(r"accuracy(?: of the file)? ([\d.]+)%", done.stdout)]
    assert len(accuracies) == 5 and min(accuracies) > 95 and "times as fast" in done.stdout
    assert re.search(r"FLOPs \(multiply-accumulates\): 6,839,232 -> \S+ \(-5\d\.\d%\)", done.stdout)


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="pip install .[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # else the theme speaks of itself
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, done.stderr
    assert "target_flops" in (tmp_path / "api/pruning/index.html").read_text(encoding="utf-8")
    assert "times as fast" in (tmp_path / "quickstart/index.html").read_text(encoding="utf-8")
