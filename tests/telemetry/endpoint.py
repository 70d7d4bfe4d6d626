"""A loopback HTTP server that keeps what is posted to it, and answers as it is told to: well, badly, or never."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast

OK = 200
NEVER = 0
"""A status that is never sent: the server takes the request and stays silent."""


@dataclass(frozen=True, slots=True)
class Post:
    """What came, unzipped."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int = OK
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


class Endpoint:
    """The server, as a context manager. ``answer`` may be changed at any time; what was answered well is in ``taken``."""

    def __init__(self) -> None:
        self.answer: Callable[[Post], Answer] = lambda _: Answer()
        self.posts: list[Post] = []
        self.taken: list[Post] = []
        self._leave = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.endpoint = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._leave.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, post: Post) -> Answer | None:
        """Keep what came; return what to answer, None when nothing is to be."""
        self.posts.append(post)
        answer = self.answer(post)
        if answer.status == NEVER:
            self._leave.wait()
            return None
        if answer.status == OK:
            self.taken.append(post)
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    endpoint: Endpoint


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = cast("_Server", self.server).endpoint.take(Post(self.path, headers, body))
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in {"content-type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Print nothing."""
