"""Models registered over HTTP: versioned, checked against the whole catalog, seen by all instances, kept over restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.catalog import CatalogSource
from shared.catalog.source import POLL_EVERY
from shared.core.errors import ConflictError, InvalidRequestError, NotFoundError
from shared.ports import Tables
from tests.catalog_samples import BLUE, changed, save
from tests.fakes import FakeClock

Opener = Callable[[], CatalogSource]
PRICE = {"from": "2026-09-01", "input": 0.3, "output": "1.20", "source": "list"}


def document(**more: object) -> dict[str, Any]:
    """Return a good model."""
    return {"capabilities": ["chat"], "deployments": [{"provider": "vendor", "prices": [PRICE]}], **more}


async def test_a_registered_model_serves_at_once(source: CatalogSource) -> None:
    """Here without waiting; its prices are exact although JSON has floats."""
    await source.refresh()
    before = source.current.version
    made = await source.register("mine", document(quality=0.7))
    assert ("mine", 1) == (made.name, made.version)
    found = source.current
    assert before != found.version
    assert 0.7 == found.models["mine"].quality
    rates = found.deployments["vendor/mine"].prices[0].rates
    assert ("0.3", "1.20") == (str(rates.input), str(rates.output))


async def test_another_instance_sees_it_within_two_seconds(open_source: Opener, clock: FakeClock) -> None:
    """By looking at one row; and a removal too."""
    here, there = open_source(), open_source()
    await here.refresh()
    await there.refresh()
    await here.register("mine", document())
    await there.refresh()
    assert "mine" not in there.current.models
    clock.seconds += POLL_EVERY
    await there.refresh()
    assert "mine" in there.current.models
    assert here.current.version == there.current.version
    await here.remove("mine")
    clock.seconds += POLL_EVERY
    await there.refresh()
    assert "mine" not in there.current.models


async def test_it_survives_a_restart(open_source: Opener) -> None:
    """The first refresh of a new process has it."""
    await open_source().register("mine", document())
    again = open_source()
    await again.refresh()
    assert "mine" in again.current.models


async def test_every_registration_is_a_version(source: CatalogSource, clock: FakeClock) -> None:
    """Versions go on after a removal; each keeps its document and its time."""
    await source.register("mine", document(quality=0.1))
    clock.seconds += 5
    await source.register("mine", document(quality=0.2), expected_version=1)
    await source.remove("mine", expected_version=2)
    made = await source.register("mine", document(quality=0.4), expected_version=0)
    assert 4 == made.version
    found = await source.versions("mine")
    assert [1, 2, 3, 4] == [model.version for model in found]
    assert [0.1, 0.2, None, 0.4] == [model.document and model.document["quality"] for model in found]
    assert 5 == found[1].registered_at - found[0].registered_at
    assert () == await source.versions("other")


@pytest.mark.parametrize("expected", [0, 2, 7])
async def test_an_unexpected_version_is_a_conflict(source: CatalogSource, expected: int) -> None:
    """Whoever read an older version must read again."""
    await source.register("mine", document())
    with pytest.raises(ConflictError, match="is at version 1"):
        await source.register("mine", document(), expected_version=expected)
    with pytest.raises(ConflictError, match="is not registered"):
        await source.register("other", document(), expected_version=1)
    assert 1 == len(await source.versions("mine"))


async def test_two_instances_at_once_lose_nothing(open_source: Opener) -> None:
    """Unconditional registrations all become versions; of conditional ones, one wins."""
    sources = [open_source() for _ in range(4)]
    for one in sources:
        await one.refresh()
    await asyncio.gather(*(one.register("mine", document()) for one in sources))
    assert [1, 2, 3, 4] == [model.version for model in await sources[0].versions("mine")]
    outcomes = await asyncio.gather(
        *(one.register("mine", document(), expected_version=4) for one in sources), return_exceptions=True
    )
    assert 3 == sum(isinstance(outcome, ConflictError) for outcome in outcomes)


async def test_different_models_at_once_are_all_seen_everywhere(open_source: Opener, clock: FakeClock) -> None:
    """Each was checked together with the others, and no instance misses one."""
    sources = [open_source() for _ in range(4)]
    for one in sources:
        await one.refresh()
    await asyncio.gather(*(one.register(f"mine-{index}", document()) for index, one in enumerate(sources)))
    clock.seconds += POLL_EVERY
    for one in sources:
        await one.refresh()
        assert {f"mine-{index}" for index in range(4)} <= set(one.current.models)


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no deployments": ("mine", {"capabilities": ["chat"]}, "models.mine.deployments: is missing"),
    "negative price": (
        "mine",
        document(deployments=[{"provider": "vendor", "prices": [{**PRICE, "input": -1}]}]),
        "registered model mine: models.mine.deployments[0].prices[0].input: must be 0 or more",
    ),
    "unknown provider": (
        "mine",
        document(deployments=[{"provider": "nobody", "prices": []}]),
        "models.mine.deployments[0].provider: there is no provider `nobody`",
    ),
    "several things": ("mine", document(quality=2, tasks="x"), "models.mine.quality: must be 1 or less"),
    "an alias's name": ("fast", document(), "there is a model of this name, which it would hide"),
    "the router's name": ("auto", document(), "stands for the router's own choice"),
    "an odd name": ("a b", document(), "the name must be letters"),
    "a reference": ("mine", document(description="${AZURE_KEY}"), "only the catalog's file may"),
    "an address": (
        "mine",
        document(deployments=[{"provider": "vendor", "prices": [], "base_url": "https://evil.example"}]),
        "endpoints stand in the catalog's file",
    ),
    "deep nesting": ("mine", document(tasks=eval("[" * 60 + "]" * 60)), "not nested deeper"),  # noqa: S307 — a constant
    "a price that is true": (
        "mine",
        document(deployments=[{"provider": "vendor", "prices": [{**PRICE, "input": True}]}]),
        "prices[0].input: must be a finite number",
    ),
}


@pytest.mark.parametrize(("name", "bad", "expected"), BAD.values(), ids=BAD)
async def test_a_registration_can_not_break_the_catalog(
    source: CatalogSource, name: str, bad: dict[str, Any], expected: str
) -> None:
    """It is refused with every problem, and nothing is stored."""
    await source.refresh()
    before = source.current
    with pytest.raises(InvalidRequestError) as refusal:
        await source.register(name, bad)
    assert expected in refusal.value.message
    assert before is source.current
    assert () == await source.versions(name)


@pytest.mark.parametrize("bad", [{"a": object()}, {"a": float("nan")}, {1: 2}, {"description": "x" * 300_000}, {"a": "\ud800"}])
async def test_what_is_no_json_is_refused(source: CatalogSource, bad: dict[str, Any]) -> None:
    """As an invalid request, whatever it is."""
    with pytest.raises(InvalidRequestError):
        await source.register("mine", bad)


async def test_it_may_replace_a_model_of_the_file(source: CatalogSource) -> None:
    """With all its deployments; when it is removed, the file's own is back."""
    await source.register("small", document(quality=0.99))
    assert 0.99 == source.current.models["small"].quality
    assert "small" == source.current.deployments["vendor/small"].target
    await source.remove("small")
    assert "vendor/small-1" == source.current.deployments["vendor/small"].target


async def test_what_the_catalog_needs_can_not_be_removed(source: CatalogSource, path: Path, clock: FakeClock) -> None:
    """A rule names it: first the rule, then the model."""
    await source.register("mine", document())
    save(path, changed(("fallback_models: [large]", "fallback_models: [mine]")))
    clock.seconds += 1
    assert ("mine",) == source.current.rules["conversation"].fallback_models
    with pytest.raises(ConflictError, match="there is no model or alias `mine`"):
        await source.remove("mine")
    assert "mine" in source.current.models


async def test_what_is_not_registered_can_not_be_removed(source: CatalogSource) -> None:
    """A model of the file is removed in the file."""
    with pytest.raises(NotFoundError, match="stands in the catalog's file"):
        await source.remove("large")
    with pytest.raises(NotFoundError, match="no registered model `mine`"):
        await source.remove("mine")


async def test_a_file_that_takes_away_what_a_registered_model_needs_is_refused(
    source: CatalogSource, path: Path, clock: FakeClock
) -> None:
    """The model serves on, and the problem names it."""
    await source.register("mine", document(deployments=[{"provider": "azure", "prices": [PRICE]}]))
    first = source.current
    save(path, BLUE)
    clock.seconds += 1
    assert first is source.current
    assert any("registered model mine: models.mine.deployments[0].provider" in one for one in source.problems)


async def test_a_registered_model_that_no_longer_fits_does_not_stop_a_start(
    source: CatalogSource, open_source: Opener, path: Path, clock: FakeClock
) -> None:
    """It is left out and said; what is registered after it works, and so does a change of the file."""
    await source.register("mine", document(deployments=[{"provider": "azure", "prices": [PRICE]}]))
    save(path, BLUE)
    again = open_source()
    await again.refresh()
    assert "mine" not in again.current.models
    assert any("registered model mine" in one for one in again.problems)
    await again.register("other", document())
    assert "other" in again.current.models
    save(path, BLUE.replace("weight: 3", "weight: 4"))
    clock.seconds += 1
    assert 4 == again.current.deployments["blue/large"].weight


async def test_registration_while_the_file_is_broken(source: CatalogSource, path: Path, clock: FakeClock) -> None:
    """It is checked against, and served with, the last good text."""
    await source.refresh()
    save(path, "models: [")
    clock.seconds += 1
    await source.register("mine", document())
    assert "mine" in source.current.models
    assert source.problems


async def test_a_broken_file_is_the_only_problem_beside_a_registration(
    source: CatalogSource, path: Path, clock: FakeClock
) -> None:
    """A model that was registered well is not blamed for a file that can't be read."""
    await source.register("mine", document())
    save(path, "models: [broken")
    clock.seconds += 1
    (problem,) = source.problems
    assert problem.startswith(f"{path}:2: is not valid YAML")
    assert "mine" in source.current.models


async def test_every_problem_of_a_registration_is_told(source: CatalogSource) -> None:
    """Those of the form and those of what it refers to."""
    bad = document(deployments=[{"provider": "vendor", "weight": -3}, {"provider": "nope", "prices": 1}])
    with pytest.raises(InvalidRequestError) as refusal:
        await source.register("mine", bad)
    for place in ("[0].weight: must be", "[0].prices: is missing", "[1].prices: must be", "[1].provider: there is no provider"):
        assert f"models.mine.deployments{place}" in refusal.value.message


async def test_a_refusal_does_not_say_where_the_file_is(source: CatalogSource, path: Path, clock: FakeClock) -> None:
    """Its name and the line are enough for the caller."""
    await source.register("mine", document())
    save(path, changed(("fallback_models: [large]", "fallback_models: [mine]")))
    clock.seconds += 1
    with pytest.raises(ConflictError) as refusal:
        await source.remove("mine")
    assert "models.yaml:44: routing_rules[0]" in refusal.value.message
    assert str(path.parent) not in refusal.value.message


async def test_a_large_document_is_kept_whole(open_source: Opener, tables: Tables) -> None:
    """Over the 64 KiB that one property holds; the version that holds it can be made again."""
    first = open_source()
    await first.register("mine", document(tasks=[f"task-{index:04}" for index in range(9000)]))
    await first.refresh()
    again = open_source()
    await again.refresh()
    assert 9000 == len(again.current.models["mine"].tasks)
    third = await open_source().at_version(first.current.version)
    assert third is not None
    assert again.current.models == third.models
    assert tables
