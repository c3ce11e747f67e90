"""A port that leads to another one, as a container's published port does."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Traffic:
    """What went through a forwarded port."""

    def __init__(self) -> None:
        self.received = 0
        """Bytes that came back."""
        self._open: list[socket.socket] = []

    def cut(self) -> None:
        """Break the connections that are open now."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def back(self, source: socket.socket, sink: socket.socket) -> None:
        self._open.append(source)
        self.received += pumped(source, sink)


@contextmanager
def forwarded(here: tuple[str, int], there: tuple[str, int]) -> Iterator[Traffic]:
    """What comes to one port goes to another, as a published port."""
    traffic = Traffic()

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), socket.create_connection(there) as other:
                back = threading.Thread(target=traffic.back, args=(other, self.request))
                back.start()
                pumped(self.request, other)
                back.join()

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(here, Forward) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield traffic
        finally:
            server.shutdown()
            thread.join()


def pumped(source: socket.socket, sink: socket.socket) -> int:
    """Pass on all that comes; the number of bytes."""
    count = 0
    with suppress(OSError):
        while part := source.recv(65536):
            sink.sendall(part)
            count += len(part)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    return count
