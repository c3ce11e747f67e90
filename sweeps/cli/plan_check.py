"""Checks the trials of a plan before anything trains, and shows their models, masks and refusals.

There is one table for each different model. Its rows are the weights, and each pattern has a column
with the density of each weight. Trials that differ only in seed, strategy or optimizer share one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from masksweep.sweeps.cli.model_table import Masks, print_model
from masksweep.sweeps.common import escape, spinner
from masksweep.sweeps.config import feasible, plan
from masksweep.sweeps.config.display import label
from masksweep.sweeps.config.plan import PlannedTrial
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.training.model_summary import ModelSummary
from masksweep.sweeps.training.preflight import Preflight, check


def check_and_print(planned: Sequence[PlannedTrial], as_json: bool) -> None:
    """Checks the trials that are not done, and prints the plan with their models and refusals.

    Args:
        planned: The plan, at least one trial.
        as_json: Whether to print JSON, without the tables of the models.

    Raises:
        Invalid: The machine cannot run the trials, or the plan of a trial cannot be made.
    """
    feasible.check([p.trial for p in planned])
    new_trials = [p.trial for p in planned if not p.previous_result]
    models: list[list[Masks]] = []
    with spinner.show_status(f"Checking {plan.count_trials(len(planned))}"), Preflight() as child:
        answers = check(new_trials, child.ask) if new_trials else {}
        planned = plan.with_answers(planned, answers)
        if new_trials and not as_json:
            models = group_by_model([p for p in planned if not p.previous_result], child.describe)
    if as_json:
        plan.print_plan(planned, as_json=True)
        return
    console = escape.console(highlight=False)
    for model in models:
        print_model(model, console)
        console.print()
    plan.print_counts(planned)


def group_by_model(
    planned: Sequence[PlannedTrial], describe: Callable[[list[Trial]], Sequence[ModelSummary]]
) -> list[list[Masks]]:
    """Groups trials by their model and data, and those of a model by what they mask.

    Args:
        planned: The trials.
        describe: Describes the models of trials, such as `Preflight.describe`.

    Returns:
        For each different model the different ways in which it is masked, in the order of the plan.
    """
    groups: dict[str, dict[str, list[PlannedTrial]]] = {}
    for p in planned:
        config = p.trial.canonical()
        model_key = _key(config, "model", "data", "trainable", "components")
        masks_key = _key(config, "pattern", "held", "targets", "outputs_held")
        groups.setdefault(model_key, {}).setdefault(masks_key, []).append(p)
    firsts = [trials[0].trial for group in groups.values() for trials in group.values()]
    summaries = iter(describe(firsts))
    models = []
    for group in groups.values():
        labels = _labels([trials[0].trial for trials in group.values()])
        pairs = zip(labels, group.values(), strict=True)
        models.append([Masks(text, trials, next(summaries)) for text, trials in pairs])
    return models


def _key(config: dict[str, Any], *names: str) -> str:
    return json.dumps([config.get(name) for name in names], sort_keys=True)


def _labels(trials: Sequence[Trial]) -> list[str]:
    """Returns a short text for the masks of each trial, such as `random 0.9`.

    Settings are added where they are needed to tell the masks apart. `-` if nothing is masked.
    """
    labels = [trial.pattern_label for trial in trials]
    for more in (_targets, lambda trial: label(trial.pattern)):
        if len({*labels}) < len(labels):
            labels = [
                text if text == "-" else f"{text}, {more(trial)}"
                for text, trial in zip(labels, trials, strict=True)
            ]
    return labels


def _targets(trial: Trial) -> str:
    targets = [trial.targets] if isinstance(trial.targets, str) else trial.targets
    return "by default" if targets is None else " ".join(targets)
