"""A Ray cluster that grows: Ray's own autoscaler adds nodes, which are processes of this machine.

`ray.cluster_utils.AutoscalingCluster` is not used: it first stops every Ray on the machine, and
needs a file that Ray's wheels lack.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD, TYPE = "f" * 51 + "00000", "ray.head.default"
"""Id and type of the head node. The provider knows no others."""
LISTS = [
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"),
    *("rsync_exclude", "rsync_filter"),
]


def autoscaler(folder: Path, address: str, version: str) -> tuple[str, dict[str, str]]:
    """Configures a cluster that starts with one worker node of one CPU and may add two.

    Args:
        folder: Where the config file is written.
        address: Address of the head (GCS).
        version: `v1` or `v2` of Ray's autoscaler.

    Returns:
        The option of `ray start`, and variables for the head's environment.
    """
    provider: dict[str, Any] = {
        "type": "external",  # the type fake_multinode would need the missing file
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
    config_file = folder / "autoscaler.json"
    config_file.write_text(json.dumps(config | {name: [] for name in LISTS}))
    env = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    if version == "v2":
        ids = {"RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD}
        env |= {"RAY_enable_autoscaler_v2": "1", **ids}
    return f"--autoscaling-config={config_file}", env
