"""The tracking store's location, and addresses that no store can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from masksweep.strategies import Invalid
from masksweep.sweeps.tracking.client import new_client, opening
from masksweep.sweeps.tracking.store import database_path, store_uri


@pytest.mark.parametrize("uri", ["sqlite:x.db", "mysql://me:secret@host/db", "foo://x"])
def test_an_address_that_cannot_be_read_is_not_taken_for_a_store_that_is_away(uri: str) -> None:
    with (
        pytest.raises(Invalid, match=r"^tracking.uri=.*: cannot be opened: ") as raised,
        opening(uri),
    ):
        new_client(uri).search_experiments(max_results=1)
    assert "secret" not in str(raised.value)


def test_a_folder_whose_path_a_database_address_cannot_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, is_allowed in (("a #1 100% ü", True), ("what?", False)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if is_allowed:
            assert database_path(store_uri(None)) == tmp_path / name / "mlflow.db"
            continue
        for uri in (None, "sqlite:///x.db"):
            with pytest.raises(Invalid, match=r"^current folder=.*what\?: must have no \? in its"):
                store_uri(uri)
        assert store_uri("sqlite:////elsewhere/x.db") == "sqlite:////elsewhere/x.db"
