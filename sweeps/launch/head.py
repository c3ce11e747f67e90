"""Whether the head of a Ray cluster is still there."""

from __future__ import annotations

import socket
import time

from masksweep.sweeps.common.broken import Broken
from masksweep.sweeps.launch import ray_internals

HEAD_SECONDS = 30.0
"""How long a head that was joined may be out of reach. After a minute Ray ends this process."""
EARLY_SECONDS = 10.0
"""The same while no job has begun: nothing is lost where it is started again."""
PROBE_SECONDS = 1.0


class Head:
    """Whether the head of the cluster that this process is connected to is still there.

    While it is not, calls that ask it do not return, and at last Ray ends this process.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._asked, self._gone_since = 0.0, 0.0

    def answers(self) -> bool:
        """Whether it can be asked now. Raises `Broken` if it has been gone for too long."""
        import ray

        if ray.util.client.ray.is_connected():
            return True  # that connection raises errors of its own
        node = ray_internals.node()
        if node is None:
            raise Broken("Ray has ended")
        if dead := ray_internals.dead_processes(node):
            raise Broken(f"Ray's {' and '.join(dead)} died")
        if node.is_head() or time.monotonic() - self._asked < PROBE_SECONDS:
            return not self._gone_since
        host, _, port = node.gcs_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
            self._gone_since = 0.0
        except OSError as error:
            self._gone_since = self._gone_since or time.monotonic()
            if time.monotonic() - self._gone_since > self._patience_s:
                gone = f"has been gone for {self._patience_s:g} s: {error}"
                raise Broken(f"the head of the Ray cluster {gone}") from error
        self._asked = time.monotonic()
        return not self._gone_since

    def wait(self) -> None:
        """Wait until it answers a new question. Raises `Broken` if it is gone for too long."""
        self._asked = 0.0
        while not self.answers():
            time.sleep(PROBE_SECONDS)
