"""The API's description as a page: server-rendered, with nothing fetched from elsewhere."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, Final

import orjson

_STATIC: Final = Path(__file__).parent / "static"

EXAMPLES: Final[dict[str, Any]] = {
    "ChatRequest": {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}]},
    "CompletionRequest": {"prompt": "Write a Python function to sort a list", "task_type": "code-generation"},
    "EmbeddingsRequest": {"input": "A text to embed."},
    "ResponseRequest": {"model": "auto", "input": "Plan a week in Lisbon."},
    "BatchRequest": {"input_file_id": "file-…", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    "RouteRequest": {"model": "auto", "messages": [{"role": "user", "content": "Summarize this article."}]},
    "FeedbackRequest": {"request_id": "req_…", "rating": 5, "feedback": "Right on the point."},
    "KeyRequest": {"project": "my-team", "name": "my application"},
}


def page(document: dict[str, Any]) -> str:
    """Return the HTML of an OpenAPI document."""
    style, script = (_STATIC / "docs.css").read_text(), (_STATIC / "docs.js").read_text()
    info, schemas = document["info"], document["components"]["schemas"]
    sections = []
    for tag in (tag["name"] for tag in document["tags"]):
        rows = [
            _operation(path, verb, operation, schemas)
            for path, operations in document["paths"].items()
            for verb, operation in operations.items()
            if tag in operation["tags"] and "x-alias-of" not in operation
        ]
        sections.append(f"<h2>{escape(tag)}</h2>{''.join(rows)}")
    shapes = "".join(
        f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f'<div class="in"><p>{_prose(schema.get("description", ""))}</p>{_fields(schema)}</div></details>'
        for name, schema in sorted(schemas.items())
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} API</title><style>{style}</style></head><body><h1>{escape(info['title'])}</h1>"
        f'<p>{escape(info["description"])}</p><p class="dim">Version {escape(info["version"])} · '
        '<a href="/openapi.json">openapi.json</a></p><p><label>Key for trying things out (kept in this page only)'
        '<input id="key" type="password" autocomplete="off"></label></p>'
        f"{''.join(sections)}<h2>Schemas</h2>{shapes}<script>{script}</script></body></html>"
    )


def _operation(path: str, verb: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    verb = verb.upper()
    parameters = operation["parameters"]
    answers = "".join(
        f"<tr><td><code>{escape(status)}</code></td><td>{_prose(answer['description'])}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    note = f"<p>{_prose(operation['description'])}</p>" if "description" in operation else ""
    if aliases := operation.get("x-aliases"):
        note += f'<p class="dim">Also at {", ".join(f"<code>{escape(alias)}</code>" for alias in aliases)}.</p>'
    return (
        f'<details><summary><span class="verb {verb}">{verb}</span><code>{escape(path)}</code>'
        f'<span class="dim">{_prose(operation["summary"])}</span></summary><div class="in">{note}'
        f'<form data-path="{escape(path)}" data-verb="{verb}">{_parameters(parameters)}{_body(operation, schemas)}'
        f"<p><button>Send</button></p><pre hidden></pre></form><table>{answers}</table></div></details>"
    )


def _prose(text: str) -> str:
    """Return text as HTML, what stands between backticks as code."""
    return "".join(
        f"<code>{escape(part)}</code>" if number % 2 else escape(part) for number, part in enumerate(text.split("`"))
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(parameter['name'])}</code>{' *' if parameter['required'] else ''}</td>"
        f'<td>{_prose(parameter["description"])}</td><td><input name="{escape(parameter["name"])}" '
        f'data-in="{parameter["in"]}" aria-label="{escape(parameter["name"])}"></td></tr>'
        for parameter in parameters
    )
    return f"<table>{rows}</table>" if rows else ""


def _body(operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    if "requestBody" not in operation:
        return ""
    content = operation["requestBody"]["content"]
    if form := content.get("multipart/form-data"):
        return f"<p>Body: a form (<code>multipart/form-data</code>), to be sent by a client.</p>{_fields(form['schema'])}"
    name = content["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
    example = orjson.dumps(EXAMPLES.get(name, {}), option=orjson.OPT_INDENT_2).decode()
    return (
        f'<p>Body: <a href="#schema-{escape(name)}"><code>{escape(name)}</code></a> '
        f"{_prose(schemas[name].get('description', ''))}</p>"
        f'<textarea rows="{min(12, example.count(chr(10)) + 2)}" aria-label="Body">{escape(example)}</textarea>'
    )


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' *' if name in required else ''}</td>"
        f"<td><code>{_type(field)}</code></td><td>{_prose(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table>{rows}</table>" if rows else ""


def _type(field: dict[str, Any]) -> str:
    """Return a JSON schema's type in a few words, with links to other schemas (HTML)."""
    if reference := field.get("$ref"):
        name = escape(reference.rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}">{name}</a>'
    for several in ("anyOf", "oneOf"):
        if several in field:
            return " | ".join(_type(one) for one in field[several])
    if "enum" in field or "const" in field:
        return " | ".join(escape(orjson.dumps(value).decode()) for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"[{_type(field.get('items', {}))}]"
    return escape(str(field.get("type", "any"))) + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None and high is None:
        return ""
    return f" {'' if low is None else low}…{'' if high is None else high}"
