"""Keeps the picture of the code true: imports go one way, modules and functions stay small, names of machines stay out.

A limit may be raised here, in the open, where the code reads better for it. Each test lists all that break its rule.
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

# The rooms: a module may import from rooms to its left, and from its own.
ORDER = "utils compat rules graph cost criteria selection surgery deploy pruning report cli".split()
# The same within a room; * stands for all that is not named.
INSIDE = {
    "kprune.compat": "* keras2".split(),
    "kprune.criteria": "statistics base data_criterion *".split(),
    "kprune.deploy": "runtimes export timing".split(),
    "kprune.pruning": ["record", "run_folder", "pipeline", "*"]
    + "target_search trial_files accuracy_search latency_search callbacks".split(),
    "kprune.report": "measurement plots *".split(),
    "kprune.cli": "common * main".split(),
}
# Only these may import a backend or Keras' private parts.
BACKEND_ROOMS = {"compat", "deploy"}
BACKENDS = re.compile(r"(tensorflow|tf_keras|tensorflow_model_optimization|jax|jaxlib|torch)(\.|$)|keras\.src(\.|$)")

MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_ARGUMENTS = 7
# Public functions whose options are the interface: {module.function: arguments, self not counted}.
ARGUMENTS = {
    "kprune.pruning.one_shot.plan_pruning": 10,
    "kprune.pruning.one_shot.prune_model": 12,
    "kprune.pruning.callbacks.gradual.GradualPruning.__init__": 13,
    "kprune.pruning.callbacks.similarity.SimilarityPruning.__init__": 12,
    "kprune.pruning.rounds.prune_iteratively": 15,
    "kprune.pruning.target_search.find_target": 13,
    "kprune.pruning.accuracy_search.prune_within_accuracy": 11,
    "kprune.pruning.latency_search.prune_to_latency": 15,
    "kprune.deploy.export.tflite.export_tflite": 10,
}

# Character classes keep these patterns from matching this file.
FOREIGN_TEXT = re.compile(
    r"(?<![\w.])/(?:wor[k]|hom[e]|roo[t]|User[s])/|py[p]i\.org|python[h]osted|anacond[a]\.(?:org|com)|npm[j]s|/op[t]/"
)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def parse(module):
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def room(module):
    """`graph` for `kprune.graph.tracer`; nothing for `kprune` itself and the modules at its door."""
    name = module.split(".")[1:2]
    return name[0] if name and name[0] in ORDER else ""


def is_package(module):
    return MODULES[module].name == "__init__.py"


def imported(module, nodes):
    """The modules that these import statements name; `from kprune import x` names `kprune.x` where that is a module."""
    package = module if is_package(module) else module.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in MODULES or BACKENDS.match(name) else base


@functools.cache
def used_by(module):
    """The modules of kprune that a module imports, those inside functions included."""
    return sorted({name for name in imported(module, ast.walk(parse(module))) if name in MODULES} - {module})


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


def every_function():
    for module in MODULES:
        yield from functions(parse(module), module)


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


def place_inside(package, module):
    """Where a module, or the package that it lies in, stands in the order of its room."""
    child = module.removeprefix(f"{package}.").split(".")[0]
    return INSIDE[package].index(child if child in INSIDE[package] else "*")


def refuse(found):
    """Fails with a line for each thing that was found."""
    lines = [f"{name}: {value}" for name, value in found.items()] if isinstance(found, dict) else list(found)
    assert not lines, "\n".join(["", *lines])


def test_every_module_lies_in_a_room():
    at_the_door = {"kprune", "kprune.__main__"}
    refuse([module for module in MODULES if not room(module) and module not in at_the_door])
    refuse([name for name in ORDER if f"kprune.{name}" not in MODULES])


def test_rooms_import_from_rooms_to_their_left():
    refuse(
        f"{module} imports {used}"
        for module in MODULES
        if room(module)
        for used in used_by(module)
        if not room(used) or ORDER.index(room(used)) > ORDER.index(room(module))
    )


def test_within_a_room_imports_go_one_way():
    wrong = []
    for package in INSIDE:
        inside = {name for name in MODULES if name.startswith(f"{package}.")}
        wrong += [
            f"{module} imports {used}"
            for module in sorted(inside)
            for used in inside.intersection(used_by(module))
            if place_inside(package, used) > place_inside(package, module)
        ]
    refuse(wrong)


def test_modules_import_no_face_above_them():
    """Else what a face imports would import the face."""
    refuse(
        f"{module} imports {used}"
        for module in MODULES
        for used in used_by(module)
        if is_package(used) and module.startswith(f"{used}.")
    )


def test_no_import_leads_back():
    done, circles = set(), []

    def visit(module, way):
        if module in way:
            circles.append(" -> ".join([*way[way.index(module) :], module]))
        elif module not in done:
            for used in used_by(module):
                visit(used, [*way, module])
            done.add(module)

    for module in MODULES:
        visit(module, [])
    refuse(circles)


def test_backends_and_private_keras_stay_in_their_place():
    refuse(
        f"{module} imports {name}"
        for module in MODULES
        if room(module) not in BACKEND_ROOMS
        for name in imported(module, ast.walk(parse(module)))
        if BACKENDS.match(name)
    )


def test_no_module_imports_a_backend_when_it_is_imported():
    refuse(
        f"{module} imports {name}"
        for module in MODULES
        for name in imported(module, statements_at_import(parse(module)))
        if BACKENDS.match(name) and not name.startswith("keras.src")
    )


def test_what_a_layer_is_stands_in_its_rule():
    """Only rules, and what writes layers down in another Keras, ask for the type of a layer; all else asks its rule."""
    asked = re.compile(r"(isinstance\(|issubclass\(|type\(\w+\) (is|in|==) ).*\blayers\.(?!Layer\b)[A-Z]")
    translation = "kprune.deploy.export.quantization_aware"
    others = (m for m in MODULES if room(m) not in ("rules", "compat") and not m.startswith(translation))
    rooms = [MODULES[module] for module in others]
    lines = ((path, n, line) for path in rooms for n, line in enumerate(path.read_text().splitlines(), 1))
    refuse(f"{path.relative_to(ROOT)}:{n}: {line.strip()}" for path, n, line in lines if asked.search(line))


def test_modules_are_short():
    """One with more lines wants to be two."""
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    refuse({module: count for module, count in lines.items() if count > MAX_MODULE_LINES})


def test_functions_are_short():
    lines = {name: code_lines(node) for name, node in every_function()}
    refuse({name: count for name, count in lines.items() if count > MAX_FUNCTION_LINES})


def test_functions_take_few_arguments():
    counts = {name: count_arguments(node) for name, node in every_function()}
    refuse({name: count for name, count in counts.items() if count > ARGUMENTS.get(name, MAX_ARGUMENTS)})


def test_every_allowance_is_needed():
    counts = {name: count_arguments(node) for name, node in every_function()}
    assert {name: counts.get(name) for name in ARGUMENTS} == ARGUMENTS


def test_the_core_is_imported_without_tensorflow_and_without_what_comes_after_pruning():
    code = (
        "import sys, kprune\n"
        "late = [n for n in sys.modules if n.startswith(('kprune.deploy', 'kprune.report')) or n == 'tensorflow']\n"
        "sys.exit(str(late) if late else 0)\n"
    )
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
