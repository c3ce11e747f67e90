"""A report of sweeps as one HTML file: nothing is fetched, and it opens from disk."""

from __future__ import annotations

import html
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.report import baseline, recommendation
from masksweep.sweeps.report.results_table import PLAIN, headers, rows
from masksweep.sweeps.report.style import STYLE
from masksweep.sweeps.tracking.reader import Sweep

CAPTIONS = {
    "score": "Test score over sparsity; bands are 95 % intervals over the seeds.",
    "speed": "Step time beside the dense control of the same trial.",
    "pareto": "Score against speed with its 95 % interval; the line joins those that hold and that"
    " no other beats in both. Hollow marks did not hold.",
}


def page(sweep: Sweep, figures: Mapping[str, bytes], compared_with: str = baseline.DENSE) -> str:
    """The report. `figures` are SVG, by name; `compared_with` is a strategy by its label."""
    found = sweep.outcomes
    counts = {s: sum(o.status == s for o in found) for s in ("ok", "skipped", "failed")}
    told = ", ".join(f"{n} {'ended well' if s == 'ok' else s}" for s, n in counts.items() if n)
    beside = "the dense control" if compared_with == baseline.DENSE else compared_with
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(sweep.name)}</title><style>{STYLE}</style>",
        f"<h1>{_text(sweep.name)}</h1>",
        *(f"<p class=quiet>{_text(asked)}</p>" for asked in _questions(sweep)),
        f"<p class=quiet>{len(found)} trials: {told}.</p>",
        _sentences(found),
        _figures(figures),
        _section("Were the weights held?", _integrity(found)),
        _section(f"Beside {_text(beside)}", _differences(found, compared_with)),
        _section("Which trials did not hold", _leaks(found)),
        _section("What was skipped or failed", _ended(found)),
        _section("What it cost", _costs(found)),
        _section("Where it ran", _environments(sweep)),
        _section("Again", _again(sweep)),
    ]
    return "\n".join(filter(None, parts))


def _questions(sweep: Sweep) -> Iterable[str]:
    """What each sweep is to settle; of several with the sweep's name."""
    for part in sweep.each:
        if part.question:
            yield f"{part.name}: {part.question}" if sweep.parts else part.question


def _text(given: object) -> str:
    return html.escape(str(given))


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>\n{body}" if body else ""


def _sentences(found: Sequence[Outcome]) -> str:
    told = recommendation.sentences(found)
    return f"<dl>{''.join(f'<dt>{_text(a)}</dt><dd>{_text(b)}</dd>' for a, b in told)}</dl>"


def _figures(figures: Mapping[str, bytes]) -> str:
    parts = []
    for name, drawn in figures.items():
        svg = drawn.decode()
        svg = svg[svg.index("<svg") :]
        parts.append(f"<figure>{svg}<figcaption>{_text(_caption(name))}</figcaption></figure>")
    return f"<div class=figures>{''.join(parts)}</div>"


def _caption(name: str) -> str:
    what, _, kind = name.partition(" ")
    return f"{kind.capitalize()}. {CAPTIONS[what]}" if kind else CAPTIONS[what]


Cell = str | tuple[str, str]
"""A text, or (text, `good` or `bad`)."""


def _table(header: Iterable[str], lines: Iterable[Sequence[Cell]]) -> str:
    """A table; empty without lines."""
    head = "".join(f"<th>{_text(h)}</th>" for h in header)
    body = []
    for line in lines:
        pairs = [(cell, "") if isinstance(cell, str) else cell for cell in line]
        cells = (f"<td{kind and f' class={kind}'}>{_text(text)}</td>" for text, kind in pairs)
        body.append(f"<tr>{''.join(cells)}</tr>")
    head = f"<thead><tr>{head}</tr></thead>"  # which paper has on each page
    return f"<div class=wide><table>{head}{''.join(body)}</table></div>" if body else ""


def _integrity(found: Sequence[Outcome]) -> str:
    lines: list[Sequence[Cell]] = []
    for r in rows(found):
        told = f"{r.verdict}{r.amiss}"
        verdict: Cell = told if r.verdict in PLAIN else (told, "good" if r.good else "bad")
        lines.append((r.strategy, r.pattern, r.score, r.ratio, r.violated, verdict, r.counts))
    return _table([h.replace("\n", " ") for h in headers(found)], lines)


def _differences(found: Sequence[Outcome], compared_with: str) -> str:
    lines = baseline.rows(found, compared_with)
    made = _table(baseline.headers(compared_with), lines)
    if not made and compared_with != baseline.DENSE:  # which was asked for
        return "<p>No strategy has two trials that have their partners there.</p>"
    said = filter(None, [baseline.method(len(lines)), baseline.note(found)])
    return made + "".join(f"<p>{_text(line)}</p>" for line in said) if made else ""


def _leaks(found: Sequence[Outcome]) -> str:
    """Every trial of a real strategy that did not hold, with its cause."""
    leaking = [
        o
        for o in found
        if o.trial.strategy.role == "strategy" and o.result.metrics.get("integrity/ok") == 0
    ]
    lines = [
        (
            o.name,
            f"{o.result.metrics.get('integrity/peak_violations', 0):,.0f}",
            f"{o.result.metrics.get('integrity/peak_drift', 0):.3g}",
            f"{o.result.metrics.get('integrity/first_violation_step', 0):.0f}",
            o.result.tags.get("integrity.through", ""),
        )
        for o in leaking
    ]
    return _table(("trial", "weights violated", "largest drift", "from step", "through"), lines)


def _ended(found: Sequence[Outcome]) -> str:
    reasons: dict[tuple[str, str, str], int] = {}
    for o in found:
        if o.status != "ok":
            key = (o.trial.label, o.status, o.reason)
            reasons[key] = reasons.get(key, 0) + 1
    lines = [(strategy, status, str(n), why) for (strategy, status, why), n in reasons.items()]
    return _table(("strategy", "", "trials", "reason"), lines)


def _costs(found: Sequence[Outcome]) -> str:
    names: dict[str, tuple[str, float, Callable[[list[float]], float]]] = {
        "speed/step_ms": ("step, ms (median)", 1.0, median),
        # a worker's later trials find the program compiled, and its memory there
        "speed/compile_s": ("compiling, s (most)", 1.0, max),
        "memory/peak_bytes": ("memory added, MiB (most)", 2**-20, max),
        "memory/parameters_bytes": ("weights, KiB (median)", 2**-10, median),
        "memory/optimizer_bytes": ("optimizer, KiB (median)", 2**-10, median),
    }
    by_label: dict[str, list[Outcome]] = {}
    for o in found:
        if o.status == "ok":
            by_label.setdefault(o.trial.label, []).append(o)
    lines = []
    for label, members in by_label.items():
        line = [label]
        for name, (_, unit, one) in names.items():
            values = [m.result.metrics[name] for m in members if name in m.result.metrics]
            line.append(f"{one(values) * unit:.3g}" if values else "-")
        lines.append(line)
    head = ["strategy", *(told for told, _, _ in names.values())]
    return _table(head, lines)


def _environments(sweep: Sweep) -> str:
    parts = []
    for text, names in sweep.environments.items():
        among = len(sweep.outcomes)
        said = "All trials" if len(names) == among else f"{len(names)} of {among} trials"
        parts.append(f"<p>{said}:</p><pre>{_text(text.strip())}</pre>")
    return "".join(parts)


def _again(sweep: Sweep) -> str:
    parts = []
    for part in sweep.each:
        said = f"<p>{_text(part.name)}:</p>" if sweep.parts else ""
        lines = [part.command, f"masksweep reproduce --sweep {shlex.quote(part.run_id)}"]
        parts.append(f"{said}<pre>{_text(chr(10).join(filter(None, lines)))}</pre>")
    left = "".join(f"<li>{_text(why)}</li>" for why in sweep.left_out)
    return "".join([*parts, f"<p>Left out:</p><ul>{left}</ul>" if left else ""])
