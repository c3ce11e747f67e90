"""Tests of commands that a signal ends: their exit code, and that no process is left."""

from __future__ import annotations

import signal
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from masksweep.sweeps.cli.main import _taken
from tests.support.servers import free_ports
from tests.support.sweep_process import sweep


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_to_ui_alone_ends_its_server_too(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    with sweep(tmp_path, "--port", str(port), command=("ui",)) as ui:

        def answers() -> bool:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                return True
            return False

        ui.wait_for(answers)
        family = ui.family
        assert len(family) >= 2, "MLflow's command, and the server that it starts"
        ui.process.send_signal(number)
        assert ui.wait() == code
        assert not _taken(port)
        _, alive = psutil.wait_procs(family, 1)
        assert not alive
    assert "Traceback" not in ui.stderr
