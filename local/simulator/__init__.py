"""A model provider on loopback that obeys a script: OpenAI's, Azure OpenAI's and Anthropic's protocols, whole and streamed.

Start it with `start_simulator`, or ``python -m local.simulator --port 9300``. The first segment of a path is a *profile*, so
that each provider of a catalog has its own: ``/openai/v1/chat/completions``, ``/azure-east/openai/deployments/gpt-4o/…``,
``/anthropic/v1/messages``. A profile needs no registration.

``POST /_sim/script`` (or `Simulator.script`) takes a rule, or a list of rules; fields given replace that rule's::

    {"profile": "azure-east", "model": null,              null or absent: any
     "faults": ["server_error", null, {"kind": "rate_limited_s", "retry_after_s": 7, "times": 3}],     in order, then no more
     "rates": {"reset_mid_stream": 0.02, "before_content": 0.2},                                       drawn from the seed
     "latency_ms": 500, "jitter_ms": 50, "chunk_gap_ms": 20, "seed": 7, "words": 200, "answer": "…",
     "models": ["gpt-4o"], "response_model": "gpt-4o-2024-11-20", "context_window": 8192, "require_key": true}

``GET /_sim/log?since=N`` returns ``{"attempts": […], "next": N, "counters": {…}}``; ``POST /_sim/reset`` forgets everything.

Settings of a fault: ``times``, ``retry_after_s`` (1), ``after_events`` (3 content events), ``delay_ms`` (20), ``size_bytes``
(32 MiB), ``message``. Of a whole answer, "in mid-stream" means half-way through the body.

==========================  ============================================================================================
fault                       what the client sees
==========================  ============================================================================================
ok (or null)                nothing wrong; a place in the queue
rate_limited_s              429 with Retry-After in seconds
rate_limited_ms             429 with retry-after-ms (and Retry-After)
rate_limited_date           429 with Retry-After as an HTTP date
rate_limited_none           429 and no hint
insufficient_quota          429, code insufficient_quota
server_error                500
bad_gateway_html            502 with an HTML page
unavailable                 503 with Retry-After
gateway_timeout             504
overloaded                  529 with Retry-After
request_timeout             408
unauthorized                401
forbidden                   403
deployment_not_found        404, DeploymentNotFound at Azure, model_not_found elsewhere
gone                        410
invalid_request             400
context_length_exceeded     400, code context_length_exceeded
content_filter              400, code content_filter with innererror at Azure
redirect                    307 to a closed port
hang_before_headers         nothing, until the client leaves
hang_after_headers          200 and headers, then nothing
hang_mid_stream             silence after some events
reset_before_headers        TCP reset instead of a response
close_before_headers        connection closed instead of a response
reset_mid_stream            TCP reset after some events
cut_mid_stream              connection closed after some events, the HTTP body unfinished
ends_mid_stream             the HTTP body ends properly after some events
garbage                     200, bytes that are not JSON, not even UTF-8
wrong_content_type          200, an HTML page
truncated_json              200, JSON that stops half-way (of a stream: in one event)
error_in_body               200, JSON error object
error_first_event           200 stream whose first event is an error
error_mid_stream            an error event after some events
no_done                     a stream without [DONE] or message_stop
empty_choices               200 without a choice (a content block)
huge_body                   200 and one endless string
filtered_output             a complete answer, finish_reason content_filter (stop_reason refusal)
usage_missing               a complete answer, no usage anywhere
slow                        a complete answer, delay_ms late
slow_drip                   a complete answer, one byte every delay_ms
emoji_split                 a complete answer whose multi-byte characters are split over TCP segments
split_every_byte            a complete answer, each byte written alone
sse_odd                     a complete stream with comments, CRLF, ids, retry, a byte order mark
async_filter                a complete stream with Azure's late filter verdicts: choices without a delta
==========================  ============================================================================================

Groups, for ``rates``: before_content, after_content, refused, callers, harmless (see `local.simulator.faults`).
"""

from __future__ import annotations

from local.simulator.attempts import Attempt, Billed
from local.simulator.faults import (
    AFTER_CONTENT,
    BEFORE_CONTENT,
    CALLERS,
    GROUPS,
    HARMLESS,
    REFUSED,
    Fault,
    FaultKind,
    ScriptError,
)
from local.simulator.server import Simulator, start_simulator

__all__ = [
    "AFTER_CONTENT",
    "BEFORE_CONTENT",
    "CALLERS",
    "GROUPS",
    "HARMLESS",
    "REFUSED",
    "Attempt",
    "Billed",
    "Fault",
    "FaultKind",
    "ScriptError",
    "Simulator",
    "start_simulator",
]
