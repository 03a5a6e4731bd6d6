"""A report as one HTML page that needs no other file."""

import html
import json
from collections.abc import Iterable, Sequence
from itertools import chain

from kprune.deploy.timing import Benchmark
from kprune.report.measurement import changes, kibibytes, table_of
from kprune.report.pictures import NEEDED, can_draw, data_uri, draw_pictures
from kprune.selection import Plan

# Pictures are drawn for paper, so they keep a white ground in the dark too.
STYLE = """
:root { color-scheme: light dark;
  --page: #fff; --card: #f3f5f8; --ink: #1a1e24; --quiet: #58616d; --line: #d5dae1; --bar: #e69f0080;
  --link: #0b57d0; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171c; --card: #1e232a; --ink: #e5e8ec; --quiet: #9da6b2; --line: #38404a; --bar: #e69f0070;
  --link: #8ab4f8; } }
body { margin: 0 auto; padding: 1rem; max-width: 66rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--page); }
a { color: var(--link); } h1 { margin: .5rem 0; } h2 { margin: 2rem 0 .5rem; font-size: 1.25rem; }
p, figcaption, dt, .quiet { color: var(--quiet); } p { margin: .3rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: .7rem; margin: 1rem 0; }
.tiles > div { padding: .7rem 1rem; border-radius: .5rem; background: var(--card); }
.tiles b { display: block; font-size: 1.5rem; }
.wide { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { vertical-align: bottom; } thead th { min-width: 5.5rem; white-space: normal; }
.text { text-align: left; } td.reason { min-width: 14rem; text-align: left; white-space: normal; }
td.rate { min-width: 7rem;
  background: linear-gradient(var(--bar), var(--bar)) left center / var(--rate) 70% no-repeat; }
figure { margin: 1rem 0; } img { display: block; max-width: max(100%, 40rem); background: #fff; border-radius: .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { th, td { padding-right: .5rem; } thead th { min-width: 0; }
  .wide table { font-size: .85rem; } td.rate { min-width: 4.5rem; } td.reason { min-width: 10rem; } }
""".strip()


def render(report) -> str:
    """The page of a `Report`."""
    body = [f"<h1>{escape(report.title)}</h1>", *summary(report), *before_and_after(report)]
    body += [*exports(report.exports), *timings(report.benchmarks), *pictures(report)]
    body += [] if report.plan is None else [*layers(report.plan), *plan_facts(report.plan)]
    body += facts(report.facts)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(report.title)}</title>",
            f"<style>\n{STYLE}\n</style></head>",
            "<body>",
            *body,
            "</body></html>\n",
        ]
    )


def summary(report) -> list[str]:
    """What changed from the first row to the second, as tiles."""
    if len(report.rows) < 2:
        return []
    tiles = changes(*report.rows[:2])
    names = f"<p>{escape(report.rows[0].name)} → {escape(report.rows[1].name)}</p>"
    cells = [f"<div>{escape(t.name)}<b>{escape(t.change)}</b>{quiet(t.values)}</div>" for t in tiles]
    return [names, '<div class="tiles">', *cells, "</div>"] if tiles else []


def before_and_after(report) -> list[str]:
    """All measurements."""
    if not report.rows:
        return []
    head, *rows = table_of(report.rows)
    return [
        "<h2>Before and after</h2>",
        *table(head, rows),
        "<p>FLOPs are multiply-accumulates of conv and dense layers, batch 1. Activations are the largest sum of "
        "tensors that are alive at one moment, as float32, batch 1; a runtime may need more or less.</p>",
    ]


def exports(found: Sequence) -> list[str]:
    """Files, and how close each is to the model."""
    if not found:
        return []
    head = ["file", "kind", "size", "arena, TFLite Micro", "largest difference, of the largest output", "same class"]
    head.append("samples compared")
    rows = [
        [
            export.path.name,
            export.kind,
            kibibytes(export.size_bytes),
            kibibytes(export.arena_bytes),
            "not run" if export.error is None else f"{export.error:.2g}",
            "-" if export.agreement is None else f"{export.agreement:.1%}",
            str(export.samples),
        ]
        for export in found
    ]
    known = [place for place in range(len(head)) if any(row[place] is not None for row in rows)]
    rows = [[row[place] or "-" for place in known] for row in rows]
    return [
        "<h2>Files, against the model that each was made from</h2>",
        *table([head[place] for place in known], rows, texts=2),
    ]


def timings(benchmarks: Sequence[Benchmark]) -> list[str]:
    """A table for each of the timings."""
    return [*(["<h2>Timings</h2>"] if benchmarks else []), *chain.from_iterable(map(timed_together, benchmarks))]


def timed_together(benchmark: Benchmark) -> list[str]:
    """Times with their spread, and ratios with theirs."""
    first, facts = benchmark[0], benchmark.machine
    head = ["model", "runtime", "ms", "p10-p90", "times as fast as the first (p10 to p90)", "memory", "size"]
    rows = [
        [
            timing.path,
            timing.kind,
            f"{timing.median_ms:.3f}",
            f"{timing.p10_ms:.3f}-{timing.p90_ms:.3f}",
            str(benchmark.speedup(index)) if index else "1",
            kibibytes(timing.memory_bytes) or "-",
            kibibytes(timing.size_bytes) or "-",
        ]
        for index, timing in enumerate(benchmark)
    ]
    load = f"; load before: {facts['load'][0]:.1f}" if facts.get("load") else ""
    machine = f"{facts.get('processor', 'unknown processor')}, {facts.get('cores', '?')} cores{load}"
    note = f"Median of {first.runs} runs, the models in turn; threads: {first.threads}; {machine}."
    return [*table(head, rows, texts=2), f"<p>{escape(note)}</p>"]


def pictures(report) -> list[str]:
    """Figures, drawn into the page."""
    if not can_draw():
        return [f"<p>No pictures: {NEEDED} is not installed where this page was made.</p>"]
    return [
        f'<figure><figcaption>{escape(title)}</figcaption><div class="wide"><img alt="{escape(title)}" src="{source}">'
        "</div></figure>"
        for title, source in draw_pictures(report.plan, report.history)
    ]


def layers(plan: Plan) -> list[str]:
    """Every layer that makes channels: what it lost, or why it could lose nothing."""
    rows = [
        f'<tr><th scope="row" class="text">{escape(entry.path)}</th><td>{entry.filters:,}</td>'
        f'<td>{len(entry.keep):,}</td><td class="rate" style="--rate: {entry.rate:.1%}">{entry.rate:.1%}</td>'
        f'<td class="reason quiet">{escape(entry.reason or "")}</td></tr>'
        for entry in plan.layers
    ]
    head = heads(["layer", "filters", "kept", "removed"]) + '<th class="text">why nothing may go</th>'
    return ["<h2>Layer by layer</h2>", *framed(head, rows)]


def plan_facts(plan: Plan) -> list[str]:
    """How the plan was found, and the plan itself to take along."""
    link = data_uri("application/json", plan.to_json().encode())
    found = {"criterion": plan.criterion, "target": plan.target, "rounds": len(plan.rounds) or None}
    return [
        "<h2>Plan</h2>",
        *definitions({name: value for name, value in found.items() if value}),
        f'<p><a download="plan.json" href="{link}">plan.json</a>, for <code>kprune.Plan.load</code></p>',
    ]


def facts(found: dict) -> list[str]:
    return ["<h2>How it was made</h2>", *definitions(found)] if found else []


def definitions(found: dict) -> list[str]:
    """Names and values; a dict as value becomes one line."""
    lines = [f"<dt>{escape(name)}</dt><dd>{escape(in_words(value))}</dd>" for name, value in found.items()]
    return ["<dl>", *lines, "</dl>"]


def in_words(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(part)}" for name, part in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> list[str]:
    """A table whose first column names the row; the first `texts` columns hold words, the others numbers."""
    lines = []
    for name, *cells in rows:
        kinds = [' class="text"' if place < texts else "" for place in range(1, len(cells) + 1)]
        numbers = "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, cells, strict=True))
        lines.append(f'<tr><th scope="row" class="text">{escape(name)}</th>{numbers}</tr>')
    return framed(heads(head, texts), lines)


def heads(texts: Sequence[str], left: int = 1) -> str:
    kinds = [' class="text"' if place < left else "" for place in range(len(texts))]
    return "".join(f'<th scope="col"{kind}>{escape(text)}</th>' for kind, text in zip(kinds, texts, strict=True))


def framed(head: str, rows: Sequence[str]) -> list[str]:
    """A table that scrolls by itself where the window is narrow."""
    return ['<div class="wide"><table><thead>', f"<tr>{head}</tr>", "</thead><tbody>", *rows, "</tbody></table></div>"]


def quiet(text: str) -> str:
    return f'<span class="quiet">{escape(text)}</span>'


def escape(value) -> str:
    return html.escape(str(value))
