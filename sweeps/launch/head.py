"""Checks whether the head of a Ray cluster is still reachable."""

from __future__ import annotations

import socket
import time

from masksweep.sweeps.common.sweep_failed import SweepFailed
from masksweep.sweeps.launch import ray_internals

HEAD_PATIENCE_SECONDS = 30.0
"""Seconds that the head of a joined cluster may be out of reach. Ray ends this process after 60."""
EARLY_HEAD_PATIENCE_SECONDS = 10.0
"""The same limit before the first job: a sweep that is started again has lost nothing yet."""
PROBE_SECONDS = 1.0
"""Timeout of one probe, and the least time between two probes."""


class Head:
    """Checks whether the head of the connected cluster is reachable.

    While it is not, calls to the head do not return, and after a minute Ray ends this process.

    Args:
        patience_s: Seconds that the head may be out of reach.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._probed_at, self._gone_since = 0.0, 0.0

    def is_reachable(self) -> bool:
        """Whether calls to the head return now.

        Raises:
            SweepFailed: The head was out of reach for too long, or Ray has ended on this machine.
        """
        import ray

        if ray.util.client.ray.is_connected():
            return True  # a ray:// connection raises its own errors
        node = ray_internals.node()
        if node is None:
            raise SweepFailed("Ray has ended")
        if dead := ray_internals.dead_processes(node):
            raise SweepFailed(f"Ray's {' and '.join(dead)} died")
        if node.is_head() or time.monotonic() - self._probed_at < PROBE_SECONDS:
            return not self._gone_since
        host, _, port = node.gcs_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
            self._gone_since = 0.0
        except OSError as error:
            self._gone_since = self._gone_since or time.monotonic()
            if time.monotonic() - self._gone_since > self._patience_s:
                reason = f"has been gone for {self._patience_s:g} s: {error}"
                raise SweepFailed(f"the head of the Ray cluster {reason}") from error
        self._probed_at = time.monotonic()
        return not self._gone_since

    def wait(self) -> None:
        """Waits until the head answers a new probe.

        Raises:
            SweepFailed: As in `is_reachable`.
        """
        self._probed_at = 0.0
        while not self.is_reachable():
            time.sleep(PROBE_SECONDS)
