"""A schema that checks a parsed JSON object where it stands, and names the field at fault as OpenAI does.

Nothing is converted: the caller's object goes on as it came, so what a schema does not know is not lost. Schemas choose between
shapes by tags that begin with ``~``; those are left out of the field's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from shared.core.errors import InvalidRequestError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MAX_SHOWN: Final = 60
"""Characters of a caller's value or key that an error message repeats."""

_SENTENCES: Final = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "finite_number": "must be a finite number",
    "string_pattern_mismatch": "has characters that are not allowed here, or is too long",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} items",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
}

_TAG_PROBLEMS: Final = frozenset({"union_tag_invalid", "union_tag_not_found"})


class Schema:
    """What a request body must look like: it checks, and ``adapter`` describes it for ``/openapi.json``."""

    __slots__ = ("_validate", "adapter", "name")

    def __init__(self, form: Any, name: str) -> None:
        self.name = name
        self.adapter: TypeAdapter[Any] = TypeAdapter(form)
        self._validate = self.adapter.validator.validate_python

    def check(self, value: object) -> None:
        """Raise `InvalidRequestError` naming the first field at fault."""
        try:
            self._validate(value)
        except ValidationError as error:
            raise _refusal(error.errors(include_url=False)) from None


def _refusal(problems: list[ErrorDetails]) -> InvalidRequestError:
    first, others = problems[0], len(problems) - 1
    param = field_name(first["loc"])
    if first["type"] in _TAG_PROBLEMS:
        param, said = _tag_problem(param, first)
    else:
        said = _SENTENCES.get(first["type"], first["msg"]).format_map(first.get("ctx", {}))
    more = f" There {'is' if others == 1 else 'are'} {others} more like this." if others else ""
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    name = f"`{param}`" if param else "The body"
    return InvalidRequestError(f"{name} {said}.{more}", param=param or None, code=code)


def field_name(path: tuple[int | str, ...]) -> str:
    """Return a path as OpenAI writes it: ``messages[0].content``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.startswith("~"):
            text += f".{part[:MAX_SHOWN]}" if text else part[:MAX_SHOWN]
    return text


def _tag_problem(param: str, problem: ErrorDetails) -> tuple[str, str]:
    """Return the field and the sentence for an object whose ``type`` or ``role`` is missing or unknown."""
    given, context = problem["input"], problem.get("ctx", {})
    if not isinstance(given, dict):
        return param, "must be an object"
    field = "role" if "role" in context["discriminator"] else "type"
    name = f"{param}.{field}"
    if field not in given:
        return name, "is required"
    if not isinstance(given[field], str):
        return name, "must be a string"
    known = context["expected_tags"].replace("'", "").replace("~", "")
    known = known.replace("instruction", "system, developer")
    return name, f"is {given[field][:MAX_SHOWN]!r}; it must be one of {known}"
