"""The simulator speaks Azure OpenAI's variety of the protocol to the Azure client."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AuthenticationError, BadRequestError, NotFoundError

from local.simulator import Simulator

HELLO: Any = [{"role": "user", "content": "hello"}]


async def test_deployment_path(azure: AsyncAzureOpenAI, simulator: Simulator) -> None:
    """A deployment answers with the model it runs, filter results and Azure's headers."""
    simulator.script({"profile": "azure-east", "model": "chat", "response_model": "gpt-4o-2024-11-20"})
    raw = await azure.chat.completions.with_raw_response.create(model="chat", messages=HELLO)
    answer = raw.parse()
    assert answer.model == "gpt-4o-2024-11-20"
    assert answer.choices[0].content_filter_results["hate"]["filtered"] is False  # type: ignore[attr-defined]
    assert answer.prompt_filter_results[0]["prompt_index"] == 0  # type: ignore[attr-defined]
    assert raw.headers["apim-request-id"]
    assert raw.headers["x-ms-region"] == "Simulated Region"
    assert raw.headers["x-ms-deployment-name"] == "chat"


async def test_stream_opens_without_choices(azure: AsyncAzureOpenAI) -> None:
    """A stream's first chunk has no choices, only the prompt's filter results."""
    chunks = [c async for c in await azure.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)]
    assert chunks[0].choices == []
    assert chunks[0].prompt_filter_results  # type: ignore[attr-defined]
    assert "hello" in "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


async def test_v1_path(simulator: Simulator) -> None:
    """The v1 path needs no api-version, and takes a Bearer token."""
    async with AsyncOpenAI(api_key="token", base_url=f"{simulator.url}/azure-east/openai/v1", max_retries=0) as client:
        answer = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert answer.prompt_filter_results  # type: ignore[attr-defined]
    assert simulator.log()[0].protocol == "azure"


async def test_embeddings(azure: AsyncAzureOpenAI) -> None:
    """Embeddings work under a deployment's path."""
    answer = await azure.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert len(answer.data) == 2


async def test_refusals(azure: AsyncAzureOpenAI, simulator: Simulator) -> None:
    """Unknown deployment, content filter and context length are worded as Azure words them."""
    simulator.script({"profile": "azure-east", "models": ["gpt-4o"]})
    with pytest.raises(NotFoundError) as missing:
        await azure.chat.completions.create(model="nope", messages=HELLO)
    assert missing.value.code == "DeploymentNotFound"
    simulator.script({"profile": "azure-east", "faults": ["content_filter", "context_length_exceeded"]})
    with pytest.raises(BadRequestError) as filtered:
        await azure.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert filtered.value.code == "content_filter"
    assert isinstance(filtered.value.body, dict)
    assert filtered.value.body["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    with pytest.raises(BadRequestError) as long:
        await azure.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert long.value.code == "context_length_exceeded"


async def test_reasoning_parameter(azure: AsyncAzureOpenAI, simulator: Simulator) -> None:
    """A deployment of any name that runs a reasoning model refuses max_tokens."""
    simulator.script({"profile": "azure-east", "response_model": "gpt-5-mini-2025-08-07"})
    with pytest.raises(BadRequestError) as refused:
        await azure.chat.completions.create(model="mine", messages=HELLO, max_tokens=5)
    assert refused.value.code == "unsupported_parameter"


async def test_credentials_and_version(azure: AsyncAzureOpenAI, http: aiohttp.ClientSession) -> None:
    """No key is 401, no api-version is 404, and both keep the error shape."""
    path = "/azure-east/openai/deployments/gpt-4o/chat/completions"
    async with http.post(f"{path}?api-version=1", json={"messages": HELLO}) as response:
        assert response.status == 401
    async with http.post(path, json={"messages": HELLO}, headers={"api-key": "k"}) as response:
        assert response.status == 404
        assert (await response.json())["error"]["message"] == "Resource not found"
    with pytest.raises(AuthenticationError):
        await azure.with_options(api_key="", default_headers={"api-key": ""}).chat.completions.create(
            model="gpt-4o", messages=HELLO
        )
