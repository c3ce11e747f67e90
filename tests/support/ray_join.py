"""A child process that joins a Ray cluster and prints its resources as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.sweep_process import clean_env

JOIN = """
import json, signal, sys, ray
from masksweep.strategies.errors import Invalid
from masksweep.sweeps.launch.cluster import Spec, cluster, resources, worker_slots

def own(number, frame): ...
signal.signal(signal.SIGTERM, own)

def code():
    from masksweep import sweeps
    return sweeps.__file__

try:
    with cluster(json.loads(sys.argv[1])):
        has = resources()
        found = {
            "nodes": has.nodes, "CPU": has.total["CPU"], "free": has.free["CPU"],
            "slots": worker_slots(Spec()), "code": ray.get(ray.remote(code).remote()),
            "own": signal.getsignal(signal.SIGTERM) is own,
            "address": ray.get_runtime_context().gcs_address,
        }
    print(json.dumps(found | {"left": not ray.is_initialized()}))
except Invalid as error:
    sys.exit(str(error))
"""


def join(folder: Path, address: str | None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", JOIN, json.dumps(address)],
        capture_output=True,
        text=True,
        cwd=folder,  # Ray uploads the current folder of a driver that is not a file
        env=clean_env(**env),
    )


TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}


WRONG = TOKEN | {"RAY_AUTH_TOKEN": "f" * 32}
