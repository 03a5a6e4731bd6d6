"""What the rounds of Algorithm 1 did: rates per layer, FLOPs, parameters and metrics (Wu 2023, Fig. 4 C and D)."""

import numpy as np

from kprune.report.plots import style
from kprune.selection import Plan
from kprune.utils.errors import OptionError

COSTS = {
    "pruned_flops": "FLOPs left",
    "pruned_params": "parameters left",
    "pruned_latency": "predicted milliseconds left",
}


def history_of_plan(plan: Plan) -> dict[str, list]:
    """The rounds of a plan as lists by name, for `plot_rounds`.

    Args:
      plan: a plan made by similarity.

    Returns:
      "pruned_flops", "pruned_params" or "pruned_latency", whichever the target was in, and the other things that its
      rounds tell. The last round ends where the plan does: what it took beyond the target was given back.

    Raises:
      OptionError: the plan has no rounds.
    """
    if not plan.rounds or not plan.target:
        raise OptionError(
            "The plan has no record of rounds.", "A plan made by similarity.", "Make it with criterion='similarity'."
        )
    history = {name: [entry.get(name) for entry in plan.rounds] for name in plan.rounds[0]}
    kind = next(iter(plan.target))
    before, after = getattr(plan, kind)
    return {f"pruned_{kind}": [*history.pop("removed_share")[:-1], 1.0 - after / before], **history}


def rates_by_layer(history: dict[str, list]) -> dict[str, list[float]]:
    """The rates of a history turned around: per layer, round by round."""
    rounds = [rates or {} for rates in history.get("rates") or ()]
    layers = dict.fromkeys(layer for rates in rounds for layer in rates)
    return {layer: [rates.get(layer, np.nan) for rates in rounds] for layer in layers}


def plot_rounds(history: dict[str, list], path, metrics=("val_accuracy",)):
    """Rates per layer as a map, and what is left of FLOPs and parameters, over the rounds.

    Args:
      history: lists by name, one entry per round, as a pruning record keeps them: "pruned_flops", "pruned_params"
        (shares removed, 0..1; at least one of the two), "rates" (per round a dict from layer to the share of its
        filters that is gone, 0..1; without it the map is left out), and metrics; None where a round has no value.
      path: a picture file; its suffix is the format.
      metrics: names of further lists of shares, 0..1, to draw where `history` has them.

    Returns:
      The path.

    Raises:
      OptionError: the history has no rounds; or matplotlib is missing, or does not know the suffix.
      ExportError: the file cannot be written.

    Example:
      >>> kprune.plots.plot_rounds(callback.record.history, "rounds.png")
    """
    lines = lines_of(history, metrics)
    rates = rates_by_layer(history)
    parts = [part for part in split_lines(lines) if part]
    height = max(style.heatmap_height(len(rates)) if rates else 0.0, 2.1 * len(parts) + 0.5)
    figure = style.new_figure(10 if rates else 5, height + 1.1)
    right = figure
    if rates:
        left, right = figure.subfigures(1, 2, width_ratios=(3, 2))
        axes = left.subplots()
        style.add_colorbar(left, draw_round_rates(axes, rates), axes, "filters removed (%)", height)
    panels = np.atleast_1d(right.subplots(len(parts), 1, sharex=True))
    draw_lines(panels[0], parts[0])
    for axes, part in zip(panels[1:], parts[1:], strict=True):
        draw_lines(axes, part, first=len(COSTS))
    panels[0].set_ylim(0, 104)
    panels[0].set_title("Left of the network", fontsize="medium")
    panels[-1].set_xlabel("round")
    return style.save_figure(figure, path)


def split_lines(lines: dict) -> tuple[dict, dict]:
    """What is left of the costs, and the metrics, which have a scale of their own."""
    costs = {label: line for label, line in lines.items() if label in COSTS.values()}
    return costs, {label: line for label, line in lines.items() if label not in costs}


def lines_of(history: dict[str, list], metrics) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What is drawn over the rounds: by label, the rounds and percent. Costs begin at round 0 with 100 %."""
    lines = {}
    for name, label in COSTS.items():
        if history.get(name):
            left = 100.0 * (1.0 - np.array([0.0, *history[name]], dtype=float))
            lines[label] = np.arange(len(left)), left
    if not lines:
        raise OptionError(
            f"The history has {sorted(history) or 'no lists'}.",
            f"{' or '.join(COSTS)}, one share per round.",
            "Pass record.history, or kprune.plots.history_of_plan(plan).",
        )
    for name in metrics:
        known = [(place, value) for place, value in enumerate(history.get(name) or (), 1) if value is not None]
        if known:
            places, values = np.array(known, dtype=float).T
            lines[name.replace("_", " ")] = places, 100.0 * values
    return lines


def draw_round_rates(axes, rates: dict[str, list[float]]):
    """The map: a row per layer, a column per round."""
    percent = 100.0 * np.array(list(rates.values()), dtype=float)
    columns = [str(number) for number in range(1, percent.shape[1] + 1)]
    image = style.draw_heatmap(axes, percent, list(rates), columns, style.rounded_up(percent))
    axes.set_xlabel("round")
    axes.set_title("Filters removed per layer", fontsize="medium")
    return image


def draw_lines(axes, lines: dict[str, tuple[np.ndarray, np.ndarray]], first: int = 0):
    """Percent over the rounds, in the colours from the `first` on."""
    for place, (label, (places, percent)) in enumerate(lines.items(), first):
        color, marker = (choice[place % len(choice)] for choice in (style.PALETTE, style.MARKERS))
        axes.plot(places, percent, color=color, marker=marker, markersize=4, label=label)
    axes.set_ylabel("percent")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=style.SMALL + 1)
    style.plain(axes, "y")
