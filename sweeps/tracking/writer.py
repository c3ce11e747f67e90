"""What a sweep writes to MLflow; `reader` reads. No worker knows MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common.seeding import short_digest
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.results import Found
from masksweep.sweeps.tracking import entities, mlflow_view
from masksweep.sweeps.tracking.client import client_class, file_id, new_client, opening, search
from masksweep.sweeps.tracking.spool import Record
from masksweep.sweeps.tracking.store import Refused, alone, is_local, status, store_uri, translated

BATCH = 1000
"""The most metrics that MLflow takes in a call."""
NAME = 250
"""The most characters of a run's name that a database takes."""


class Tracker:
    """The runs of one sweep: a parent, and a child for each trial.

    Everything that is written comes as `Record`s of the spool, and may come again after a crash:
    each is applied so that a second time changes nothing.
    """

    def __init__(self, tracking: Tracking, name: str) -> None:
        """Open the store for the sweep of this name.

        Raises `Invalid` if it cannot be, or the experiment was deleted; `Away` if it is not there.
        """
        self._uri, self._name = store_uri(tracking.uri), name
        self._called = tracking.experiment
        self._id = short_digest(name)
        client_class()  # a slow import, which needs no lock
        with opening(self._uri):
            self._client = new_client(self._uri)
            self._experiment = self._find_experiment()
        self._file = file_id(self._uri)
        self._runs: dict[str, str | None] = {}
        """Runs by their records' key; None: the store had that trial finished already."""
        self._parent = ""

    def _find_experiment(self) -> str:
        """The experiment's id; empty if it is still to be made."""
        found = self._client.get_experiment_by_name(self._called)
        if found and found.lifecycle_stage != "active":
            allowed = "was deleted; restore it, or another"
            raise Invalid("tracking.experiment", self._called, allowed)
        return str(found.experiment_id) if found else ""

    def _make_experiment(self) -> None:
        # beside the database; a folder named mlruns would turn a bare `mlflow ui` away
        root = (Path.cwd() / "mlartifacts").as_uri() if is_local(self._uri) else None
        with alone(self._uri):
            self._experiment = self._find_experiment() or str(
                self._client.create_experiment(self._called, root, mlflow_view.OF_EXPERIMENT)
            )

    def replaced(self) -> bool:
        """Whether the database's file is another one than was opened, or is gone."""
        return self._file != file_id(self._uri)

    def touch(self) -> None:
        """Write something, and take it back. Raises what MLflow raises."""
        experiment = self._experiment or "0"  # MLflow's own, which is there from the start
        self._client.set_experiment_tag(experiment, "masksweep.probe", "1")
        self._client.delete_experiment_tag(experiment, "masksweep.probe")

    # -- what is there -------------------------------------------------------------------------

    def finished(self) -> dict[str, Found]:
        """The sweep's trials that have finished, by trial id. Raises `Away`."""
        with translated():
            parent = self._find_parent()
            runs = self._children(parent, "FINISHED") if parent else []
        # the newest are the first
        tagged = [(r.data.tags, r) for r in reversed(runs)]
        valid = ((t, r) for t, r in tagged if "trial.id" in t and "trial.superseded" not in t)
        return {tags["trial.id"]: entities.found(run) for tags, run in valid}

    def _find_parent(self) -> str:
        return next((r.info.run_id for r in self._search(f"tags.`sweep.id` = '{self._id}'")), "")

    def _children(self, parent: str, status: str = "", trial: str = "") -> list[Any]:
        query = f"tags.mlflow.parentRunId = '{parent}'"
        query += f" and attributes.status = '{status}'" if status else ""
        query += f" and tags.`trial.id` = '{trial}'" if trial else ""
        return self._search(query)

    def _search(self, query: str) -> list[Any]:
        return search(self._client, [self._experiment] if self._experiment else [], query)

    # -- what is written -----------------------------------------------------------------------

    def apply(
        self, records: Sequence[Record], files: Callable[[Record], Mapping[str, bytes]]
    ) -> None:
        """Write records to the store, in order. Raises `Away` or `Refused`; then apply them again.

        Metrics of a trial that follow one another go out in one call.
        """
        curves: dict[str, list[Any]] = {}
        trials: dict[str, str] = {}
        with translated():
            for record in records:
                body = record.body
                match record.kind:
                    case "sweep":
                        self._start_sweep(body)
                    case "trial":
                        self._start_trial(body)
                    case "metrics":
                        trials[body["run"]] = body["trial"]
                        curves.setdefault(body["run"], []).extend(entities.metrics(body))
                    case "end":
                        self._end(body, curves.pop(body["run"], []), files(record))
                    case "close":
                        self._close(body, files(record))
            for key, points in curves.items():
                if run := self._run(key, trials[key]):
                    self._log(run, points)

    def _start_sweep(self, body: Mapping[str, Any]) -> None:
        if not self._experiment:
            self._make_experiment()
        self._parent = self._find_parent()
        tags = {"sweep.name": self._name, "sweep.id": self._id, **body.get("tags", {})}
        new = not self._parent
        if new:
            run = self._client.create_run(
                self._experiment, start_time=body["time"], tags=tags, run_name=self._name[:NAME]
            )
            self._parent = run.info.run_id
        else:
            self._client.update_run(self._parent, status="RUNNING")
            self._log(self._parent, [], tags)
        self._kill_children()
        self._client.log_dict(self._parent, {"trials": body["plan"]}, "plan.json")
        if scores := body.get("scores"):
            self._set_view(scores)
        if new:
            self._client.set_tag(self._parent, "mlflow.note.content", self._note(body))

    def _set_view(self, scores: Sequence[str]) -> None:
        """Have the experiment's page show the sweep; a store that refuses the tag does without."""
        key, value = mlflow_view.tag(self._id, self._parent, [f"test/{name}" for name in scores])
        try:
            self._client.set_experiment_tag(self._experiment, key, value)
        except Exception as error:  # each kind of store has errors of its own
            if status(error) >= 500:
                raise

    def _note(self, body: Mapping[str, Any]) -> str:
        """The parent's description, with a way to its trials where the page knows them."""
        experiment = self._client.get_experiment(self._experiment)
        shown = mlflow_view.key(self._id) in experiment.tags
        way = f"{mlflow_view.link(self._experiment, self._id)}\n\n" if shown else ""
        return f"{way}{body['note']}"

    def _kill_children(self) -> None:
        for run in self._children(self._parent, "RUNNING"):
            self._client.set_terminated(run.info.run_id, "KILLED")

    def kill_left_running(self) -> None:
        """Close what a driver that is gone left open. Raises `Away`."""
        with translated():
            self._parent = self._find_parent()
            if not self._parent:
                return
            self._kill_children()
            if self._client.get_run(self._parent).info.status == "RUNNING":
                self._client.set_terminated(self._parent, "KILLED")

    def _start_trial(self, body: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        key, trial = body["run"], body["tags"]["trial.id"]
        self._parent = self._parent or self._find_parent()
        self._require_parent()
        known = self._children(self._parent, trial=trial)
        # there already, if the process that wrote it is gone, or the call's answer was lost
        run = next((r.info.run_id for r in known if r.data.tags.get("trial.run") == key), "")
        valid = (r for r in known if "trial.superseded" not in r.data.tags)
        earlier = [r for r in valid if r.info.status == "FINISHED" and r.info.run_id != run]
        if earlier and not run and not body["again"]:
            self._runs[key] = None  # the store was away when the sweep looked for it
            return
        if run:  # closing what was left open may have closed it
            self._client.update_run(run, status="RUNNING")
        else:
            tags = {
                **body["tags"],
                "sweep.name": self._name,
                "mlflow.parentRunId": self._parent,
                "trial.run": key,
            }
            made = self._client.create_run(
                self._experiment, start_time=body["time"], tags=tags, run_name=body["name"][:NAME]
            )
            run = made.info.run_id
        for old in earlier:
            self._client.set_tag(old.info.run_id, "trial.superseded", run)
        params = [Param(k, str(v)[:6000]) for k, v in body["params"].items()]
        self._client.log_batch(run, params=params)
        self._client.log_text(run, body["config"], "config.yaml")
        self._runs[key] = run

    def _require_parent(self) -> None:
        """Raise `Refused` if the sweep's own run is gone, or was deleted by a person."""
        if not self._parent:
            raise Refused("the sweep has no run of its own")
        stage = self._client.get_run(self._parent).info.lifecycle_stage
        if stage != "active":
            self._kill_children()  # nothing more will come of them
            raise Refused(f"the sweep's run {self._parent} was deleted")

    def _run(self, key: str, trial: str) -> str | None:
        """The id of a trial's run; None if the store had that trial finished before."""
        if key not in self._runs:  # started by a process that is gone
            self._parent = self._parent or self._find_parent()
            known = self._children(self._parent, trial=trial)
            run = next((r.info.run_id for r in known if r.data.tags.get("trial.run") == key), None)
            if run is None and all(r.info.status != "FINISHED" for r in known):
                raise Refused(f"there is no run for record {key}")
            self._runs[key] = run
        return self._runs[key]

    def _log(self, run: str, metrics: Sequence[Any], tags: Mapping[str, str] | None = None) -> None:
        from mlflow.entities import RunTag

        given = [RunTag(k, v[:5000]) for k, v in (tags or {}).items()]
        for i in range(0, max(len(metrics), 1), BATCH):
            self._client.log_batch(run, metrics=metrics[i : i + BATCH], tags=given)

    def _end(
        self, body: Mapping[str, Any], curve: Sequence[Any], files: Mapping[str, bytes]
    ) -> None:
        key = body["run"]
        run = self._run(key, body["trial"])
        if run is None:
            return
        points = [
            *curve,
            *(p for part in body["metrics"] for p in entities.metrics({**body, **part})),
        ]
        self._log(run, points, body["tags"])
        if body["data"]:
            self._client.log_inputs(run, [entities.dataset(body["data"])])
        self._log_files(run, files)
        self._client.set_terminated(run, body["status"], end_time=body["time"])
        del self._runs[key]

    def _log_files(self, run: str, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder), files)
            self._client.log_artifacts(run, folder)

    def record(
        self,
        params: Mapping[str, str],
        metrics: Sequence[tuple[str, float, int]],
        files: Mapping[str, bytes],
        note: str,
    ) -> None:
        """Write a run that is no trial's: metrics are (name, value, step), files by their names.

        The note is its description, in markdown; MLflow takes 8,000 characters.

        Raises `Away` or `Refused`.
        """
        from mlflow.entities import Metric, Param

        with translated():
            if not self._experiment:
                self._make_experiment()
            tags = {"mlflow.note.content": note}
            made = self._client.create_run(self._experiment, tags=tags, run_name=self._name).info
            run, now = made.run_id, made.start_time
            told = [Param(key, value[:6000]) for key, value in params.items()]
            points = [Metric(key, value, now, step) for key, value, step in metrics]
            try:
                self._client.log_batch(run, params=told)
                self._log(run, points)
                self._log_files(run, files)
            except Exception:
                self._client.set_terminated(run, "FAILED")
                raise
            self._client.set_terminated(run)

    def _close(self, body: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        self._parent = self._parent or self._find_parent()
        self._client.set_tag(self._parent, "mlflow.note.content", self._note(body))
        # a record of an earlier version may still wait, with texts and no files
        texts = {name: text.encode() for name, text in body.get("texts", {}).items()}
        self._log_files(self._parent, {**texts, **files})
        self._log(
            self._parent, entities.metrics({**body, "values": body.get("metrics", {}), "step": 0})
        )
        # a call that timed out may have made a run after all
        self._kill_children()
        self._client.set_terminated(self._parent, body["status"], end_time=body["time"])


def attach(uri: str | None, run_id: str, files: Mapping[str, bytes], folder: str) -> None:
    """Add files to a run's artifacts, in a folder of theirs. Raises `Away` or `Refused`."""
    client = client_class()(tracking_uri=store_uri(uri))
    with translated(), tempfile.TemporaryDirectory() as here:
        _write(Path(here), files)
        client.log_artifacts(run_id, here, folder)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Files by names that may have folders in them."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
