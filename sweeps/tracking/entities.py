"""Conversion between records and MLflow's own objects."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from masksweep.sweeps.results import StoredResult, TrialResult


def metrics(body: Mapping[str, Any]) -> list[Any]:
    """Converts the values of a record to MLflow metrics, with the record's step and time."""
    from mlflow.entities import Metric

    return [Metric(k, v, body["time"], body["step"]) for k, v in body["values"].items()]


def stored_metrics(run: Any) -> dict[str, float]:
    """Returns the metrics of a run. MLflow stores an infinite value as the largest float."""
    largest = sys.float_info.max
    return {
        name: math.copysign(math.inf, value) if abs(value) >= largest else value
        for name, value in run.data.metrics.items()
    }


def stored_result(run: Any) -> StoredResult:
    """Returns the result of a trial's run, from its metrics and tags, without its artifacts."""
    tags = run.data.tags
    skipped = tags.get("trial.status") == "skipped"
    result = TrialResult(
        "skipped" if skipped else "ok",
        tags.get("trial.reason", ""),
        metrics=stored_metrics(run),
        tags={k: v for k, v in tags.items() if k.startswith(("trial.", "integrity."))},
    )
    return StoredResult(result, tags.get("trial.code", ""))


def dataset(data: Mapping[str, Any]) -> Any:
    """Describes a trial's training data for MLflow: name, digest and shapes."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    shapes = {"features": data["features"], "targets": data["targets"]}
    features = data["features"]  # by name if the model has several inputs
    first = next(iter(features.values())) if isinstance(features, Mapping) else features
    described = Dataset(
        name=data["name"],
        digest=data["sha256"][:8],
        source_type="code",
        source=json.dumps({"name": data["name"], "sha256": data["sha256"]}),
        profile=json.dumps({"num_rows": first[0], **shapes}),
    )
    return DatasetInput(described, tags=[InputTag("mlflow.data.context", "training")])
