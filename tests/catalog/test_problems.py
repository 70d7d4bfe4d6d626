"""Every mistake in a catalog is told, all at once, with its line, its path and what to do."""

from __future__ import annotations

import pytest

from shared.core.chat import Json
from tests.catalog_samples import ENVIRONMENT, GOOD, changed, problems

SMALL_PRICE = "prices: [{from: 2026-09-01, input: .1, output: .4, source: list}]"
FIRST_PRICE = "{from: 2026-09-01, input: 2.10, output: 8, source: list}"

MISTAKES: dict[str, tuple[str, str, str]] = {
    "unknown provider kind": ("kind: azure_openai", "kind: azure", "catalog.yaml:6: providers.azure.kind: must be one of"),
    "missing price": (f"        {SMALL_PRICE}\n", "", "models.small.deployments[0].prices: is missing"),
    "price without input": ("input: 2.10, ", "", "catalog.yaml:27: models.large.deployments[0].prices[0].input: is missing"),
    "chat price without output": ("input: .1, output: .4", "input: .1", "prices[0].output: is missing"),
    "negative price": ("input: 2.10", "input: -2.10", "prices[0].input: must be 0 or more"),
    "NaN price": ("input: 2.10", "input: .nan", "prices[0].input: must be a finite number"),
    "infinite price": ("input: 2.10", "input: .inf", "prices[0].input: must be a finite number"),
    "price in words": ("input: 2.10", "input: free", "prices[0].input: must be a finite number"),
    "price beyond reason": ("input: 2.10", "input: 1e90", "prices[0].input: must be 1000000 or less"),
    "price without source": ("output: .4, source: list", "output: .4", "prices[0].source: is missing"),
    "price without day of reading": (
        "output: .4, source: list",
        "output: .4, source: hearsay",
        "prices[0].read_on: is missing",
    ),
    "two prices of one day": ("from: 2026-01-01", "from: 2026-09-01", "prices[1].from: two prices start on this day"),
    "a day that does not exist": ("from: 2026-01-01", "from: 2026-02-30", "prices[1].from: must be a day that exists"),
    "negative weight": ("weight: 3", "weight: -3", "catalog.yaml:25: models.large.deployments[0].weight: must be 0 or more"),
    "fractional weight": ("weight: 3", "weight: 1.5", "weight: must be a whole number"),
    "boolean weight": ("weight: 3", "weight: true", "weight: must be a whole number"),
    "quoted weight": ("weight: 3", 'weight: "3"', "weight: must be a whole number"),
    "quality above 1": ("quality: 0.9", "quality: 9", "catalog.yaml:20: models.large.quality: must be 1 or less"),
    "NaN quality": ("quality: 0.9", "quality: nan", "models.large.quality: must be a finite number"),
    "negative latency": ("latency_ms: 1500", "latency_ms: -1", "models.large.latency_ms: must be 0 or more"),
    "empty window": ("context_window: 128_000", "context_window: 0", "models.large.context_window: must be 1 or more"),
    "output above window": ("max_output_tokens: 4096", "max_output_tokens: 200000", "is more than the context window"),
    "odd region": ("region: swedencentral", "region: Sweden Central!", "region: must be lower-case letters"),
    "unknown provider": ("- provider: azure\n", "- provider: azur\n", "there is no provider `azur` (did you mean `azure`?)"),
    "unknown field": ("quality: 0.9", "qualty: 0.9", "models.large.qualty: is not a known field; did you mean `quality`?"),
    "unknown section": ("policy:", "polices:", "polices: is not a known field; did you mean `policy`?"),
    "unknown capability": ("[chat, tools]", "[chat, tool]", "`tool` is not a known capability (did you mean `tools`?)"),
    "unknown model in a rule": ("preferred_models: [fast]", "preferred_models: [fsat]", "there is no model or alias `fsat`"),
    "unknown model in fallbacks": ("  large: [small]", "  large: [tiny]", "fallbacks.large[0]: there is no model or alias"),
    "unknown fallback source": ("  large: [small]", "  huge: [small]", "fallbacks.huge: there is no model or alias `huge`"),
    "unknown alias target": (
        "fast: small",
        "fast: tiny",
        "catalog.yaml:39: aliases.fast.to: there is no model or alias `tiny`",
    ),
    "alias circle": ("fast: small", "fast: best", "goes round in a circle: fast → best → fast"),
    "alias of itself": ("fast: small", "fast: fast", "goes round in a circle: fast → fast"),
    "alias hides a model": ("fast: small", "small: large", "aliases.small: there is a model of this name"),
    "alias takes the router's name": ("fast: small", "auto: small", "`auto` stands for the router's own choice"),
    "alias to nothing": ("fast: small", "fast: []", "aliases.fast.to: must not be empty"),
    "unknown arm": ("{model: large, weight: 1}", "{model: lrge, weight: 1}", "experiments[0].arms[0].model: there is no model"),
    "no weight at all": (
        "[{model: large, weight: 1}, {model: small, weight: 9}]",
        "[{model: large, weight: 0}]",
        "experiments[0].arms: all weights are 0",
    ),
    "two arms of one name": ("{model: small, weight: 9}", "{model: large, weight: 9}", "two arms have the same name"),
    "no arms": ("[{model: large, weight: 1}, {model: small, weight: 9}]", "[]", "experiments[0].arms: must not be empty"),
    "unknown objective": ("objective: cost", "objective: cheap", "policy.objective: must be one of cost, quality"),
    "no deadline": ("deadline_s: 60", "deadline_s: 0", "policy.deadline_s: must be more than 0"),
    "rule without task": ("- task: conversation\n    preferred", "- preferred", "routing_rules[0].task: is missing"),
    "retirement without source": (
        "    capabilities: [chat]\n",
        "    capabilities: [chat]\n    lifecycle: {retires_on: 2027-01-01}\n",
        "models.small.lifecycle.source: is missing",
    ),
    "model without deployments": (
        f"    deployments:\n      - provider: vendor\n        target: vendor/small-1\n        {SMALL_PRICE}\n",
        "",
        "models.small.deployments: is missing",
    ),
    "model without capabilities": ("    capabilities: [chat]\n", "", "models.small.capabilities: is missing"),
    "odd model name": ("  small:\n", "  sm all:\n", "models.sm all: the name must be letters"),
    "address without host": ("https://api.vendor.example/v1", "https:///v1", "base_url: must be an address"),
    "address with credentials": ("https://api.v", "https://me:pass@api.v", "base_url: must be an address"),
    "file address": ("https://api.vendor.example/v1", "file:///etc/passwd", "base_url: must be an address"),
    "no address": ("    base_url: https://api.vendor.example/v1\n", "", "providers.vendor.base_url: is missing"),
    "no credential": ("    api_key: ${VENDOR_KEY}\n", "", "providers.vendor.api_key: is missing; write ${NAME}"),
    "a header of ours": ("x-team:", "Authorization:", "headers.Authorization: is set by the gateway"),
    "bad reference": ("the best there is", "'the best ${there is}'", "has a `${` that is no reference"),
    "missing reference": ("region: swedencentral", "region: ${REGION}", "region: needs REGION; set it in the environment"),
    "list instead of mapping": ("  large: [small]", "  - large", "fallbacks: must be a mapping"),
    "text instead of list": ("[chat, tools]", "{a: 1}", "models.large.capabilities: must be a list"),
    "text instead of a model": (FIRST_PRICE, "cheap", "prices[0]: must be a mapping of fields"),
}


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told(old: str, new: str, expected: str) -> None:
    """The message has the place and says what to do; what is right beside it is not blamed."""
    found = problems(changed((old, new)))
    assert any(expected in problem for problem in found), found
    assert all(problem.startswith("catalog.yaml") for problem in found)
    assert len(found) <= 4, found


def test_every_problem_is_told_at_once_in_the_order_of_the_lines() -> None:
    """Mistakes in different sections, of form and of meaning, hide none of each other."""
    text = changed(
        ("kind: azure_openai", "kind: azur"),
        ("quality: 0.9", "quality: .nan"),
        ("weight: 3", "weight: -1"),
        ("fast: small", "fast: fast"),
        ("preferred_models: [fast]", "preferred_models: [nobody]"),
    )
    found = problems(text)
    assert [6, 20, 25, 39, 43] == [int(problem.split(":")[1]) for problem in found]


REFERENCES: dict[str, tuple[str, str, str]] = {
    "provider": (
        "        priority: 2\n        prices: [{from: 2026-09-01, input: 2, output: 8, source: list}]\n",
        "      - {provider: nope, weight: -3}\n",
        "models.large.deployments[2].provider: there is no provider `nope`",
    ),
    "capability": ("[chat, tools]", "[chat, tool]\n    qualty: 1", "capabilities[1]: `tool` is not a known capability"),
    "alias target": ("fast: small", "fast: {to: tiny, retired: so}", "aliases.fast.to: there is no model or alias `tiny`"),
    "alias targets": (
        "{to: [large, fast], note",
        "{to: [large, tiny, 'a b'], note",
        "aliases.best.to[1]: there is no model or alias `tiny`",
    ),
    "rule": (
        "    fallback_models: [large]",
        "    fallback_models: [large, lrge]\n    objective: cheap",
        "routing_rules[0].fallback_models[1]: there is no model or alias `lrge` (did you mean `large`?)",
    ),
    "fallback": ("large: [small]", "large: [{}, tiny]", "fallbacks.large[1]: there is no model or alias `tiny`"),
    "fallback source": ("large: [small]", "huge: {}", "fallbacks.huge: there is no model or alias `huge`"),
    "experiment": (
        "  - name: which\n",
        "  - enabled: so\n    models: [auto, nobody]\n",
        "experiments[0].models[1]: there is no model or alias `nobody`",
    ),
    "arm": (
        "{model: large, weight: 1}",
        "{model: lrge, weight: -1}",
        "experiments[0].arms[0].model: there is no model or alias `lrge`",
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), REFERENCES.values(), ids=REFERENCES)
def test_a_mistake_in_a_field_hides_no_wrong_name_beside_it(old: str, new: str, expected: str) -> None:
    """An entry that is refused for its form is still read for what it refers to, and only wrong names are blamed."""
    found = problems(changed((old, new)))
    assert any(expected in problem for problem in found), found
    assert len(found) > 1
    assert 1 == sum("there is no" in problem or "not a known capability" in problem for problem in found), found


def test_right_names_beside_a_mistake_are_not_blamed() -> None:
    """Also one that stands for the router's own choice."""
    text = changed(("weight: 3", "weight: -3"), ("  - name: which\n", "  - enabled: so\n    models: [auto, fast]\n"))
    found = problems(text)
    assert 3 == len(found), found
    assert not any("there is no" in problem for problem in found)


@pytest.mark.parametrize("section", ["providers", "models", "aliases"])
def test_a_section_that_can_not_be_read_blames_nobody_else(section: str) -> None:
    """What it would have named is not known, so nothing can be said to be missing from it."""
    text = GOOD.replace(f"\n{section}:\n", f"\n{section}: [so]\nold_{section}:\n")
    found = problems(text)
    assert 2 == len(found), found
    assert f"{section}: must be a mapping of names to entries" in found[0]
    assert f"old_{section}: is not a known field" in found[1]


@pytest.mark.parametrize("text", ["models: [broken", "models: {a: 1", "[]", "", "--- {}\n--- {}"])
def test_a_text_that_can_not_be_read_is_the_only_problem(text: str) -> None:
    """Registered models are not blamed for what may stand in it."""
    registered: dict[str, Json] = {"dyn-1": {"capabilities": ["chat"], "deployments": [{"provider": "openai", "prices": []}]}}
    found = problems(text, overlay=registered)
    assert 1 == len(found), found
    assert found[0].startswith("catalog.yaml")


def test_a_catalog_without_anything_is_refused() -> None:
    """An empty mapping is well-formed, but nothing can be served with it."""
    assert ("catalog.yaml:1: models: names no model; a catalog has at least one",) == problems("{}")


def test_nine_aliases_in_a_row_are_too_many() -> None:
    """The registry follows eight aliases; a longer chain is refused here, not lost there."""
    chain = "".join(f"  a{index}: a{index + 1}\n" for index in range(8)) + "  a8: small\n"
    assert any("aliases.a0.to: is more than 8 aliases away" in one for one in problems(changed(("  fast:", f"{chain}  fast:"))))
    shorter = "".join(f"  a{index}: a{index + 1}\n" for index in range(7)) + "  a7: small\n"
    assert () == problems(changed(("  fast:", f"{shorter}  fast:")))


def test_a_thousand_aliases_in_a_circle_are_told_quickly() -> None:
    """The search for circles does not explode."""
    names = 200
    web = "".join(f"  a{index}: [{', '.join(f'a{other}' for other in range(names))}]\n" for index in range(names))
    assert any("and" in one and "more" in one for one in problems(changed(("  fast:", f"{web}  fast:"))))


def test_two_deployments_of_one_name() -> None:
    """The second must be named; with a name it is fine."""
    twice = ("      - provider: vendor\n        priority: 2\n", "      - provider: azure\n        priority: 2\n")
    assert any("`azure/large` is already a deployment on line 23" in one for one in problems(changed(twice)))
    named = (twice[0], "      - provider: azure\n        name: large-2\n        priority: 2\n")
    assert () == problems(changed(named))


def test_a_second_rule_for_a_task() -> None:
    """Which of two rules should hold is not guessed."""
    text = changed(("fallbacks:\n", "  - {task: conversation}\nfallbacks:\n"))
    assert any("routing_rules[1].task: `conversation` already has a rule" in one for one in problems(text))


def test_custom_capabilities_must_be_listed() -> None:
    """A capability of one's own is allowed once it is listed."""
    assert () == problems(changed(("[chat, tools]", "[chat, rerank]")))
    text = changed(("[chat, tools]", "[chat, rerank]"), ("custom_capabilities: [rerank]\n", ""))
    assert any("`rerank` is not a known capability" in one for one in problems(text))


def test_no_secret_is_ever_shown() -> None:
    """Not when the credential itself is wrong, nor when its name is used in another place."""
    secret = "sk-very\nsecret-value"
    found = problems(GOOD, {**ENVIRONMENT, "VENDOR_KEY": secret})
    assert ("catalog.yaml:12: providers.vendor.api_key: must be printable ASCII on one line: it is sent as a header",) == found
    misplaced = problems(changed(("preferred_models: [fast]", "preferred_models: ['${VENDOR_KEY}']")))
    assert any("there is no model or alias `${VENDOR_KEY}`" in one for one in misplaced)
    assert "vendor-key-1" not in repr(misplaced)
