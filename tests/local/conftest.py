"""A simulator on a free port, and clients that are closed when the test ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncAzureOpenAI, AsyncOpenAI

from local.simulator import Simulator, start_simulator

AZURE_VERSION = "2024-10-21"


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """Start a simulator on loopback."""
    async with await start_simulator() as running:
        yield running


@pytest.fixture
async def http(simulator: Simulator) -> AsyncIterator[aiohttp.ClientSession]:
    """Open an HTTP client whose base is the simulator."""
    async with aiohttp.ClientSession(simulator.url) as session:
        yield session


@pytest.fixture
async def openai(simulator: Simulator) -> AsyncIterator[AsyncOpenAI]:
    """Open OpenAI's client on the profile "openai"."""
    async with AsyncOpenAI(api_key="sk-fake", base_url=f"{simulator.url}/openai/v1", max_retries=0) as client:
        yield client


@pytest.fixture
async def azure(simulator: Simulator) -> AsyncIterator[AsyncAzureOpenAI]:
    """Open Azure OpenAI's client on the profile "azure-east"."""
    endpoint = f"{simulator.url}/azure-east"
    async with AsyncAzureOpenAI(api_key="fake", azure_endpoint=endpoint, api_version=AZURE_VERSION, max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic(simulator: Simulator) -> AsyncIterator[AsyncAnthropic]:
    """Open Anthropic's client on the profile "anthropic"."""
    async with AsyncAnthropic(api_key="fake", base_url=f"{simulator.url}/anthropic", max_retries=0) as client:
        yield client
