"""The launcher passes the suite that Hydra's own launchers pass, under either sweeper."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hydra.test_utils.launcher_common_tests import LauncherTestSuite
from hydra.version import VersionBase, __compat_version__

from sweeps import launcher

# no command of ours reaches what Hydra's suite does with a launcher
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _registered(ray_cluster: None) -> Iterator[None]:
    launcher.register()
    # the suite was written for jobs that change their folder; other tests leave a later version
    base = VersionBase.instance()
    before, base.version_base = base.version_base, __compat_version__
    yield
    base.version_base = before


@pytest.mark.parametrize(("launcher_name", "overrides"), [("masksweep", [])])
class TestWithHydrasSweeper(LauncherTestSuite):
    pass


@pytest.mark.parametrize(
    ("launcher_name", "overrides"), [("masksweep", ["hydra/sweeper=masksweep"])]
)
class TestWithOurSweeper(LauncherTestSuite):
    pass
