"""Accuracy against the FLOPs removed, for several methods and seeds."""

from dataclasses import dataclass

import numpy as np

from kprune.report.plots import style
from kprune.utils.errors import OptionError

SAME = 0.02  # runs of one method whose removed shares differ by less are one point, where no target tells


@dataclass(frozen=True)
class Point:
    """Several runs of one method at one budget.

    Attributes:
      removed: mean share of the FLOPs removed, 0..1.
      accuracy: mean, 0..1.
      spread: sample standard deviation of the accuracy; 0 for a single run.
      runs: how many.
    """

    removed: float
    accuracy: float
    spread: float
    runs: int


def tradeoff_points(
    records, method: str = "method", removed: str = "pruned_flops", accuracy: str = "accuracy", target: str = "target"
) -> dict[str, list[Point]]:
    """Runs gathered into points.

    Args:
      records: dicts, one per run, such as the lines of a JSON-lines file. Those without an accuracy (a run that is not
        done) are left out.
      method, removed, accuracy: the names of what tells methods apart, of the removed share of the FLOPs (0..1), and
        of the accuracy (0..1).
      target: the name of the budget; runs of one method and budget are one point. Where records have none, those
        whose removed shares differ by less than 0.02 are.

    Returns:
      Per method, in order of appearance, its points by rising share.

    Raises:
      OptionError: no record has these names, or a value is no share.
    """
    found: dict[str, dict] = {}
    for record in records:
        if record.get(accuracy) is None:
            continue
        values = check_record(record, method, removed, accuracy)
        budget = record.get(target)
        runs = found.setdefault(str(record[method]), {})
        if budget is None:
            budget = next((key for key in runs if abs(np.mean(runs[key], axis=0)[0] - values[0]) < SAME), values[0])
        runs.setdefault(budget, []).append(values)
    if not found:
        raise OptionError(
            f"No record has a '{accuracy}'.", f"Records with {method}, {removed}, {accuracy}.", "Name their keys."
        )
    return {name: sorted(map(point, runs.values()), key=lambda p: p.removed) for name, runs in found.items()}


def check_record(record: dict, method: str, removed: str, accuracy: str) -> tuple[float, float]:
    """The removed share and the accuracy of one record."""
    values = record.get(removed), record[accuracy]
    if method not in record or not all(isinstance(v, (int, float)) and 0 <= v <= 1 for v in values):
        raise OptionError(
            f"A record has {method}={record.get(method)!r}, {removed}={values[0]!r}, {accuracy}={values[1]!r}.",
            "A method, and two shares between 0 and 1.",
            "Name the keys of the records.",
        )
    return values


def point(runs: list[tuple[float, float]]) -> Point:
    """The mean and the spread of some runs."""
    removed, accuracy = np.array(runs, dtype=float).T
    spread = float(accuracy.std(ddof=1)) if len(runs) > 1 else 0.0
    return Point(float(removed.mean()), float(accuracy.mean()), spread, len(runs))


def plot_tradeoff(records, path, *, before: float | None = None, title: str | None = None, **names):
    """Accuracy against the share of the FLOPs removed: a line per method, with the spread over its runs.

    Args:
      records: see `tradeoff_points`.
      path: a picture file; its suffix is the format.
      before: the accuracy of the unpruned network, 0..1, or None.
      title: of the picture.
      **names: `method`, `removed`, `accuracy`, `target`: see `tradeoff_points`.

    Returns:
      The path.

    Raises:
      OptionError: see `tradeoff_points`; or there are more than 14 methods; or matplotlib is missing, or does not
        know the suffix.
      ExportError: the file cannot be written.

    Example:
      >>> records = [json.loads(line) for line in open("runs.jsonl")]
      >>> kprune.plots.plot_tradeoff(records, "tradeoff.png", before=0.884)
    """
    points = tradeoff_points(records, **names)
    if len(points) > 2 * len(style.PALETTE):
        raise OptionError(
            f"There are {len(points)} methods.", f"At most {2 * len(style.PALETTE)} lines.", "Draw several pictures."
        )
    columns = min(3, len(points))
    figure = style.new_figure(7, 4.2 + 0.2 * -(-len(points) // columns))
    axes = figure.subplots()
    draw_tradeoff(axes, points, before)
    if title:
        axes.set_title(title, fontsize="medium")
    style.legend_below(figure, axes.get_legend_handles_labels()[0], columns)
    return style.save_figure(figure, path)


def draw_tradeoff(axes, points: dict[str, list[Point]], before: float | None = None):
    """One line with error bars per method, in percent."""
    colors = [style.PALETTE[place % len(style.PALETTE)] for place in range(len(points))]
    for place, ((name, line), color) in enumerate(zip(points.items(), colors, strict=True)):
        x, y, spread = 100 * np.array([(p.removed, p.accuracy, p.spread) for p in line]).T
        axes.errorbar(
            x,
            y,
            yerr=spread if spread.any() else None,
            color=color,
            marker=style.MARKERS[place % len(style.MARKERS)],
            markersize=5,
            linestyle="-" if place < len(style.PALETTE) else "--",
            capsize=3,
            label=f"{name} ({runs_in_words(line)})",
        )
    if before is not None:
        axes.axhline(100 * before, color="0.4", linestyle=":", label=f"before: {before:.2%}")
    axes.set_xlabel("FLOPs (multiply-accumulates) removed (%)")
    repeated = any(p.runs > 1 for line in points.values() for p in line)
    axes.set_ylabel("accuracy (%), mean ± standard deviation" if repeated else "accuracy (%)")
    style.plain(axes, "both")


def runs_in_words(line: list[Point]) -> str:
    """How many runs stand behind each point of a line."""
    low, high = min(p.runs for p in line), max(p.runs for p in line)
    if low < high:
        return f"{low}-{high} runs"
    return "1 run" if low == 1 else f"{low} runs"
