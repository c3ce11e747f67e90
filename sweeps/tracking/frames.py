"""Sweeps as pandas data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pandas as pd

from masksweep.sweeps.config import text_settings
from masksweep.sweeps.results import CURVE_PREFIXES
from masksweep.sweeps.tracking.entities import stored_metrics
from masksweep.sweeps.tracking.store import translate_errors
from masksweep.sweeps.tracking.stored_runs import THREADS, open_client, parent_runs, trial_runs


class Loaded(NamedTuple):
    """The results of sweeps, as tidy data frames."""

    trials: pd.DataFrame
    """One row per trial. Columns: `sweep`, `run_id`, `name`, `status`, `reason`, `through`,
    `weights_sha256`, the settings by their keys (`strategy`, `pattern.sparsity`), and the final
    metrics by name (`test/accuracy`)."""
    curves: pd.DataFrame
    """One row per point of a curve. Columns: `run_id`, `metric`, `epoch`, `value`."""


def load(sweep: str | Sequence[str] | None = None, uri: str | None = None) -> Loaded:
    """Loads the trials of sweeps as data frames.

    Each trial has one row. Runs that are still running are left out, and so are runs that a later
    run of the same trial has replaced.

    Args:
        sweep: Names or parent run ids of sweeps; by default the latest sweep.
        uri: URI of the store, as `tracking.uri`.

    Raises:
        Invalid: The store cannot be opened, or has no such sweep.
        StoreUnavailable: The store cannot be reached.

    Example:
        >>> trials, curves = sweeps.load("quickstart")
        >>> trials.groupby("strategy")["test/accuracy"].mean()
    """
    with open_client(uri) as client, translate_errors():
        pairs = [(parent, trial_runs(client, parent)) for parent in parent_runs(client, sweep, uri)]
        rows = [_row(parent, run) for parent, runs in pairs for run in runs]
        runs = [run for _, children in pairs for run in children]
        with ThreadPoolExecutor(THREADS) as pool:
            points = [p for part in pool.map(lambda run: _points(client, run), runs) for p in part]
    return Loaded(
        pd.DataFrame(rows),
        pd.DataFrame(points, columns=["run_id", "metric", "epoch", "value"]),
    )


def _row(parent: str, run: Any) -> dict[str, Any]:
    tags: Mapping[str, str] = run.data.tags
    return {
        "sweep": tags.get("sweep.name", parent),
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": tags.get("trial.status", run.info.status.lower()),
        "reason": tags.get("trial.reason", ""),
        "through": tags.get("integrity.through", ""),
        "weights_sha256": tags.get("trial.weights_sha256", ""),
        **text_settings.parse_params(run.data.params),
        **stored_metrics(run),
    }


def _points(client: Any, run: Any) -> list[tuple[str, str, int, float]]:
    return [
        (run.info.run_id, metric, point.step, point.value)
        for metric in run.data.metrics
        if metric.startswith(CURVE_PREFIXES)
        for point in client.get_metric_history(run.info.run_id, metric)
    ]
