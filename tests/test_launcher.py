"""The launcher passes the suite that Hydra's own launchers pass, under either sweeper."""

from __future__ import annotations

import pytest
from hydra.test_utils.launcher_common_tests import LauncherTestSuite

from sweeps import launcher


@pytest.fixture(autouse=True)
def _registered(ray_cluster: None) -> None:
    launcher.register()


@pytest.mark.parametrize(("launcher_name", "overrides"), [("masksweep", [])])
class TestWithHydrasSweeper(LauncherTestSuite):
    pass


@pytest.mark.parametrize(
    ("launcher_name", "overrides"), [("masksweep", ["hydra/sweeper=masksweep"])]
)
class TestWithOurSweeper(LauncherTestSuite):
    pass
