"""What a sweep leaves in its own run at its end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.results import leaks


def counts(found: Sequence[Outcome]) -> dict[str, float]:
    """How many trials ended how, and in how many a strategy that should hold leaked."""
    told = {
        f"trials/{s}": float(sum(o.status == s for o in found)) for s in ("ok", "skipped", "failed")
    }
    real = [o for o in found if o.trial.strategy.role == "strategy"]
    leaking = sum(leaks(o.result.metrics) for o in real)
    return {**told, "trials/leaking": float(leaking)}


def report(
    name: str,
    question: str,
    command: str,
    found: Sequence[Outcome],
    where: Mapping[str, Sequence[str]],
) -> dict[str, bytes]:
    """The report's files, by their names in the run; none where nothing ended, or where it fails.

    `command` is what runs the sweep again, `where` are the names of trials by what they ran on.
    """
    from masksweep.sweeps.report import html_page, plots
    from masksweep.sweeps.tracking.reader import Sweep

    if not found:
        return {}
    environments = {text: list(names) for text, names in where.items()}
    sweep = Sweep(name, name, question, command, list(found), environments, [])
    try:
        html = html_page.page(sweep, plots.all_of(found)).encode()
        drawn = {f"{k}.png": v for k, v in plots.all_of(found, "png").items()}
    except Exception as error:  # what was measured is worth more, and is recorded after this
        print(f"masksweep: no report was made: {error!r}", file=sys.stderr)
        return {}
    return {f"report/{k}": v for k, v in {"report.html": html, **drawn}.items()}
