"""Prints the rooms of kprune and what each imports of the others, read from the code, and draws them.

python tools/draw_rooms.py
python tools/draw_rooms.py --output=docs/images/rooms.png
"""

import ast
import collections
import pathlib

from absl import app, flags

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "kprune"
OUTPUT = flags.DEFINE_string("output", None, "A picture to write.")


def find_rooms():
    """The names of the packages in kprune/, and the Python files of each."""
    found = {path.parent.name: sorted(path.parent.rglob("*.py")) for path in sorted(PACKAGE.glob("*/__init__.py"))}
    return {room: files for room, files in found.items() if files}


def imported_names(tree):
    """Every `kprune.x.y` that a module imports, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def count_arrows(rooms):
    """How many imports go from one room to another: `{(from, to): imports}`."""
    arrows = collections.Counter()
    for room, files in rooms.items():
        for path in files:
            for name in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
                parts = [*name.split("."), ""]
                if parts[0] == "kprune" and parts[1] in rooms and parts[1] != room:
                    arrows[room, parts[1]] += 1
    return arrows


def reachable(rooms, arrows):
    """For each room all that it comes to by following arrows."""
    seen = {room: {used for start, used in arrows if start == room} for room in rooms}
    for middle in rooms:
        for room in rooms:
            if middle in seen[room]:
                seen[room] |= seen[middle]
    return seen


def find_circles(seen):
    """Rooms that come back to themselves, each circle once."""
    circles = {frozenset(b for b in seen[a] if a in seen[b]) for a in seen if a in seen[a]}
    return sorted(map(sorted, circles))


def in_order(seen):
    """The rooms, lowest first: each after all that it uses."""
    return sorted(seen, key=lambda room: (len(seen[room]), room))


def without_shortcuts(arrows, seen):
    """The arrows that do not follow from a longer way."""
    return [(a, b) for a, b in arrows if not any(b in seen[m] for m in seen[a] - {a, b} if a not in seen[m])]


def heights(order, arrows):
    """On which floor a room stands: one above the highest that it uses."""
    floors = {}
    for room in order:
        floors[room] = max((floors[b] + 1 for a, b in arrows if a == room and b in floors), default=0)
    return floors


def draw(order, arrows, seen, lines, path):
    """Draws the rooms on their floors, and a table of all imports beside them."""
    from kprune.report.plots.style import new_figure, save_figure

    figure = new_figure(10.0, 5.8)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.45])
    draw_floors(left, order, without_shortcuts(arrows, seen), heights(order, arrows), lines)
    draw_table(right, order, arrows)
    save_figure(figure, path)


def draw_floors(axes, order, arrows, floors, lines):
    from kprune.report.plots.style import KEPT

    on_floor = collections.defaultdict(list)
    for room in order:
        on_floor[floors[room]].append(room)
    spots = {
        room: (index - (len(together) - 1) / 2, floor)
        for floor, together in on_floor.items()
        for index, room in enumerate(together)
    }
    for start, end in arrows:
        (x, y), (to_x, to_y) = spots[start], spots[end]
        style = {"arrowstyle": "-|>", "color": "#9AA1AB", "linewidth": 1.2, "mutation_scale": 11}
        axes.annotate("", (to_x, to_y + 0.33), (x, y - 0.3), arrowprops={**style, "shrinkA": 0, "shrinkB": 0})
    for room, (x, y) in spots.items():
        box = {
            "boxstyle": "round,pad=0.35,rounding_size=0.25",
            "facecolor": "white",
            "edgecolor": KEPT,
            "linewidth": 1.2,
        }
        text = f"{room}\n{lines[room]:,} lines"
        axes.text(x, y, text, ha="center", va="center", fontsize=8.5, bbox=box, linespacing=1.25)
    axes.set_xlim(-1.2, 1.2)
    axes.set_ylim(-0.6, max(floors.values()) + 0.6)
    axes.axis("off")
    axes.set_title("Each room uses those below it\n(arrows that follow from others left out)", fontsize=10)


def draw_table(axes, order, arrows):
    """Rows import from columns: all below the diagonal where there is no circle."""
    import numpy as np

    from kprune.report.plots.style import KEPT, SMALL

    counts = np.array([[arrows[row, column] for column in order] for row in order])
    shades = np.ma.masked_equal(np.sqrt(counts), 0)
    axes.imshow(shades, cmap="Blues", vmin=-1, vmax=1.6 * np.sqrt(counts.max()), aspect="auto")
    for row, column in zip(*np.nonzero(counts), strict=True):
        axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=SMALL)
    for index in range(len(order)):
        axes.text(index, index, "\u25a0", ha="center", va="center", color=KEPT, fontsize=SMALL)
    axes.set_xticks(range(len(order)), order, rotation=45, ha="left", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(order)), order, fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_color("#D5D9DE")
    axes.set_xlabel("How many names a room (row) imports from another (column)", fontsize=9)


def main(_):
    rooms = find_rooms()
    arrows = count_arrows(rooms)
    seen = reachable(rooms, arrows)
    order, circles = in_order(seen), find_circles(seen)
    lines = {room: sum(len(f.read_text("utf-8").splitlines()) for f in files) for room, files in rooms.items()}
    for room in order:
        used = [f"{other} ({arrows[room, other]})" for other in order if arrows[room, other]]
        print(f"{room:<10} {len(rooms[room]):>3} files {lines[room]:>5} lines   uses {', '.join(used) or '-'}")
    print(f"{len(order)} rooms, {len(arrows)} arrows, {len(circles)} circles: {' < '.join(order)}")
    for circle in circles:
        print(f"circle: {', '.join(circle)}")
    if OUTPUT.value:
        draw(order, arrows, seen, lines, OUTPUT.value)


if __name__ == "__main__":
    app.run(main)
