"""What a call can cost at most: which calls have a bound at all, and how many tokens they can be billed.

One rule for everything that holds money to a limit, the ``budget_limit`` of a request and the hard budgets of its key alike.
"""

from __future__ import annotations

from typing import Final

from shared.core.chat import Operation, Requirements
from shared.core.pricing import STANDARD_TIERS
from shared.core.registry import Model, Price, RoutingPolicy

IMAGE_BOUND: Final = 75_000
"""The most tokens one picture is billed by a model that does not say (``image_tokens``): OpenAI takes up to 30,000 patches of
32 × 32 pixels at `detail: original`, and bills each as at most 2.46 tokens; the 8 tiles of gpt-4o-mini are 48,169."""

WINDOW_BOUND: Final = 2_000_000
"""More than a model reads whose context window the catalog does not give."""

FILE_BOUND: Final = 200_000
"""The least that is taken for documents and recordings, should the catalog give too small a context window."""

CHEAPER_TIERS: Final = frozenset({"flex", "batch"})
"""Service tiers that bill at most the standard rates wherever there are any."""

SURCHARGED: Final = frozenset(
    {"enable_search", "inference_geo", "models", "plugins", "search_parameters", "speed", "web_search_options"}
)
"""Fields that change who answers, or what it is billed at, behind the price list's back."""


def input_bound(requirements: Requirements, model: Model) -> int:
    """Return the most tokens of input a call to a model can be billed.

    No provider bills more than its model can read, so documents and recordings are at most a context window, as are pictures.
    """
    window = model.context_window or WINDOW_BOUND
    if requirements.unsized:
        return requirements.input_tokens_bound + max(FILE_BOUND, window)
    if not requirements.images:
        return requirements.input_tokens_bound
    return requirements.input_tokens_bound + min(requirements.images * (model.image_tokens or IMAGE_BOUND), window)


def output_bound(requirements: Requirements, model: Model, policy: RoutingPolicy) -> int:
    """Return the most tokens one choice can have; 0 for an operation without output.

    That is the caller's limit, else the model's own, else the catalog's default. A request with a ``budget_limit`` and no limit
    on its output is held to the default, or it would be priced at the longest answer there could be: who sends it must send
    this bound along.
    """
    if requirements.operation is Operation.EMBEDDINGS:
        return 0
    if requirements.max_output_tokens is not None:
        return requirements.max_output_tokens
    default, own = policy.default_max_output_tokens, model.max_output_tokens
    if own is None:
        return default
    return own if requirements.budget_limit is None else min(own, default)


def billed_output(requirements: Requirements, bound: int) -> int:
    """Return the most tokens of output a call can be billed whose choices have at most ``bound`` tokens each."""
    return (bound + requirements.prediction_bound) * requirements.n


def surcharges(requirements: Requirements) -> frozenset[str]:
    """Return the fields of a request because of which it may be billed what the price list does not have."""
    return requirements.surcharged | (SURCHARGED & requirements.parameters)


def is_priced(price: Price, service_tier: str | None) -> bool:
    """Say whether the rates of a service tier are known, or are below those that are."""
    return service_tier in STANDARD_TIERS or service_tier in CHEAPER_TIERS or service_tier in price.service_tiers


def is_bounded(requirements: Requirements, price: Price | None) -> bool:
    """Say whether there is a most that a request can cost at a price."""
    return price is not None and is_priced(price, requirements.service_tier) and not surcharges(requirements)
