"""Azure Monitor's ingestion endpoint on loopback: takes what the real exporter sends, and keeps the envelopes.

with Ingestion() as ingestion:
    environment["APPLICATIONINSIGHTS_CONNECTION_STRING"] = ingestion.connection_string
    ...
    rows = ingestion.of("RemoteDependencyData")
"""

from __future__ import annotations

import json
from typing import Any

from tests.telemetry.endpoint import OK, Answer, Endpoint, Post

KEY = "00000000-0000-4000-8000-000000000001"
PATHS = ("/v2.1/track", "/v2/track")

Envelope = dict[str, Any]


def parse(body: bytes) -> list[Envelope]:
    """Return the envelopes of a body: a JSON array, one object, or one object per line."""
    text = body.decode().strip()
    if text.startswith("["):
        return list(json.loads(text))
    return [json.loads(line) for line in text.splitlines() if line.strip()]


class Ingestion(Endpoint):
    """The endpoint; ``envelopes`` are those it has accepted, in the order they came. ``status`` is what it answers with."""

    def __init__(self) -> None:
        super().__init__()
        self.status = OK
        self.headers: dict[str, str] = {}
        self.answer = self._answer

    @property
    def connection_string(self) -> str:
        """Return what APPLICATIONINSIGHTS_CONNECTION_STRING must be to send here."""
        return f"InstrumentationKey={KEY};IngestionEndpoint={self.url}/;LiveEndpoint={self.url}/"

    @property
    def envelopes(self) -> list[Envelope]:
        """Return what was accepted."""
        return [envelope for post in list(self.taken) for envelope in parse(post.body)]

    def of(self, base_type: str) -> list[Envelope]:
        """Return the accepted envelopes of a type: RemoteDependencyData, MetricData, MessageData, ExceptionData."""
        return [envelope for envelope in self.envelopes if envelope["data"]["baseType"] == base_type]

    def _answer(self, post: Post) -> Answer:
        if post.path not in PATHS:
            return Answer(404)
        if self.status != OK:
            return Answer(self.status, b'{"itemsReceived": 0, "itemsAccepted": 0, "errors": []}', self.headers)
        count = len(parse(post.body))
        return Answer(OK, json.dumps({"itemsReceived": count, "itemsAccepted": count, "errors": []}).encode())
