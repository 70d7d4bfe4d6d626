"""What the Functions worker looks for: the one app, with every blueprint registered."""

from __future__ import annotations

import azure.functions as func

from functions import (
    chat_completions,
    completions,
    description,
    embeddings,
    fallbacks,
    feedback,
    health,
    keys,
    metrics,
    models,
    requests,
    routes,
    timers,
    usage,
)

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)  # OpenAI's clients send Bearer tokens: we authenticate

app.register_functions(chat_completions.BLUEPRINT)
app.register_functions(completions.BLUEPRINT)
app.register_functions(embeddings.BLUEPRINT)
app.register_functions(routes.BLUEPRINT)
app.register_functions(requests.BLUEPRINT)
app.register_functions(feedback.BLUEPRINT)
app.register_functions(models.BLUEPRINT)
app.register_functions(usage.BLUEPRINT)
app.register_functions(metrics.BLUEPRINT)
app.register_functions(keys.BLUEPRINT)
app.register_functions(health.BLUEPRINT)
app.register_functions(description.BLUEPRINT)
app.register_functions(fallbacks.BLUEPRINT)
app.register_functions(timers.BLUEPRINT)
