"""Counts and report files that are recorded in a sweep's parent run when the sweep ends."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.results import leaks


def count_trials(trials: Sequence[Outcome]) -> dict[str, float]:
    """Returns how many trials have each status, and how many leaked although they must hold.

    Controls leak on purpose, so they are not among the leaking trials.

    Args:
        trials: The trials of the sweep that have ended.

    Returns:
        Metrics by name: `trials/ok`, `trials/skipped`, `trials/failed` and `trials/leaking`.
    """
    by_status = {
        f"trials/{s}": float(sum(o.status == s for o in trials))
        for s in ("ok", "skipped", "failed")
    }
    non_controls = [o for o in trials if o.trial.strategy.role == "strategy"]
    leaking = sum(leaks(o.result.metrics) for o in non_controls)
    return {**by_status, "trials/leaking": float(leaking)}


def build_report(
    name: str,
    question: str,
    command: str,
    outcomes: Sequence[Outcome],
    trials_by_environment: Mapping[str, Sequence[str]],
) -> dict[str, bytes]:
    """Builds the report of a sweep. An error is printed and not raised.

    Args:
        name: Name of the sweep.
        question: The question that the sweep is to answer; empty if there is none.
        command: The command that runs the sweep again.
        outcomes: The trials that have ended.
        trials_by_environment: Names of trials by the description of the environment they ran in.

    Returns:
        Content of each file by its path in the run: `report/report.html` and the plots as PNG.
        Empty if no trial has ended, or if the report could not be built.
    """
    if not outcomes:
        return {}
    environments = {text: list(names) for text, names in trials_by_environment.items()}
    try:
        from masksweep.sweeps.report import html_page, plots  # the plotting library may fail too
        from masksweep.sweeps.tracking.stored_sweep import StoredSweep

        sweep = StoredSweep(name, name, question, command, list(outcomes), environments, [])
        html = html_page.page(sweep, plots.draw_plots(outcomes)).encode()
        images = {f"{k}.png": v for k, v in plots.draw_plots(outcomes, "png").items()}
    except Exception as error:  # the results are recorded after this and must not be lost
        print(f"masksweep: no report was made: {error!r}", file=sys.stderr)
        return {}
    return {f"report/{k}": v for k, v in {"report.html": html, **images}.items()}
