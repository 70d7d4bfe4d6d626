"""The catalog that ships: complete, dated, and safe to start with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

from shared.catalog import Loaded, load
from shared.core.chat import AUTO, TASKS, Capability
from shared.core.health import HealthSnapshot
from shared.core.pricing import price_on
from shared.core.registry import Lifecycle, Registry
from shared.core.requirements import Hints, chat_requirements, embeddings_requirements
from shared.core.route import Route
from shared.core.router import plan

PATH = Path(__file__).parents[2] / "catalog" / "models.yaml"
DAY = date(2026, 11, 22)
AZURE = {"AZURE_OPENAI_ENDPOINT": "https://resource.openai.azure.com"}
FRESH = {
    "gpt-6-luna", "gpt-6-sol", "gpt-6.1-sol", "gpt-5.4", "gpt-5.4-mini", "gpt-5.4-nano", "gpt-5.2", "gpt-5.1", "gpt-5",
    "gpt-5-mini", "gpt-5-nano", "text-embedding-3-small",
}  # fmt: skip
"""What a subscription made today can deploy: first-party and generally available."""


def loaded(environment: dict[str, str], simulator_url: str | None = None) -> Loaded:
    """Return the shipped catalog in an environment."""
    return load(
        PATH.read_text(encoding="utf-8"), source="catalog/models.yaml", environment=environment, simulator_url=simulator_url
    )


def route(
    registry: Registry, *, model: str = AUTO, task: str = "conversation", fields: Mapping[str, object] | None = None
) -> Route:
    """Return the plan of a small request."""
    payload = {"model": model, **(fields or {})}
    hints = Hints(task_type=task)
    if task == "embeddings":
        requirements = embeddings_requirements({**payload, "input": "text"}, hints=hints)
    else:
        requirements = chat_requirements({**payload, "messages": [{"role": "user", "content": "Hello"}]}, hints=hints)
    return plan(requirements, registry, HealthSnapshot(), day=DAY, draw=0.5)


def test_it_is_well() -> None:
    """No problem and no warning, with and without credentials."""
    assert () == loaded({}).warnings
    assert () == loaded(AZURE).warnings


def test_every_price_says_where_and_when_it_was_read() -> None:
    """And is valid today; a chat model's output is never free by oversight."""
    for deployment in loaded({}).registry.deployments.values():
        for price in deployment.prices:
            assert price.source, deployment.id
            assert price.read_on is not None, deployment.id
            assert price.effective_from <= DAY, deployment.id
        assert price_on(deployment.prices, DAY) is not None or not deployment.prices, deployment.id


def test_every_retirement_says_where_and_when_it_was_read() -> None:
    """A date without a source is a rumour."""
    registry = loaded({}).registry
    lives = [deployment.lifecycle for deployment in registry.deployments.values() if deployment.lifecycle is not None]
    lives += [model.lifecycle for model in registry.models.values()]
    dated = [life for life in lives if life.retires_on is not None]
    assert len(dated) > 30
    assert all(life.source and life.read_on is not None for life in dated)


def test_every_task_has_a_rule() -> None:
    """So has every name of a task that the first format knew."""
    assert TASKS == set(loaded({}).registry.rules)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_default_routes_need_only_what_a_fresh_subscription_can_deploy(task: str) -> None:
    """With nothing but an Azure resource, whatever `auto` chooses is first-party and generally available."""
    candidates = route(loaded(AZURE).registry, task=task).candidates
    assert candidates
    assert {candidate.model for candidate in candidates} <= FRESH
    assert all(candidate.worst_cost is not None for candidate in candidates)


@pytest.mark.parametrize("task", sorted(TASKS - {"embeddings"}))
@pytest.mark.parametrize("field", [{"temperature": 0.2}, {"tools": [{"type": "function", "function": {"name": "f"}}]}])
def test_default_routes_take_what_clients_send(task: str, field: dict[str, object]) -> None:
    """A temperature or tools never leave a task without a candidate."""
    assert route(loaded(AZURE).registry, task=task, fields=field).candidates


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("gpt-4", "gpt-6-sol"),
        ("gpt-4-32k", "gpt-6-sol"),
        ("gpt-3.5-turbo", "gpt-6-luna"),
        ("gpt-35-turbo", "gpt-6-luna"),
        ("llama-2-70b", "Llama-3.3-70B-Instruct"),
        ("code-davinci-002", "gpt-5.4-mini"),
    ],
)
def test_retired_names_still_answer_and_say_why(name: str, first: str) -> None:
    """Also with the temperature that old clients always send."""
    registry = loaded(AZURE).registry
    alias = registry.aliases[name]
    assert alias.retired
    assert first in alias.note
    found = route(registry, model=name)
    assert first == found.candidates[0].model
    assert found.note.startswith(f"{name} is retired. Retired on Azure on 20")
    assert route(registry, model=name, fields={"temperature": 0.7}).candidates


@pytest.mark.parametrize("name", ["o1", "o3", "o4-mini"])
def test_tombstones_fall_back_and_say_why(name: str) -> None:
    """A model retired at its provider answers through its fallbacks, and the plan shows the reason."""
    registry = loaded(AZURE).registry
    assert Lifecycle.RETIRED is registry.models[name].lifecycle.stage
    found = route(registry, model=name)
    assert found.candidates
    assert "retired" == next(dropped.reason.code.value for dropped in found.dropped if dropped.model == name)


def test_what_must_not_be_called_is_not() -> None:
    """Shut down, unconfirmed or retired: off, with the reason, also under the simulator."""
    for registry in (loaded(AZURE).registry, loaded({}, simulator_url="http://127.0.0.1:1").registry):
        assert "410" in (registry.providers["github_models"].unavailable or "")
        assert "not confirmed" in (registry.deployments["azure_openai/gpt-6.1-terra"].unavailable or "")
        assert "retired on 2026-10-19" == registry.deployments["anthropic_foundry/claude-haiku-4-5"].unavailable


def test_local_providers_are_on_when_their_address_is_set() -> None:
    """One variable is enough; its path may be there or not."""
    registry = loaded({"OLLAMA_BASE_URL": "http://127.0.0.1:11434/", "OLLAMA_MODEL": "qwen3"}).registry
    deployment = registry.deployments["ollama/ollama"]
    assert (None, "qwen3") == (deployment.unavailable, deployment.target)
    assert "http://127.0.0.1:11434/v1" == registry.providers["ollama"].base_url
    assert "needs VLLM_BASE_URL, which the environment does not set" == registry.providers["vllm"].unavailable
    assert ["ollama"] == [candidate.model for candidate in route(registry).candidates]


def test_long_context_prices() -> None:
    """Above 272k input tokens the newest families cost twice the input and half as much again for output."""
    registry = loaded({}).registry
    for name, model in registry.models.items():
        if name.startswith(("gpt-5.6", "gpt-6")):
            assert 1_050_000 == model.context_window
            for deployment in registry.by_model[name]:
                for price in deployment.prices:
                    (tier,) = price.tiers
                    assert 272_000 == tier.above_input_tokens
                    assert (2 * price.rates.input, price.rates.output * 3 / 2) == (tier.rates.input, tier.rates.output)


def test_azure_and_openai_have_prices_of_their_own() -> None:
    """They change on different days: the cut of gpt-5.6-luna reached Azure twelve days later."""
    deployments = loaded({}).registry.deployments
    azure, openai = (deployments[f"{name}/gpt-5.6-luna"].prices[0] for name in ("azure_openai", "openai"))
    assert date(2026, 8, 11) == azure.effective_from
    assert date(2026, 7, 30) == openai.effective_from


def test_a_price_that_changed_alone() -> None:
    """Only cache reads of claude-sonnet-5-5 became cheaper on 2026-10-07."""
    prices = loaded({}).registry.deployments["anthropic/claude-sonnet-5-5"].prices
    before, after = price_on(prices, date(2026, 10, 6)), price_on(prices, date(2026, 10, 7))
    assert before is not None
    assert after is not None
    assert ("0.20", "0.10") == (str(before.rates.cache_read), str(after.rates.cache_read))
    assert (before.rates.input, before.rates.output) == (after.rates.input, after.rates.output)


def test_everything_is_for_something() -> None:
    """Every model can be called in some way, and no embedding model falls back to another: their vectors differ."""
    registry = loaded({}).registry
    operations = {Capability.CHAT.value, Capability.EMBEDDINGS.value, "rerank"}
    for name, model in registry.models.items():
        assert model.capabilities & operations, name
        if Capability.EMBEDDINGS in model.capabilities:
            assert name not in registry.policy.fallbacks
    assert not registry.rules["embeddings"].others
