"""Pictures of what pruning looks at, chooses and costs. They need matplotlib (`pip install kprune[plots]`)."""

from kprune.report.plots.distances import layer_distances, plot_distances
from kprune.report.plots.filters import find_twins, plot_filters
from kprune.report.plots.overlap import chance_overlap, plan_overlap, plot_overlap
from kprune.report.plots.rates import layer_rates, plot_rates
from kprune.report.plots.rounds import history_of_plan, plot_rounds
from kprune.report.plots.run import plot_layers, plot_run
from kprune.report.plots.tradeoff import plot_tradeoff, tradeoff_points

__all__ = [
    "chance_overlap",
    "find_twins",
    "history_of_plan",
    "layer_distances",
    "layer_rates",
    "plan_overlap",
    "plot_distances",
    "plot_filters",
    "plot_layers",
    "plot_overlap",
    "plot_rates",
    "plot_rounds",
    "plot_run",
    "plot_tradeoff",
    "tradeoff_points",
]
