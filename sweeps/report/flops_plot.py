"""What the plot of scores over training FLOPs shows."""

from __future__ import annotations

from collections.abc import Sequence

from masksweep.sweeps.config.display import label
from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.report.baseline import metric, score
from masksweep.sweeps.report.data_sets import data_labels

DENSE = "dense"
"""Label of the dense control."""
RATIO = "flops/training_ratio"


def by_data(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Returns the trials of each plot by its name: `flops`, or `flops DATA` if there are several.

    There are plots only of data sets on which masks moved. Trials without FLOPs, and trials that
    did not hold, are left out.
    """
    shown: dict[str, list[Outcome]] = {}
    data_of = data_labels(outcomes)
    for o in outcomes:
        held = o.trial.strategy.role == "dense" or o.result.metrics.get("integrity/ok") == 1
        if o.status == "ok" and held and RATIO in o.result.metrics and score(o) is not None:
            shown.setdefault(data_of[o.trial.id], []).append(o)
    moved = {
        data: [o for o in members if metric(o) == metric(members[0])]
        for data, members in shown.items()
        if any(o.trial.moves_masks for o in members)
    }
    return {f"flops {d}" if len(moved) > 1 else "flops": members for d, members in moved.items()}


def lines(outcomes: Sequence[Outcome]) -> dict[str, dict[float, list[float]]]:
    """Returns the scores of the seeds by FLOPs ratio, for each way to choose and move masks.

    If there are several models, or other settings, there are lines for each of them.

    Args:
        outcomes: The trials of one plot.
    """
    scores_by_line: dict[str, dict[float, list[float]]] = {}
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for o in outcomes:
        groups.setdefault((method(o.trial), o.trial.pattern_label, o.variant), []).append(o)
    several = len(groups) > len({group[:2] for group in groups})
    for (name, _, variant), members in groups.items():
        line = f"{name} ({variant})" if several and variant else name
        # the masks of a seed may cost a little more than those of another
        flops = sum(o.result.metrics[RATIO] for o in members) / len(members)
        scores = [value for o in members if (value := score(o)) is not None]
        scores_by_line.setdefault(line, {}).setdefault(flops, []).extend(scores)
    return scores_by_line


def is_dense(label: str) -> bool:
    """Returns whether a line is that of the dense control, of one of several models perhaps."""
    return label == DENSE or label.startswith(f"{DENSE} (")


def method(trial: Trial) -> str:
    """Returns the pattern without its sparsity, and the schedule: `random(distribution=erk), rigl`.

    The strategy comes first if it is not `hard_mask`, which is the default of `apply`.
    """
    if trial.strategy.role == "dense":
        return DENSE
    pattern = label(trial.pattern, without=["sparsity"])
    parts = [trial.label] if trial.strategy.name != "hard_mask" else []
    return ", ".join([*parts, pattern, trial.schedule.name])
