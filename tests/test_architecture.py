"""Keeps the picture of the code true: imports go down, modules and functions stay small, names of machines stay out.

A limit may be raised here, in the open, where the code reads better for it.
"""

import ast
import functools
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kprune"

# A module may import modules of lower levels and of its own family (a family is one line: a module or a package).
LEVELS = {
    "kprune.errors": -2,
    "kprune.files": 0,
    "kprune.options": -1,
    "kprune.progress": 0,
    "kprune.registry": 0,
    "kprune.schedules": 0,
    "kprune._keras": 0,
    "kprune._autodiff": 0,
    "kprune._names": 0,
    "kprune._opening": 0,
    "kprune._remaking": 0,
    "kprune._optimizers": 0,
    "kprune.channels": 1,
    "kprune.data": 1,
    "kprune.linear": 1,
    "kprune.normal_equations": 1,
    "kprune.rules": 2,
    "kprune.graph": 3,
    "kprune.execution": 4,
    "kprune.structure": 4,
    "kprune.criteria": 5,
    "kprune.cost": 4,
    "kprune.kinds": 4,
    "kprune.input_sizes": 4,
    "kprune.makers": 4,
    "kprune.plan_checks": 5,
    "kprune.grid": 5,
    "kprune.latency": 6,
    "kprune.masking": 4,
    "kprune.zeros": 4,
    "kprune.selection": 6,
    "kprune.plan": 6,
    "kprune.surgery": 6,
    "kprune.calibration": 7,
    "kprune.refit": 6,
    "kprune.reconstruction": 7,
    "kprune.record": 7,
    "kprune.resume": 7,
    "kprune.targets": 7,
    "kprune.api": 8,
    "kprune.callbacks": 9,
    "kprune.iterate": 9,
    "kprune.search": 9,
    "kprune.rates": 9,
    "kprune.space": 9,
    "kprune.report": 11,
    "kprune.plots": 10,
    "kprune.distributed": 10,
    "kprune.export": 10,
    "kprune.quantization": 11,
    "kprune.timings": 10,
    "kprune.stopwatch": 11,
    "kprune.profiling": 12,
    "kprune.latency_search": 12,
    "kprune.trial_files": 11,
    "kprune.benchmark": 11,
    "kprune.compat": 10,
    "kprune": 13,
    "kprune.__main__": 14,
}
# Imports within a level that read better than another level would: {family: families beside it that it may use}.
SIDEWAYS = {"kprune._opening": {"kprune._keras"}, "kprune.cost": {"kprune.input_sizes"}}
# Only these may import a backend or Keras' private parts.
BACKEND_FAMILIES = {
    "kprune._keras",
    "kprune._remaking",
    "kprune._autodiff",
    "kprune.export",
    "kprune.quantization",
    "kprune.benchmark",
    "kprune.compat",
    "kprune.profiling",
}
BACKENDS = re.compile(r"(tensorflow|tf_keras|tensorflow_model_optimization|jax|jaxlib|torch)(\.|$)|keras\.src(\.|$)")

MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_ARGUMENTS = 7
# Public functions whose options are the interface: {module.function: arguments, self not counted}.
ARGUMENTS = {
    "kprune.api.plan_pruning": 10,
    "kprune.api.prune_model": 12,
    "kprune.callbacks.gradual.GradualPruning.__init__": 13,
    "kprune.callbacks.similarity.SimilarityPruning.__init__": 12,
    "kprune.iterate.prune_iteratively": 15,
    "kprune.search.find_target": 13,
    "kprune.latency_search.prune_to_latency": 15,
    "kprune.export.tflite.export_tflite": 9,
}

# Character classes keep these patterns from matching this file.
FOREIGN_TEXT = re.compile(
    r"(?<![\w.])/(?:wor[k]|hom[e]|roo[t]|User[s])/|py[p]i\.org|python[h]osted|anacond[a]\.(?:org|com)|npm[j]s|/op[t]/"
)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
every_module = pytest.mark.parametrize("module", MODULES)


@functools.cache
def parse(module):
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def family(module):
    """`kprune.rules.shape` and `kprune.rules` are of the family `kprune.rules`."""
    return ".".join(module.split(".")[:2])


def imported(module, nodes):
    """The modules that these import statements name; `from kprune import x` names `kprune.x` where that is a module."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in MODULES or BACKENDS.match(name) else base


def statements_at_import(node):
    """The nodes that run when a module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from statements_at_import(child)


def functions(node, prefix):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}.{child.name}", child
        name = getattr(child, "name", None)
        yield from functions(child, f"{prefix}.{name}" if isinstance(name, str) else prefix)


def code_lines(function):
    """Lines of a function without its decorators and docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return function.end_lineno - function.lineno + 1 - docstring


def count_arguments(function):
    arguments = function.args
    named = [a.arg for a in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
    return len(named) - (named[:1] in (["self"], ["cls"]))


@every_module
def test_every_module_has_a_level(module):
    assert family(module) in LEVELS, f"Give {family(module)} a level in LEVELS."


@every_module
def test_imports_only_go_down(module):
    own = family(module)
    used = {family(name) for name in imported(module, ast.walk(parse(module))) if name.split(".")[0] == "kprune"}
    allowed = {name for name, level in LEVELS.items() if level < LEVELS[own]} | {own} | SIDEWAYS.get(own, set())
    assert used <= allowed, f"{module} imports {sorted(used - allowed)}, which are not below it."


@every_module
def test_backends_and_private_keras_stay_in_their_place(module):
    if family(module) not in BACKEND_FAMILIES:
        assert not [name for name in imported(module, ast.walk(parse(module))) if BACKENDS.match(name)]


@every_module
def test_no_module_imports_a_backend_when_it_is_imported(module):
    at_import = imported(module, statements_at_import(parse(module)))
    assert not [name for name in at_import if BACKENDS.match(name) and not name.startswith("keras.src")]


@every_module
def test_modules_are_short(module):
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_MODULE_LINES, f"{module} has {lines} lines; it wants to be two."


@every_module
def test_functions_are_short(module):
    long = {name: code_lines(node) for name, node in functions(parse(module), module)}
    assert not {name: lines for name, lines in long.items() if lines > MAX_FUNCTION_LINES}


@every_module
def test_functions_take_few_arguments(module):
    counts = {name: count_arguments(node) for name, node in functions(parse(module), module)}
    assert not {name: n for name, n in counts.items() if n > ARGUMENTS.get(name, MAX_ARGUMENTS)}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_allowance_is_needed(name):
    matches = [
        count_arguments(node)
        for module in MODULES
        if name.startswith(f"{module}.")
        for found, node in functions(parse(module), module)
        if found == name
    ]
    assert matches == [ARGUMENTS[name]], f"Correct ARGUMENTS for {name}."


def test_the_core_is_imported_without_tensorflow():
    code = "import sys, kprune; sys.exit('tensorflow' in sys.modules)"
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def test_the_project_names_no_machine_and_no_registry():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("needs a git checkout, to know which files are the project's")
    found = []
    for name in filter(None, listing.stdout.decode().split("\0")):
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # an image or an archive; or a file deleted since it was added
        found += [f"{name}: {match.group()}" for match in FOREIGN_TEXT.finditer(text)]
    assert not found
