"""The pictures of a report, as data inside its page."""

import base64
import importlib.util
import pathlib
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from kprune.report.plots import history_of_plan, plot_layers, plot_rounds, plot_run
from kprune.selection import Plan

NEEDED = "matplotlib"


class Picture(NamedTuple):
    """A picture for the page: what it shows, and its SVG as a data URI."""

    title: str
    source: str


def can_draw() -> bool:
    """Whether pictures can be drawn here."""
    return importlib.util.find_spec(NEEDED) is not None


def draw_pictures(plan: Plan | None, history: dict | None) -> list[Picture]:
    """All pictures that the plan and the history give: layers, then the course over epochs or rounds."""
    history, found = history or {}, []
    accuracies = sorted((name for name in history if "acc" in name), key=lambda name: not name.startswith("val_"))
    epochs = accuracies and "pruned_flops" in history and "rates" not in history
    if plan is not None and epochs:
        draw = lambda path: plot_run(plan, history, path, accuracies[0])  # noqa: E731
        found.append(drawn("Channels per layer, and the course of the training", draw))
    elif plan is not None:
        found.append(drawn("Channels per layer", lambda path: plot_layers(plan, path)))
    rounds = rounds_of(plan, history)
    if rounds is not None:
        found.append(drawn("What the rounds removed", lambda path: plot_rounds(rounds, path, accuracies)))
    return found


def rounds_of(plan: Plan | None, history: dict) -> dict | None:
    """The rounds of a pruning record, or else of the plan, where they tell how much was removed."""
    if history.get("rates"):
        return history
    told = plan is not None and plan.target and plan.rounds and "removed_share" in plan.rounds[0]
    return history_of_plan(plan) if told and len(plan.rounds) > 1 else None


def drawn(title: str, draw: Callable[[pathlib.Path], None]) -> Picture:
    """A picture from a function that writes an SVG file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "picture.svg"
        draw(path)
        return Picture(title, data_uri("image/svg+xml", path.read_bytes()))


def data_uri(kind: str, content: bytes) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
