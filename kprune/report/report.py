"""The report of a pruning run: what it holds, and its forms."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from kprune.deploy.export.check import Export
from kprune.deploy.timing import Benchmark
from kprune.report.measurement import Measurement, table_of
from kprune.report.page import render
from kprune.selection import Plan
from kprune.utils.errors import OptionError, PlanError
from kprune.utils.files import write_by_rename
from kprune.utils.machine import machine_facts

SCHEMA = 1


@dataclass(frozen=True)
class Report:
    """All that is worth telling of a pruning run, as one page, as Markdown or as JSON.

    Attributes:
      rows: measurements. The first is the network before, the second after; any more are further files of the two.
      plan: what was removed, and why what is left had to stay.
      history: lists by name, one entry per epoch (as `History.history`, with `pruned_flops`) or per round (as
        `PruningRecord.history`).
      exports: files that were written, and how close they are to the model.
      timings: models that were timed together, or several of such, on other threads or devices.
      facts: how the run was made: seed, settings, versions; whatever JSON can hold. `run_facts` collects them.
      title: the heading.

    Raises:
      OptionError: no measurement, something of another kind, or what JSON cannot hold.

    Example:
      >>> report = kprune.Report([before, after], plan, model.history.history, facts=kprune.report.run_facts(seed=0))
      >>> print(report.table())
      >>> report.save("results/report.html")
    """

    rows: Sequence[Measurement]
    plan: Plan | None = field(default=None, repr=False)
    history: dict | None = field(default=None, repr=False)
    exports: Sequence[Export] = ()
    timings: Benchmark | Sequence[Benchmark] | None = field(default=None, repr=False)
    facts: dict = field(default_factory=dict, repr=False)
    title: str = "Pruning report"

    def __post_init__(self):
        """Refuses what no report can show.

        Raises:
          OptionError: no measurement, or something of another kind.
        """
        if not self.rows:
            raise OptionError("rows is empty.", "At least one kprune.Measurement.", "Pass [before, after].")
        check_all("rows", self.rows, Measurement)
        check_all("plan", () if self.plan is None else (self.plan,), Plan)
        check_all("exports", self.exports, Export)
        alone = self.timings is None or isinstance(self.timings, Benchmark)
        check_all("timings", () if alone else self.timings, Benchmark)
        check_all("history and facts", (self.history or {}, self.facts), dict)
        check_all("title", (self.title,), str)
        self.to_json()

    @property
    def benchmarks(self) -> tuple[Benchmark, ...]:
        """The timings, as many as there are."""
        if self.timings is None:
            return ()
        return (self.timings,) if isinstance(self.timings, Benchmark) else tuple(self.timings)

    def table(self) -> str:
        """The measurements as a Markdown table with aligned columns; columns of which nothing is known are left out."""
        cells = table_of(self.rows)
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["| " + " | ".join(f"{text:<{w}}" for text, w in zip(row, widths, strict=True)) + " |" for row in cells]
        lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
        return "\n".join(lines)

    def markdown(self) -> str:
        """The table, the plan layer by layer, exports, timings, and how the run was made."""
        parts = [f"# {self.title}", self.table()]
        if self.plan is not None:
            parts.append(f"```\n{self.plan.summary()}\n```")
        if self.exports:
            parts.append("```\n" + "\n".join(map(str, self.exports)) + "\n```")
        parts += [f"```\n{benchmark}\n```" for benchmark in self.benchmarks]
        if self.facts:
            parts.append("\n".join(f"- {name}: {json.dumps(value)}" for name, value in self.facts.items()))
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """One page that needs no other file: no script, no network; light or dark as the reader's system is.

        Pictures need matplotlib; without it the page says so and has none.
        """
        return render(self)

    def to_json(self) -> str:
        """Everything, for `load`; what is not a number is null.

        Raises:
          OptionError: the history or the facts hold what JSON cannot.
        """
        data = {
            "schema": SCHEMA,
            "title": self.title,
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "history": self.history,
            "exports": [export.to_json() for export in self.exports],
            "timings": [benchmark.to_json() for benchmark in self.benchmarks],
            "facts": self.facts,
            "plan": None if self.plan is None else json.loads(self.plan.to_json()),
        }
        try:
            return json.dumps(without_nan(data), indent=1, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"The report holds what JSON cannot: {error}.", "Numbers, texts, lists and dicts.", "Convert it first."
            ) from error

    def save(self, path) -> pathlib.Path:
        """Writes the form that the suffix names: .html, .md or .json.

        Returns:
          The path.

        Raises:
          OptionError: another suffix, or see `to_json`.
          ExportError: the file cannot be written.
        """
        forms = {".html": self.html, ".md": self.markdown, ".json": self.to_json}
        form = forms.get(pathlib.Path(path).suffix.lower())
        if form is None:
            raise OptionError(f"The report shall be {path}.", f"A name that ends in {', '.join(forms)}.", "Rename it.")
        text = form()
        return write_by_rename(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, path) -> "Report":
        """Reads what `save` wrote as JSON.

        Raises:
          OptionError: the file is missing, or is no report.
        """
        try:
            data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            if data["schema"] != SCHEMA:
                raise ValueError(f"schema {data['schema']!r} instead of {SCHEMA}")
            return cls(
                tuple(Measurement(**row) for row in data["rows"]),
                None if data["plan"] is None else Plan.from_dict(data["plan"]),
                data["history"],
                tuple(map(Export.from_json, data["exports"])),
                read_timings(data["timings"]),
                dict(data["facts"]),
                str(data["title"]),
            )
        except (OSError, ValueError, KeyError, TypeError, PlanError) as error:
            raise OptionError(
                f"{path} is no report: {error!r}.", "A .json file written by Report.save.", "Check the path."
            ) from error


def check_all(option: str, given, kind: type):
    """Refuses a list of something else.

    Raises:
      OptionError: it is no list of objects of that kind.
    """
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    if not listed or not all(isinstance(one, kind) for one in given):
        shown = next((one for one in given if not isinstance(one, kind)), None) if listed else given
        raise OptionError(f"{option} holds {shown!r}.", f"{kind.__name__} objects.", "See help(kprune.Report).")


def read_timings(data: list | dict | None):
    """The timings of a report as `Report` takes them; a single one was once written by itself."""
    alone = [data] if isinstance(data, dict) else data or []
    found = tuple(map(Benchmark.from_json, alone))
    return found[0] if len(found) == 1 else found or None


def run_facts(**more) -> dict:
    """What a run depends on beside its data: `more` first (seed, settings), then versions and machine.

    Example:
      >>> kprune.report.run_facts(seed=0, epochs=30)
      {'seed': 0, 'epochs': 30, 'versions': {...}, 'system': ..., 'cores': 2, 'python': '3.11.9', 'processor': ...}
    """
    machine = machine_facts()
    return {**more, "versions": machine["versions"]} | {
        name: machine[name] for name in ("system", "python", "processor", "cores") if name in machine
    }


def without_nan(data):
    """The same, with None for numbers that are none, which JSON has no word for."""
    if isinstance(data, dict):
        return {name: without_nan(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
