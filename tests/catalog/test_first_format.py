"""The first format's own example loads unchanged and means what it always meant."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from shared.catalog import load, parse
from shared.core.chat import Objective
from shared.core.health import HealthSnapshot
from shared.core.registry import Registry
from shared.core.requirements import Hints, chat_requirements, embeddings_requirements
from shared.core.router import plan
from tests.catalog_samples import problems

EXAMPLE = (Path(__file__).parent / "data" / "model_config.yaml").read_text(encoding="utf-8")
SIMULATOR = "http://127.0.0.1:9999"


def simulated() -> Registry:
    """Return the example as the simulator serves it."""
    return parse(EXAMPLE, source="model_config.yaml", environment={}, simulator_url=SIMULATOR)


def order(registry: Registry, task: str) -> list[str]:
    """Return the models of the plan for a task, in order."""
    if task == "embeddings":
        requirements = embeddings_requirements({"input": "text"})
    else:
        payload = {"messages": [{"role": "user", "content": "text"}], "temperature": 0.7}
        requirements = chat_requirements(payload, hints=Hints(task_type=task))
    route = plan(requirements, registry, HealthSnapshot(), day=date(2026, 11, 22), draw=0.5)
    return [candidate.model for candidate in route.candidates]


def test_it_loads_with_one_warning() -> None:
    """Its unknown fallback model is left out, and said."""
    loaded = load(EXAMPLE, source="model_config.yaml", environment={})
    warning = (
        "model_config.yaml:61: routing_rules[1].fallback_models[0]: there is no model `text-embedding-3-small`; it is left out"
    )
    assert (warning,) == loaded.warnings
    assert ["gpt-4", "gpt-3.5-turbo", "llama-2-70b", "text-embedding-ada-002", "code-davinci-002"] == list(
        loaded.registry.models
    )


def test_its_models_keep_their_meaning() -> None:
    """Capabilities are tasks, prices per thousand become prices per million exactly, the other numbers stay."""
    found = simulated()
    model, price = found.models["gpt-4"], found.deployments["azure_openai/gpt-4"].prices[0]
    assert ("text-generation", "reasoning", "code", "analysis") == model.tasks
    assert {"chat", "tools", "json_object"} == model.capabilities
    assert (8192, 800.0, 0.95) == (model.context_window, model.latency_ms, model.quality)
    assert (Decimal(30), Decimal(60)) == (price.rates.input, price.rates.output)
    turbo = found.deployments["azure_openai/gpt-3.5-turbo"].prices[0]
    assert (Decimal("1.5"), Decimal(2)) == (turbo.rates.input, turbo.rates.output)
    embedder = found.models["text-embedding-ada-002"]
    assert (frozenset({"embeddings"}), 1536) == (embedder.capabilities, embedder.dimensions)
    assert Decimal("0.1") == found.deployments["azure_openai/text-embedding-ada-002"].prices[0].rates.input


def test_the_source_of_its_prices_is_the_name_of_the_file() -> None:
    """Callers see it: where the file is on the server is not theirs to know."""
    found = parse(EXAMPLE, source="/srv/app/model_config.yaml", environment={}, simulator_url=SIMULATOR)
    sources = {price.source for deployment in found.deployments.values() for price in deployment.prices}
    assert {"model_config.yaml: cost_per_1k_tokens"} == sources


def test_a_registered_model_does_not_change_how_it_is_read() -> None:
    """A model registered over it in today's format leaves its rules as lenient, and as cheap, as they were."""
    mine = {"capabilities": ["chat"], "deployments": [{"provider": "azure_openai", "prices": []}]}
    found = parse(EXAMPLE, source="model_config.yaml", environment={}, overlay={"mine": mine})
    assert "mine" in found.models
    assert simulated().rules == found.rules


def test_a_mistake_does_not_change_how_it_is_read() -> None:
    """The provider of a model with a mistake is looked up; the fallback model that is left out is still no problem."""
    wrong = EXAMPLE.replace("input: 0.03", "input: -0.03", 1).replace("provider: azure_openai", "provider: azure_opanai", 1)
    found = problems(wrong, {})
    assert 2 == len(found), found
    assert "models.gpt-4.provider: there is no provider of this name (did you mean `azure_openai`?)" in found[0]
    assert "models.gpt-4.cost_per_1k_tokens.input: must be 0 or more" in found[1]


def test_a_model_without_its_price_does_not_change_how_the_others_are_read() -> None:
    """It is no model of the format then, but the rules are still read as leniently."""
    found = problems(EXAMPLE.replace("cost_per_1k_tokens", "cost_per_1k_token", 1), {})
    assert found
    assert not any("text-embedding-3-small" in problem for problem in found), found


def test_its_rules_mean_preferred_then_fallback_then_cost() -> None:
    """Whatever no rule names comes last, the cheapest first."""
    found = simulated()
    assert ["code-davinci-002", "gpt-4", "gpt-3.5-turbo", "llama-2-70b"] == order(found, "code-generation")
    assert ["gpt-3.5-turbo", "llama-2-70b", "gpt-4", "code-davinci-002"] == order(found, "conversation")
    assert ["text-embedding-ada-002"] == order(found, "embeddings")
    assert Objective.COST is found.policy.objective
    assert all(rule.objective is Objective.COST for rule in found.rules.values())


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("code-generation", {"code-davinci-002", "gpt-4"}),
        ("summarization", {"gpt-3.5-turbo", "gpt-4"}),
        ("embeddings", {"text-embedding-ada-002"}),
    ],
)
def test_its_own_performance_cases(task: str, expected: set[str]) -> None:
    """The first choice is one of the models its authors expected."""
    assert order(simulated(), task)[0] in expected


def test_the_simulator_serves_all_of_it() -> None:
    """Also the models of a provider that no longer exists; without the simulator the reason is said."""
    assert all(deployment.unavailable is None for deployment in simulated().deployments.values())
    real = parse(EXAMPLE, source="model_config.yaml", environment={})
    assert (
        "GitHub Models was shut down on 2026-07-30 and answers 410" == real.deployments["github_models/llama-2-70b"].unavailable
    )
    needs = "needs AZURE_OPENAI_ENDPOINT, which the environment does not set"
    assert needs == real.deployments["azure_openai/gpt-4"].unavailable


def test_it_is_served_for_real_with_the_usual_names() -> None:
    """AZURE_OPENAI_ENDPOINT alone is enough: without a key, Entra."""
    found = parse(EXAMPLE, source="model_config.yaml", environment={"AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com"})
    assert None is found.deployments["azure_openai/gpt-4"].unavailable
    assert "https://r.openai.azure.com" == found.providers["azure_openai"].base_url


MISTAKES: dict[str, tuple[str, str, str]] = {
    "unknown preferred model": ('["code-davinci-002", "gpt-4"]', '["code-davinci-003"]', "there is no model or alias"),
    "unknown provider": (
        "provider: github_models",
        "provider: gitlab_models",
        "models.llama-2-70b.provider: there is no provider",
    ),
    "negative price": (
        "input: 0.03",
        "input: -0.03",
        "catalog.yaml:7: models.gpt-4.cost_per_1k_tokens.input: must be 0 or more",
    ),
    "no input price": ("      input: 0.03\n", "", "models.gpt-4.cost_per_1k_tokens.input: is missing"),
    "no output price": ("      output: 0.06\n", "", "models.gpt-4.cost_per_1k_tokens.output: is missing"),
    "NaN": ("quality_score: 0.95", "quality_score: .nan", "models.gpt-4.quality_score: must be a finite number"),
    "misspelt": ("quality_score: 0.95", "quality: 0.95", "models.gpt-4.quality: is not a known field"),
}


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_its_mistakes_are_told_too(old: str, new: str, expected: str) -> None:
    """With the lines of the file as it is written, not of what it is translated to."""
    assert old in EXAMPLE
    found = problems(EXAMPLE.replace(old, new, 1), {})
    assert any(expected in problem for problem in found), found


def test_an_unknown_fallback_is_a_problem_in_the_extended_format() -> None:
    """Only a file that is wholly in the first format is read so leniently."""
    modern = "  new:\n    capabilities: [chat]\n    deployments: [{provider: azure_openai, prices: []}]\n"
    found = problems(EXAMPLE.replace("models:\n", f"models:\n{modern}", 1), {})
    assert any("text-embedding-3-small" in problem for problem in found), found
