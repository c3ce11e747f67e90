"""The view of a sweep on MLflow's experiment page: its columns and charts.

MLflow stores a view that is shared with the "Share" button as a tag of the experiment, and the URL
of the page names the tag. There is no API for this. The content of the tag is the page's own format
(MLflow 3.17): if another version does not know it, the page says so and shows its default view.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # otherwise the page asks the user
    "mlflow.note.content": "Sweeps of masksweep: how masked weights are held, and whether they"
    " were. A run with runs below it is a sweep; its description says what came out.",
}
"""Tags of a new experiment."""
VIEW_TAG_PREFIX = "mlflow.sharedViewState."
"""Prefix of the tags in which MLflow stores shared views."""
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
"""Columns of the table of trials."""
SECTION_ID = "masksweep"
"""Id of the section that holds the charts."""


def view_tag(sweep: str, parent: str, scores: Sequence[str]) -> tuple[str, str]:
    """Returns the experiment's tag that holds the view of a sweep, as (key, value).

    Args:
        sweep: Id of the sweep.
        parent: Run id of the sweep's parent run.
        scores: Metrics that the trials are scored by, as `test/accuracy`.
    """
    return view_tag_key(sweep), json.dumps(_state(parent, scores))


def view_tag_key(sweep: str) -> str:
    """Returns the key of the tag that holds the view of a sweep."""
    return f"{VIEW_TAG_PREFIX}{_view_name(sweep)}"


def view_url(experiment: str, sweep: str) -> str:
    """Returns the URL of the view, relative to the server's address."""
    kind = "workflowType=machine_learning"
    return f"#/experiments/{experiment}/runs?{kind}&viewStateShareKey={_view_name(sweep)}"


def view_links(experiment: str, sweep: str) -> str:
    """Returns links to the view, in Markdown."""
    url = view_url(experiment, sweep)
    return f"All trials: [table]({url}), [charts]({url}&compareRunsMode=CHART)"


def _view_name(sweep: str) -> str:
    """Returns the name of the view in URLs."""
    return f"masksweep-{sweep}"


def _distinct(*names: str) -> list[str]:
    """Returns the names, each once: trials may be compared by one that is shown anyway."""
    return list(dict.fromkeys(names))


def _state(parent: str, scores: Sequence[str]) -> Mapping[str, Any]:
    """Returns the content of the view, in the format of MLflow's page."""
    speed = "speed/ratio_to_dense"
    charts = [
        _chart("PARALLEL", f"{score}: all settings", showAllRuns=True,
               selectedParams=["strategy", "pattern", "pattern.sparsity"],
               selectedMetrics=_distinct("integrity/peak_violations", speed, score))
        for score in scores
    ]  # fmt: skip
    charts += [
        _chart("SCATTER", f"{score} over {over}", xaxis=_axis(over), yaxis=_axis(score),
               runsCountToCompare=1000)
        for score in scores
        for over in (speed, "sparsity/achieved")
        if over != score
    ]  # fmt: skip
    leaks = "audit/violations"
    charts += [_chart("LINE", "violations by epoch", metricKey=leaks, selectedMetricKeys=[leaks])]
    return {
        "searchFilter": f"tags.mlflow.parentRunId = '{parent}'",
        "orderByKey": "attributes.`start_time`",
        "orderByAsc": True,
        "selectedColumns": _distinct(*COLUMNS, *(f"metrics.`{score}`" for score in scores)),
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,
        "compareRunSections": [
            {"uuid": SECTION_ID, "name": "Which to use", "display": True, "isReordered": True}
        ],
        "compareRunCharts": charts,
    }


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}


def _chart(kind: str, name: str, **options: Any) -> dict[str, Any]:
    """Returns one chart of the view; `options` are the settings of its kind."""
    common = {"uuid": name, "type": kind, "displayName": name, "metricSectionId": SECTION_ID}
    return {**common, "deleted": False, "isGenerated": False, **options}
