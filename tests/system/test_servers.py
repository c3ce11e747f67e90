"""Tests of the servers that other tests use: they really stop, and restart with their data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.servers import mlflow_server, postgres


@pytest.mark.slow
def test_runs_survive_a_server_and_its_database_going_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with postgres(tmp_path) as database, mlflow_server(database.uri, tmp_path) as server:
        client = MlflowClient(server.uri)
        run = client.create_run("0").info.run_id
        client.log_metric(run, "loss", 0.5, step=3)
        client.log_text(run, "kept", "note.txt")
        server.pause()
        assert not server.answers()
        server.resume()
        assert server.answers()
        server.pause()
        server.stop()
        database.stop()
        with pytest.raises(MlflowException, match="refused"):
            client.get_run(run)
        database.start()
        server.start()
        assert [(m.value, m.step) for m in client.get_metric_history(run, "loss")] == [(0.5, 3)]
        note = client.download_artifacts(run, "note.txt", str(tmp_path))
        assert Path(note).read_text() == "kept"
        assert list((tmp_path / "artifacts").rglob("note.txt"))
    assert not server.answers()
    assert not database.answers()


def test_a_test_that_fails_leaves_no_server(tmp_path: Path) -> None:
    with pytest.raises(AssertionError), postgres(tmp_path) as database:
        assert not database.answers()
    assert not database.answers()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="nosuch"), mlflow_server("nosuch://store", tmp_path):
        pytest.fail("started")
