"""``/v1/batches``: OpenAI's Batch API, also under Azure OpenAI's paths. A batch's lines are run in the background."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Required

from pydantic import Field, with_config
from starlette.responses import Response
from typing_extensions import TypedDict

from functions.background_fields import check_webhook
from functions.endpoints import Endpoint, Parameter, blueprint
from functions.http import Call, endpoint
from functions.idempotent import KEY, always, chain_id, idempotent
from functions.rendering import NO_STORE, json_response, usd
from functions.schemas import CLOSED
from functions.scopes import project_of
from functions.validation import Schema
from functions.works import WORKS
from shared import batching
from shared.batches import Batch, Counts, Status
from shared.core.errors import InvalidRequestError
from shared.core.webhooks import MAX_URL

MAX_HOURS: Final = 72
MAX_PAGE: Final = 100
LISTED: Final = 20
_WINDOW: Final = re.compile(r"([1-9][0-9]?)h")
_MOMENTS: Final = {
    "in_progress_at": Status.IN_PROGRESS,
    "finalizing_at": Status.FINALIZING,
    "completed_at": Status.COMPLETED,
    "failed_at": Status.FAILED,
    "expired_at": Status.EXPIRED,
    "cancelling_at": Status.CANCELLING,
    "cancelled_at": Status.CANCELLED,
}


@with_config(CLOSED)
class BatchRequest(TypedDict, total=False):
    """A batch to make."""

    input_file_id: Required[
        Annotated[str, Field(min_length=1, max_length=80, description="A file uploaded with the purpose `batch`.")]
    ]
    endpoint: Required[Annotated[str, Field(min_length=1, max_length=80, description="The endpoint of every line.")]]
    completion_window: Required[
        Annotated[str, Field(min_length=1, max_length=20, description=f"`24h`, or any hours from `1h` to `{MAX_HOURS}h`.")]
    ]
    metadata: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]] | None,
        Field(max_length=16, description="Up to 16 texts to find it by."),
    ]
    webhook_url: Annotated[
        Annotated[str, Field(min_length=1, max_length=MAX_URL)] | None,
        Field(description="An https URL of a listed host, told when the batch has ended."),
    ]


BATCH: Final = Schema(BatchRequest, "BatchRequest")


async def create_batch(call: Call) -> Response:
    """Make a batch of a file."""
    body = call.json()
    BATCH.check(body)
    new = batching.NewBatch(
        chain_id("batch_", call),
        _endpoint(body["endpoint"]),
        body["input_file_id"],
        body["completion_window"],
        _hours(body["completion_window"]) * 3600.0,
        check_webhook(call.gateway, body.get("webhook_url")),
        body.get("metadata") or {},
    )
    batch = await batching.start(call.gateway, call.engine, call.caller, new)
    return json_response(await _shown(call, batch), headers=[NO_STORE])


def _endpoint(path: str) -> str:
    full = path if path in WORKS else "/v1" + path  # Azure OpenAI's form: /chat/completions
    if full not in WORKS:
        message = f"`endpoint` is {path[:60]!r}; it must be one of {', '.join(sorted(WORKS))}."
        raise InvalidRequestError(message, param="endpoint", code="invalid_value")
    return full


def _hours(window: str) -> int:
    found = _WINDOW.fullmatch(window)
    hours = int(found[1]) if found is not None else 0
    if not 1 <= hours <= MAX_HOURS:
        message = f"`completion_window` must be a number of hours from `1h` to `{MAX_HOURS}h`, such as `24h`."
        raise InvalidRequestError(message, param="completion_window", code="invalid_value")
    return hours


async def list_batches(call: Call) -> Response:
    """List batches, the newest first."""
    limit = call.query("limit") or str(LISTED)
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:20]) <= MAX_PAGE):
        message = f"`limit` must be an integer from 1 to {MAX_PAGE}."
        raise InvalidRequestError(message, param="limit", code="invalid_value")
    page = await call.gateway.batches.page(project_of(call), after=call.query("after"), limit=int(limit))
    shown = [await _shown(call, batch) for batch in page.batches]
    listed = {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": page.more,
    }
    return json_response(listed, headers=[NO_STORE])


async def get_batch(call: Call) -> Response:
    """Say where a batch stands."""
    return json_response(await _shown(call, await _own(call)), headers=[NO_STORE])


async def cancel_batch(call: Call) -> Response:
    """Ask a batch to end. Twice is as good as once."""
    batch = await _own(call)
    return json_response(await _shown(call, await batching.cancel(call.gateway, call.engine, batch.id)), headers=[NO_STORE])


async def _own(call: Call) -> Batch:
    """Return the batch of the path; one of another project is as unknown as one that never was."""
    return await call.gateway.batches.get(call.path("id"), project=None if call.caller.admin else call.caller.project)


async def _shown(call: Call, batch: Batch) -> dict[str, Any]:
    return view(batch, await call.gateway.batches.counts(batch))


def view(batch: Batch, counts: Counts) -> dict[str, Any]:
    """Return a batch as OpenAI's object; ``switchyard`` has what its lines have cost."""
    errors = {"object": "list", "data": list(batch.errors)} if batch.errors else None
    total = batch.cursor.requests if batch.cursor.scanned else 0
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": errors,
        "input_file_id": batch.input_file,
        "completion_window": batch.window,
        "status": batch.status.value,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.expires_at),
        **{name: _second(batch.moments.get(status.value)) for name, status in _MOMENTS.items()},
        "request_counts": {"total": total, "completed": counts.completed, "failed": counts.failed},
        "usage": _usage(counts),
        "metadata": dict(batch.metadata) or None,
        "switchyard": {
            "cost_usd": usd(counts.cost),
            "cost_nano_usd": counts.cost,
            "unpriced_lines": counts.unpriced,
            "expired_lines": counts.expired,
        },
    }


def _second(moment: float | None) -> int | None:
    return None if moment is None else int(moment)


def _usage(counts: Counts) -> dict[str, Any]:
    return {
        "input_tokens": counts.input_tokens,
        "input_tokens_details": {"cached_tokens": counts.cached_tokens},
        "output_tokens": counts.output_tokens,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning_tokens},
        "total_tokens": counts.input_tokens + counts.output_tokens,
    }


def _aliases(rest: str) -> tuple[str, ...]:
    return f"/openai/v1/batches{rest}", f"/openai/batches{rest}"


ENDPOINTS: Final = (
    Endpoint(
        name="create_batch",
        method="POST",
        path="/v1/batches",
        handler=idempotent(create_batch, joins=always),
        summary="Have the requests in a file answered in the background",
        tag="Batches",
        body=BATCH,
        parameters=(KEY,),
        answers="OpenAI's `batch`. Every line of its file comes to exactly one line of its output or error file.",
        aliases=_aliases(""),
        durable=True,
    ),
    Endpoint(
        name="list_batches",
        method="GET",
        path="/v1/batches",
        handler=list_batches,
        summary="List batches, the newest first",
        tag="Batches",
        parameters=(
            Parameter("limit", f"At most so many; {LISTED} when absent.", schema={"type": "integer", "maximum": MAX_PAGE}),
            Parameter("after", "Only those that follow this one: the last id of the page before."),
            Parameter("project", "Only those of a project; for the administrator."),
        ),
        answers="Batches.",
        aliases=_aliases(""),
    ),
    Endpoint(
        name="get_batch",
        method="GET",
        path="/v1/batches/{id}",
        handler=get_batch,
        summary="Say where a batch stands",
        tag="Batches",
        answers="OpenAI's `batch`, with what its lines have come to and cost so far.",
        aliases=_aliases("/{id}"),
    ),
    Endpoint(
        name="cancel_batch",
        method="POST",
        path="/v1/batches/{id}/cancel",
        handler=cancel_batch,
        summary="Cancel a batch",
        tag="Batches",
        answers="The batch. Lines in flight are waited for; what is done can be downloaded.",
        aliases=_aliases("/{id}/cancel"),
        durable=True,
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
