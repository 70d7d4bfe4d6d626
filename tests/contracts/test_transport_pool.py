"""What the transport does about connections that were closed while they were idle."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from shared.ports import HttpTransport
from tests.contracts.loopback import OK, ask


class ClosingServer:
    """A server in a thread of its own, so that it acts while our loop stands still. It closes connections when told to."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/"
        self.connections = 0
        self.requests = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                self.requests += 1
                connection.sendall(OK)

    def close_connections(self) -> None:
        """Close every connection."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def stop(self) -> None:
        """Close everything."""
        self.close_connections()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def server() -> Iterator[ClosingServer]:
    """Return the server, stopped after the test."""
    running = ClosingServer()
    yield running
    running.stop()


async def test_a_close_that_the_loop_has_not_seen_is_no_failure(transport: HttpTransport, server: ClosingServer) -> None:
    """After this process stood still while the server closed its idle connections, a request goes over a new one, once."""
    await ask(transport, server.url)
    server.close_connections()
    time.sleep(0.05)  # noqa: ASYNC251 - the loop stands still: that is the point

    assert await ask(transport, server.url) == b"ok"

    assert (server.connections, server.requests) == (2, 2)


async def test_a_live_connection_is_used_again(transport: HttpTransport, server: ClosingServer) -> None:
    """What is asked of the system costs no connection."""
    for _ in range(5):
        await ask(transport, server.url)

    assert (server.connections, server.requests) == (1, 5)
