"""Writes the records of a sweep to MLflow; `stored_runs` finds them. Workers do not use MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from masksweep.sweeps.common.seeding import short_digest
from masksweep.sweeps.config.sections import Tracking
from masksweep.sweeps.results import StoredResult
from masksweep.sweeps.tracking import entities, mlflow_view
from masksweep.sweeps.tracking.experiment import Experiment
from masksweep.sweeps.tracking.spool import Record
from masksweep.sweeps.tracking.store import (
    StoreRefused,
    http_status,
    translate_errors,
)

MAX_NAME_CHARACTERS = 250
"""Largest length of a run's name that every database accepts, in characters."""


class Tracker(Experiment):
    """The runs of one sweep in MLflow: a parent run, and a child run for each trial.

    The input are `Record`s of the spool. After a crash a record may come again, so to apply a
    record twice has the same effect as once.

    Args:
        tracking: The store and the experiment.
        name: Name of the sweep.

    Raises:
        Invalid: The store cannot be opened, or the experiment was deleted.
        StoreUnavailable: The store cannot be reached.
    """

    def __init__(self, tracking: Tracking, name: str) -> None:
        super().__init__(tracking)
        self._name, self._id = name, short_digest(name)
        self._runs: dict[str, str | None] = {}
        """Run ids by the key in the trial's records; None if the store already had the trial
        finished."""
        self._parent = ""

    # -- reading -------------------------------------------------------------------------------

    def finished(self) -> dict[str, StoredResult]:
        """Returns the results of the sweep's finished trials, by trial id.

        Raises:
            StoreUnavailable: The store cannot be reached.
            StoreRefused: The store does not accept the request.
        """
        with translate_errors():
            parent = self._find_parent()
            runs = self._children(parent, "FINISHED") if parent else []
        # reversed: the oldest first, so that the newest run of a trial is used
        tagged = [(r.data.tags, r) for r in reversed(runs)]
        valid = ((t, r) for t, r in tagged if "trial.id" in t and "trial.superseded" not in t)
        return {tags["trial.id"]: entities.stored_result(run) for tags, run in valid}

    def _find_parent(self) -> str:
        """Returns the id of the parent run; empty if there is none."""
        return next((r.info.run_id for r in self._search(f"tags.`sweep.id` = '{self._id}'")), "")

    def _children(self, parent: str, status: str = "", trial: str = "") -> list[Any]:
        """Returns the child runs, the newest first; by default of any status and trial."""
        query = f"tags.mlflow.parentRunId = '{parent}'"
        query += f" and attributes.status = '{status}'" if status else ""
        query += f" and tags.`trial.id` = '{trial}'" if trial else ""
        return self._search(query)

    # -- writing -------------------------------------------------------------------------------

    def apply(
        self, records: Sequence[Record], files: Callable[[Record], Mapping[str, bytes]]
    ) -> None:
        """Writes records to the store, in order. After an error, apply all of them again.

        Metrics of a trial are sent together, in as few calls as possible.

        Args:
            records: The records.
            files: Returns the content of a record's files, by name.

        Raises:
            StoreUnavailable: The store cannot be reached.
            StoreRefused: The store does not accept a record.
        """
        curves: dict[str, list[Any]] = {}
        trials: dict[str, str] = {}
        with translate_errors():
            for record in records:
                body = record.body
                match record.kind:
                    case "sweep":
                        self._start_sweep(body, files(record))
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

    def _start_sweep(self, body: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Opens or creates the parent run."""
        if not self._experiment:
            self._make_experiment()
        self._parent = self._find_parent()
        tags = {"sweep.name": self._name, "sweep.id": self._id, **body.get("tags", {})}
        new = not self._parent
        if new:
            run = self._client.create_run(
                self._experiment,
                start_time=body["time"],
                tags=tags,
                run_name=self._name[:MAX_NAME_CHARACTERS],
            )
            self._parent = run.info.run_id
        else:
            self._client.update_run(self._parent, status="RUNNING")
            self._log(self._parent, [], tags)
        self._kill_children()
        self._client.log_dict(self._parent, {"trials": body["plan"]}, "plan.json")
        self._log_files(self._parent, files)
        if scores := body.get("score_metrics"):
            self._set_view(scores)
        if new:
            self._client.set_tag(self._parent, "mlflow.note.content", self._note(body))

    def _set_view(self, scores: Sequence[str]) -> None:
        """Stores the view of the sweep on the experiment's page, if the store accepts the tag."""
        key, value = mlflow_view.view_tag(self._id, self._parent, scores)
        try:
            self._client.set_experiment_tag(self._experiment, key, value)
        except Exception as error:  # each kind of store raises its own errors
            if http_status(error) >= 500:
                raise

    def _note(self, body: Mapping[str, Any]) -> str:
        """Returns the parent run's description, with links to the view if the store has one."""
        experiment = self._client.get_experiment(self._experiment)
        has_view = mlflow_view.view_tag_key(self._id) in experiment.tags
        links = f"{mlflow_view.view_links(self._experiment, self._id)}\n\n" if has_view else ""
        return f"{links}{body['note']}"

    def _kill_children(self) -> None:
        """Closes the child runs that are still open."""
        for run in self._children(self._parent, "RUNNING"):
            self._client.set_terminated(run.info.run_id, "KILLED")

    def kill_left_running(self) -> None:
        """Closes the runs that a driver left open when it ended.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        with translate_errors():
            self._parent = self._find_parent()
            if not self._parent:
                return
            self._kill_children()
            if self._client.get_run(self._parent).info.status == "RUNNING":
                self._client.set_terminated(self._parent, "KILLED")

    def _start_trial(self, body: Mapping[str, Any]) -> None:
        """Opens the run of a trial, or finds it if the record was applied before."""
        from mlflow.entities import Param

        key, trial = body["run"], body["tags"]["trial.id"]
        self._parent = self._parent or self._find_parent()
        self._require_parent()
        known = self._children(self._parent, trial=trial)
        # the run exists if this record was applied before, by another process or without an answer
        run = next((r.info.run_id for r in known if r.data.tags.get("trial.run") == key), "")
        valid = (r for r in known if "trial.superseded" not in r.data.tags)
        finished = [r for r in valid if r.info.status == "FINISHED" and r.info.run_id != run]
        if finished and not run and not body["again"]:
            self._runs[key] = None  # the store was away when the sweep asked for finished trials
            return
        if run:  # `_kill_children` may have closed it
            self._client.update_run(run, status="RUNNING")
        else:
            tags = {
                **body["tags"],
                "sweep.name": self._name,
                "mlflow.parentRunId": self._parent,
                "trial.run": key,
            }
            created = self._client.create_run(
                self._experiment,
                start_time=body["time"],
                tags=tags,
                run_name=body["name"][:MAX_NAME_CHARACTERS],
            )
            run = created.info.run_id
        for finished_run in finished:
            self._client.set_tag(finished_run.info.run_id, "trial.superseded", run)
        params = [Param(k, str(v)[:6000]) for k, v in body["params"].items()]
        self._client.log_batch(run, params=params)
        self._client.log_text(run, body["config"], "config.yaml")
        self._runs[key] = run

    def _require_parent(self) -> None:
        """Raises `StoreRefused` if the parent run is missing, or a user has deleted it."""
        if not self._parent:
            raise StoreRefused("the sweep has no run of its own")
        stage = self._client.get_run(self._parent).info.lifecycle_stage
        if stage != "active":
            self._kill_children()  # their records are refused too
            raise StoreRefused(f"the sweep's run {self._parent} was deleted")

    def _run(self, key: str, trial: str) -> str | None:
        """Returns the id of a trial's run; None if the store already had the trial finished."""
        if key not in self._runs:  # another process started the run
            self._parent = self._parent or self._find_parent()
            known = self._children(self._parent, trial=trial)
            run = next((r.info.run_id for r in known if r.data.tags.get("trial.run") == key), None)
            if run is None and all(r.info.status != "FINISHED" for r in known):
                raise StoreRefused(f"there is no run for record {key}")
            self._runs[key] = run
        return self._runs[key]

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

    def _close(self, body: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        self._parent = self._parent or self._find_parent()
        self._client.set_tag(self._parent, "mlflow.note.content", self._note(body))
        # a record that an earlier version wrote has `texts` instead of files
        texts = {name: text.encode() for name, text in body.get("texts", {}).items()}
        self._log_files(self._parent, {**texts, **files})
        self._log(
            self._parent, entities.metrics({**body, "values": body.get("metrics", {}), "step": 0})
        )
        # a call that timed out may still have created a run
        self._kill_children()
        self._client.set_terminated(self._parent, body["status"], end_time=body["time"])
