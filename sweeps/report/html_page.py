"""The report of sweeps as a single HTML file, which loads no other file and opens from disk."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from masksweep.sweeps.components import plugins
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.report import baseline, recommendation
from masksweep.sweeps.report.results_table import NEUTRAL_VERDICTS, headers_in_one_line, rows
from masksweep.sweeps.report.templating import render
from masksweep.sweeps.tracking.stored_sweep import StoredSweep

CAPTIONS = {
    "score": "Score over sparsity; bands are 95 % intervals over the seeds.",
    "speed": "Step time as a ratio to the dense control of the same trial.",
    "flops": "Score over the FLOPs of the whole training, relative to the dense model. A line"
    " joins the sparsities of one way to choose and change the masks; bars are 95 % intervals.",
    "pareto": "Score against speed with its 95 % interval; the line joins those that hold and that"
    " no other beats in both. Hollow marks did not hold.",
}


Cell = tuple[str, str]
"""Text of a cell and its CSS class: `good`, `bad` or empty."""


@dataclass(frozen=True)
class Table:
    """A table of the report. A table without lines and notes is left out."""

    header: Sequence[str]
    lines: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    """Sentences below the table."""


def page(
    sweep: StoredSweep, figures: Mapping[str, bytes], compared_with: str = baseline.DEFAULT_BASELINE
) -> str:
    """Returns the report as HTML.

    Args:
        sweep: The sweep, or several sweeps combined to one.
        figures: SVG images by name, as `plots.draw_plots` returns them.
        compared_with: Label of the strategy that the others are compared with.
    """
    outcomes = sweep.outcomes
    counts = {s: sum(o.status == s for o in outcomes) for s in ("ok", "skipped", "failed")}
    by_status = ", ".join(f"{n} {'ended well' if s == 'ok' else s}" for s, n in counts.items() if n)
    is_default = compared_with == baseline.DEFAULT_BASELINE
    baseline_name = "the dense control" if is_default else compared_with
    return render(
        "report.html",
        name=sweep.name,
        questions=list(_questions(sweep)),
        trials=f"{len(outcomes)} trials: {by_status}.",
        sentences=recommendation.sentences(outcomes),
        figures=[(_svg(image), _caption(name)) for name, image in figures.items()],
        tables=[
            ("Were the weights held?", _integrity(outcomes)),
            (f"Compared with {baseline_name}", _differences(outcomes, compared_with)),
            ("Which trials did not hold", _leaks(outcomes)),
            ("What was skipped or failed", _not_run(outcomes)),
            ("What it cost", _costs(outcomes)),
        ],
        environments=_environments(sweep),
        again=[(part.name if sweep.parts else "", _commands(part)) for part in sweep.single_sweeps],
        left_out=sweep.left_out,
    )


def _questions(sweep: StoredSweep) -> Iterable[str]:
    """Yields the question of each sweep; if there are several sweeps, with the sweep's name."""
    for part in sweep.single_sweeps:
        if part.question:
            yield f"{part.name}: {part.question}" if sweep.parts else part.question


def _svg(image: bytes) -> Any:
    """Returns an SVG image without its XML header. It comes from us, so it is not escaped."""
    from markupsafe import Markup

    text = image.decode()
    return Markup(text[text.index("<svg") :])


def _caption(name: str) -> str:
    what, _, kind = name.partition(" ")
    return f"{kind.capitalize()}. {CAPTIONS[what]}" if kind else CAPTIONS[what]


def _unstyled(lines: Iterable[Sequence[str]]) -> list[list[Cell]]:
    return [[(text, "") for text in line] for line in lines]


def _integrity(outcomes: Sequence[Outcome]) -> Table:
    lines = []
    for row in rows(outcomes):
        kind = "" if row.verdict in NEUTRAL_VERDICTS else "good" if row.as_expected else "bad"
        texts = (row.strategy, row.pattern, row.score, row.ratio, row.violated)
        verdict = (f"{row.verdict}{row.problem}", kind)
        lines.append([*((text, "") for text in texts), verdict, (row.counts, "")])
    return Table(headers_in_one_line(outcomes), lines)


def _differences(outcomes: Sequence[Outcome], compared_with: str) -> Table:
    lines = baseline.rows(outcomes, compared_with)
    header = baseline.headers(outcomes, compared_with)
    if lines:
        notes = [baseline.method_note(len(lines)), baseline.noise_note(outcomes)]
        return Table(header, _unstyled(lines), [note for note in notes if note])
    was_chosen = compared_with != baseline.DEFAULT_BASELINE
    message = "No strategy has two trials with a counterpart of the same seed there."
    return Table(header, [], [message] if was_chosen else [])


def _leaks(outcomes: Sequence[Outcome]) -> Table:
    """Returns a table of the trials, without controls, that failed their audit, with the cause."""
    leaking = [
        o
        for o in outcomes
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
    header = ("trial", "weights violated", "largest drift", "from step", "through")
    return Table(header, _unstyled(lines))


def _not_run(outcomes: Sequence[Outcome]) -> Table:
    reasons: dict[tuple[str, str, str], int] = {}
    for o in outcomes:
        if o.status != "ok":
            key = (o.trial.label, o.status, o.reason)
            reasons[key] = reasons.get(key, 0) + 1
    lines = [(strategy, status, str(n), why) for (strategy, status, why), n in reasons.items()]
    return Table(("strategy", "", "trials", "reason"), _unstyled(lines))


def _costs(outcomes: Sequence[Outcome]) -> Table:
    names: dict[str, tuple[str, float, Callable[[list[float]], float]]] = {
        "speed/step_ms": ("step, ms (median)", 1.0, median),
        # the maximum, as a worker's later trials reuse its compiled program and its memory
        "speed/compile_s": ("compiling, s (most)", 1.0, max),
        "memory/peak_bytes": ("memory added, MiB (most)", 2**-20, max),
        "memory/parameters_bytes": ("weights, KiB (median)", 2**-10, median),
        "memory/optimizer_bytes": ("optimizer, KiB (median)", 2**-10, median),
    }
    by_label: dict[str, list[Outcome]] = {}
    for o in outcomes:
        if o.status == "ok":
            by_label.setdefault(o.trial.label, []).append(o)
    lines = []
    for label, members in by_label.items():
        line = [label]
        for name, (_, unit, summary) in names.items():
            values = [m.result.metrics[name] for m in members if name in m.result.metrics]
            line.append(_rounded(summary(values) * unit) if values else "-")
        lines.append(line)
    return Table(["strategy", *(title for title, _, _ in names.values())], _unstyled(lines))


def _rounded(value: float) -> str:
    """Returns a number with three digits, or all of those before the point: `0.123`, `1,230`."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _environments(sweep: StoredSweep) -> list[tuple[str, str]]:
    """Returns (text that says which trials, description of the environment they ran in)."""
    count = len(sweep.outcomes)
    return [
        ("All trials" if len(names) == count else f"{len(names)} of {count} trials", text.strip())
        for text, names in sweep.environments.items()
    ]


def _commands(sweep: StoredSweep) -> str:
    """Returns the commands that run the sweep again and reproduce it, one per line."""
    elsewhere = any(outcome.trial.data.is_elsewhere for outcome in sweep.outcomes)
    options = [*plugins.flags(recorded=True), *(["--data PATH"] if elsewhere else [])]
    again = ["masksweep reproduce", *options, "--sweep", shlex.quote(sweep.run_id)]
    return "\n".join(filter(None, [sweep.command, " ".join(again)]))
