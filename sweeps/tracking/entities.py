"""What is recorded, as MLflow's own objects, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from masksweep.sweeps.results import Found, TrialResult


def metrics(body: Mapping[str, Any]) -> list[Any]:
    """The points of a record's values, at its step and time."""
    from mlflow.entities import Metric

    return [Metric(k, v, body["time"], body["step"]) for k, v in body["values"].items()]


def found(run: Any) -> Found:
    """How a trial's run ended, as far as the run tells without its artifacts."""
    tags = run.data.tags
    skipped = tags.get("trial.status") == "skipped"
    result = TrialResult(
        "skipped" if skipped else "ok",
        tags.get("trial.reason", ""),
        metrics=run.data.metrics,
        tags={k: v for k, v in tags.items() if k.startswith(("trial.", "integrity."))},
    )
    return Found(result, tags.get("trial.code", ""))


def dataset(data: Mapping[str, Any]) -> Any:
    """What a trial was trained on, by name, digest and shapes."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    shapes = {"features": data["features"], "targets": data["targets"]}
    described = Dataset(
        name=data["name"],
        digest=data["sha256"][:8],
        source_type="code",
        source=json.dumps({"name": data["name"], "sha256": data["sha256"]}),
        profile=json.dumps({"num_rows": data["features"][0], **shapes}),
    )
    return DatasetInput(described, tags=[InputTag("mlflow.data.context", "training")])
