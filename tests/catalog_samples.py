"""A small good catalog for tests, and how to spoil it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shared.catalog import parse
from shared.core.chat import Json
from shared.core.errors import ConfigurationError
from shared.core.registry import Registry

GOOD = """\
custom_capabilities: [rerank]
sources:
  list: {where: the price list, read_on: 2026-09-27}
providers:
  azure:
    kind: azure_openai
    base_url: ${AZURE_ENDPOINT}
    api_key: ${AZURE_KEY}
  vendor:
    kind: openai_compatible
    base_url: https://api.vendor.example/v1
    api_key: ${VENDOR_KEY}
    headers: {x-team: "${TEAM:-core}"}
models:
  large:
    capabilities: [chat, tools]
    tasks: [conversation]
    context_window: 128_000
    max_output_tokens: 4096
    quality: 0.9
    latency_ms: 1500
    deployments:
      - provider: azure
        region: swedencentral
        weight: 3
        prices:
          - {from: 2026-09-01, input: 2.10, output: 8, source: list}
          - {from: 2026-01-01, input: 3, output: 12, source: list, read_on: 2026-01-02}
      - provider: vendor
        priority: 2
        prices: [{from: 2026-09-01, input: 2, output: 8, source: list}]
  small:
    capabilities: [chat]
    deployments:
      - provider: vendor
        target: vendor/small-1
        prices: [{from: 2026-09-01, input: .1, output: .4, source: list}]
aliases:
  fast: small
  best: {to: [large, fast], note: the best there is}
routing_rules:
  - task: conversation
    preferred_models: [fast]
    fallback_models: [large]
fallbacks:
  large: [small]
experiments:
  - name: which
    arms: [{model: large, weight: 1}, {model: small, weight: 9}]
policy:
  objective: cost
  deadline_s: 60
"""
ENVIRONMENT = {"AZURE_ENDPOINT": "https://res.openai.azure.com/", "AZURE_KEY": "azure-key-1", "VENDOR_KEY": "vendor-key-1"}


def changed(*edits: tuple[str, str]) -> str:
    """Return the good catalog with edits, each of which must find its place once."""
    text = GOOD
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def registry(text: str = GOOD, environment: Mapping[str, str] = ENVIRONMENT, **more: str) -> Registry:
    """Return what a text describes."""
    return parse(text, source="catalog.yaml", environment=environment, simulator_url=more.get("simulator_url"))


BLUE = GOOD.replace("  azure:", "  blue:").replace("provider: azure", "provider: blue")
"""The good catalog with another name for one provider."""


def save(path: Path, text: str) -> None:
    """Write a catalog's file."""
    path.write_text(text, encoding="utf-8")


UNTOLD = "catalog.yaml: an error without a problem"


def problems(
    text: str, environment: Mapping[str, str] = ENVIRONMENT, overlay: Mapping[str, Json] | None = None
) -> tuple[str, ...]:
    """Return what is wrong with a text; empty when nothing is."""
    try:
        parse(text, source="catalog.yaml", environment=environment, overlay=overlay or {})
    except ConfigurationError as error:
        return error.problems or (UNTOLD,)
    return ()
