"""Pictures of what pruning looks at, chooses and costs. They need matplotlib (`pip install kprune[examples]`)."""

from kprune.plots.distances import layer_distances, plot_distances
from kprune.plots.filters import find_twins, plot_filters
from kprune.plots.overlap import chance_overlap, plan_overlap, plot_overlap
from kprune.plots.rates import layer_rates, plot_rates
from kprune.plots.rounds import history_of_plan, plot_rounds
from kprune.plots.run import plot_layers, plot_run
from kprune.plots.tradeoff import plot_tradeoff, tradeoff_points

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
