"""A Ray cluster that grows: its autoscaler is Ray's own, the nodes it adds are processes here.

Not `ray.cluster_utils.AutoscalingCluster`, which first ends every Ray on the machine, and needs a
file that Ray's wheels lack.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD, TYPE = "f" * 51 + "00000", "ray.head.default"
"""Id and type of the head: that provider knows no others."""
LISTS = [
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"),
    *("rsync_exclude", "rsync_filter"),
]


def autoscaler(folder: Path, address: str, version: str) -> tuple[str, dict[str, str]]:
    """The option and the environment of a head that may add two nodes of one CPU to a first."""
    provider: dict[str, Any] = {
        "type": "external",  # by its name, fake_multinode, it would ask for that file
        "module": PROVIDER,
        "gcs_address": address,
        "head_node_id": HEAD,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": version == "v2",
    }
    worker = {"CPU": 1, "object_store_memory": 100 * 2**20}
    types = {
        TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": worker, "node_config": {}, "min_workers": 1, "max_workers": 3},
    }
    config = {
        "cluster_name": "growing",
        "max_workers": 3,
        "provider": provider,
        "available_node_types": types,
        "head_node_type": TYPE,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.1,
    }
    made = folder / "autoscaler.json"
    made.write_text(json.dumps(config | {name: [] for name in LISTS}))
    env = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    if version == "v2":
        ids = {"RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD}
        env |= {"RAY_enable_autoscaler_v2": "1", **ids}
    return f"--autoscaling-config={made}", env
