"""Makes the report of a pruning run anew, with the files and timings that have joined its folder since.

  kprune prune model.keras --target_flops=0.5 --output=pruned
  kprune export pruned/model.keras --output=pruned/small.tflite --record=pruned/small.json
  kprune benchmark model.tflite pruned/small.tflite --output=pruned/timings.json
  kprune report pruned

Takes report.json of kprune prune (or of the demo) and every JSON file beside it that an export (--record), a
benchmark (--output) or a pruning record wrote; says which. Writes report.html, report.md and report.json.
"""

import dataclasses
import json
import pathlib

from absl import flags

from kprune.cli import common

POSITIONAL = "folder"
NEEDS = ("folder",)
FLAGS, define = common.own_flags()
define.string("folder", None, "The folder that kprune prune wrote.")
define.string("title", None, "Another heading.")


def read_objects(folder: pathlib.Path) -> dict[str, dict]:
    """The JSON objects of a folder by file name; what is no JSON object is left out."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(data, dict) and path.name != "report.json":
            found[path.name] = data
    return found


def additions(objects: dict[str, dict]) -> tuple[dict, list[str]]:
    """The parts of a report that these files hold, and the names of those that were used."""
    from kprune.deploy.export import Export
    from kprune.deploy.timing import Benchmark

    parts, used, exports, timings = {}, [], [], []
    for name, data in objects.items():
        try:
            if "export" in data:
                exports.append(Export.from_json(data["export"]))
            elif {"machine", "models"} <= data.keys():
                timings.append(Benchmark.from_json(data))
            elif {"schema", "history"} == data.keys():
                if "history" in parts:
                    raise flags.Error(f"{name} is a second history; leave one in the folder")
                parts["history"] = dict(data["history"])
            else:
                continue
        except (KeyError, TypeError, ValueError) as error:
            raise flags.Error(f"{name} is damaged: {error!r}; write it again") from error
        used.append(name)
    several = {"exports": tuple(exports), "timings": tuple(timings)}
    return parts | {kind: found for kind, found in several.items() if found}, used


def main(_) -> None:
    from kprune.report import Report

    folder = pathlib.Path(FLAGS.folder)
    report = Report.load(folder / "report.json")
    parts, used = additions(read_objects(folder))
    title = {} if FLAGS.title is None else {"title": FLAGS.title}
    report = dataclasses.replace(report, **parts, **title)
    for suffix in ("html", "md", "json"):
        report.save(folder / f"report.{suffix}")
    print(report.table())
    print(f"Written to {folder}: report.html, report.md, report.json; from {', '.join(['report.json', *used])}.")
