"""Runs the experiment that trains, prunes, holds and fine-tunes, with all of its claims."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sweep_process import clean_env, local_store


@pytest.mark.slow
def test_pruning_costs_and_fine_tuning_gives_it_back(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "masksweep.sweeps.cli", "run", "+experiment=prune_and_finetune"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=clean_env(),
    )
    assert process.returncode == 0, process.stderr
    assert len(re.findall(r"\bPASS\b", process.stdout)) == 8
    assert local_store(tmp_path, "prune_and_finetune").by_status() == {"FINISHED": 220}
