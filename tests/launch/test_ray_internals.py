"""Ray's private interfaces work as `ray_internals` expects.

Each test runs in a new process, because Ray caches its settings for the life of a process.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TRIED = {
    "address": """
assert internals.bootstrap_address("10.1.2.3:6379") == "10.1.2.3:6379"
""",
    "tokens": """
from ray.exceptions import AuthenticationError
assert internals.token_header() == {}
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 64)
assert internals.token_header() == {}, "it is read once"
internals.forget_token()
internals.read_token()
assert internals.token_header() == {"authorization": "Bearer " + "a" * 64}
del os.environ["RAY_AUTH_TOKEN"]
os.environ["RAY_AUTH_TOKEN_PATH"] = "/nothing/here"
internals.forget_token()
try:
    internals.read_token()
except AuthenticationError:
    pass
else:
    raise AssertionError("a token that cannot be read")
""",
    "own token": """
os.makedirs(os.path.expanduser("~/.ray"))
with open(os.path.expanduser("~/.ray/auth_token"), "w") as file:
    file.write("b" * 64)
internals.take_own_token()
assert internals.token_header() == {"authorization": "Bearer " + "b" * 64}
""",
    "ports": """
from ray._private import parameter, ray_constants
before = parameter.RayParams, ray_constants.ENABLE_RAY_CLUSTER
with internals.loopback_ports():
    assert parameter.RayParams().dashboard_agent_listen_port == 0
    assert not ray_constants.ENABLE_RAY_CLUSTER
assert (parameter.RayParams, ray_constants.ENABLE_RAY_CLUSTER) == before
""",
    "job config": """
from ray.job_config import JobConfig
plain, safe = JobConfig(), internals.safe_job_config()
for config in (plain, safe):
    config._py_driver_sys_path.append("/a/folder")
assert "/a/folder" in plain._py_driver_sys_path
assert safe._py_driver_sys_path == []
assert safe._get_proto_job_config() is not None
""",
    "node": """
from ray._private import node, ray_constants
assert internals.node() is None
assert callable(node.Node.dead_processes)
class Ours:
    def dead_processes(self):
        kinds = ray_constants.PROCESS_TYPE_RAYLET, ray_constants.PROCESS_TYPE_LOG_MONITOR
        return [(kind, None) for kind in kinds]
assert internals.dead_processes(Ours()) == ["raylet"]
""",
}


@pytest.mark.parametrize("what", TRIED)
def test_ray_has_it_still(what: str, tmp_path: os.PathLike[str]) -> None:
    imports = "import os\nfrom masksweep.sweeps.launch import ray_internals as internals\n"
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", imports + TRIED[what]],
        env=env | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
