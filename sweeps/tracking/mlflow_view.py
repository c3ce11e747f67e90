"""How MLflow's page on an experiment shows a sweep: its columns, and its charts.

MLflow keeps what its button "Share" shares as a tag of the experiment, and an address names it. It
has no other call for columns and charts, and the tag's form is the page's own (MLflow 3.17): where
another version does not know it, the page says so and shows what it always does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

OF_EXPERIMENT = {
    "mlflow.experimentKind": "custom_model_development",  # else the page asks
    "mlflow.note.content": "Sweeps of masksweep: how masked weights are held, and whether they"
    " were. A run with runs below it is a sweep; its description says what came out.",
}
SHARED = "mlflow.sharedViewState."
COLUMNS = (
    "tags.`trial.strategy`",
    "tags.`trial.pattern`",
    "tags.`trial.sparsity`",
    "tags.`trial.seed`",
    "tags.`integrity.through`",
    "metrics.`integrity/ok`",
    "metrics.`integrity/peak_violations`",
    "metrics.`speed/ratio_to_dense`",
)
SECTION = "masksweep"


def tag(sweep: str, parent: str, scores: Sequence[str]) -> tuple[str, str]:
    """The experiment's tag, as (key, value), for the sweep of this id with this parent run.

    `scores` are the metrics that its trials are scored by.
    """
    return key(sweep), json.dumps(_state(parent, scores))


def key(sweep: str) -> str:
    """That tag's key."""
    return f"{SHARED}{_key(sweep)}"


def address(experiment: str, sweep: str) -> str:
    """Where the page is, after the server's own address."""
    kind = "workflowType=machine_learning"
    return f"#/experiments/{experiment}/runs?{kind}&viewStateShareKey={_key(sweep)}"


def link(experiment: str, sweep: str) -> str:
    """The way to that page, in markdown."""
    page = address(experiment, sweep)
    return f"All trials: [table]({page}), [charts]({page}&compareRunsMode=CHART)"


def _key(sweep: str) -> str:
    return f"masksweep-{sweep}"


def _state(parent: str, scores: Sequence[str]) -> Mapping[str, Any]:
    speed = "speed/ratio_to_dense"
    charts = [
        _chart("PARALLEL", f"{score}: all settings", showAllRuns=True,
               selectedParams=["strategy", "pattern", "pattern.sparsity"],
               selectedMetrics=["integrity/peak_violations", speed, score])
        for score in scores
    ]  # fmt: skip
    charts += [
        _chart("SCATTER", f"{score} over {over}", xaxis=_axis(over), yaxis=_axis(score),
               runsCountToCompare=1000)
        for score in scores
        for over in (speed, "sparsity/achieved")
    ]  # fmt: skip
    leaks = "audit/violations"
    charts += [_chart("LINE", "violations by epoch", metricKey=leaks, selectedMetricKeys=[leaks])]
    return {
        "searchFilter": f"tags.mlflow.parentRunId = '{parent}'",
        "orderByKey": "attributes.`start_time`",
        "orderByAsc": True,
        "selectedColumns": [*COLUMNS, *(f"metrics.`{score}`" for score in scores)],
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,
        "compareRunSections": [
            {"uuid": SECTION, "name": "Which to use", "display": True, "isReordered": True}
        ],
        "compareRunCharts": charts,
    }


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}


def _chart(kind: str, name: str, **given: Any) -> dict[str, Any]:
    common = {"uuid": name, "type": kind, "displayName": name, "metricSectionId": SECTION}
    return {**common, "deleted": False, "isGenerated": False, **given}
