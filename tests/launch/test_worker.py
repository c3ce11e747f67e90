"""What a worker sends besides results."""

from __future__ import annotations

from pathlib import Path

import pytest

from masksweep.sweeps.launch import worker


@pytest.mark.parametrize(
    ("start", "expected"), [(0, b"6789"), (3, b"6789"), (8, b"89"), (10, b"")], ids=str
)
def test_a_log_is_sent_from_its_start_and_at_most_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int, expected: bytes
) -> None:
    monkeypatch.setattr(worker, "MAX_LOG_BYTES", 4)
    (tmp_path / "log").write_bytes(b"0123456789")
    assert worker.log_tail(tmp_path / "log", start) == expected
