"""Every trigger there is: what the Functions worker and the local host both serve."""

from __future__ import annotations

from typing import Final

import azure.functions as func

from functions import (
    background_chains,
    batches,
    budgets,
    chains,
    chat_completions,
    completions,
    description,
    embeddings,
    fallbacks,
    feedback,
    files,
    health,
    keys,
    metrics,
    models,
    projects,
    prometheus,
    requests,
    responses,
    routes,
    suggestions,
    timers,
    usage,
)

BLUEPRINTS: Final[tuple[func.Blueprint, ...]] = (
    chat_completions.BLUEPRINT,
    completions.BLUEPRINT,
    embeddings.BLUEPRINT,
    background_chains.BLUEPRINT,
    routes.BLUEPRINT,
    responses.BLUEPRINT,
    requests.BLUEPRINT,
    feedback.BLUEPRINT,
    files.BLUEPRINT,
    batches.BLUEPRINT,
    models.BLUEPRINT,
    usage.BLUEPRINT,
    suggestions.BLUEPRINT,
    metrics.BLUEPRINT,
    prometheus.BLUEPRINT,
    keys.BLUEPRINT,
    projects.BLUEPRINT,
    budgets.BLUEPRINT,
    health.BLUEPRINT,
    description.BLUEPRINT,
    fallbacks.BLUEPRINT,
    timers.BLUEPRINT,
    chains.BLUEPRINT,
)


def registered() -> func.FunctionApp:
    """Return a new app with every trigger. Its functions may be asked for once."""
    app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)  # OpenAI's clients send Bearer tokens: we authenticate
    for blueprint in BLUEPRINTS:
        app.register_functions(blueprint)
    return app
