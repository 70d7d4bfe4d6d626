"""What an endpoint is: one row that registers the trigger, decides who may call it and describes it in ``/openapi.json``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import azure.functions as func

from shared.core.access import Role

if TYPE_CHECKING:
    from starlette.responses import Response

    from functions.http import Call, PublicCall
    from functions.validation import Schema

Handler = Callable[["Call"], Awaitable["Response"]]
PublicHandler = Callable[["PublicCall"], Awaitable["Response"]]
Trigger = Callable[..., Awaitable["Response"]]
"""Takes a request; that of a durable row also ``client``, what the binding of Durable Functions gives."""


class Access(StrEnum):
    """The least role that may call an endpoint: ``access=Access.ADMIN`` in its row.

    A row that says nothing is for viewers when it reads (GET), and for members otherwise: administration has to say ADMIN.
    Whatever the role, everybody but administrators sees their own project only (`functions.scopes`).
    """

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"


ALLOWED: Final[Mapping[Access, frozenset[Role]]] = {
    Access.VIEWER: frozenset({Role.VIEWER, Role.MEMBER, Role.ADMIN}),
    Access.MEMBER: frozenset({Role.MEMBER, Role.ADMIN}),
    Access.ADMIN: frozenset({Role.ADMIN}),
}
"""The roles that each access takes. A role that is in no line may do nothing."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query or path parameter, for the description. ``schema`` is its JSON schema."""

    name: str
    description: str
    place: str = "query"
    required: bool = False
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route with its handler. ``path`` is OpenAPI's form; a parameter named ``{*name}`` takes the rest of the path.

    ``aliases`` are further paths of the same handler (Azure OpenAI's); ``answers`` describes the 200. The handler of a
    ``durable`` row finds the engine of chains in `Call.engine`; that of one which does not have its body read reads it itself.
    ``form`` is the JSON schema of a body that is multipart/form-data, and ``also`` what is answered under other statuses than
    the usual one and those of errors, both for the description.
    """

    name: str
    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    access: Access | None = None
    body: Schema | None = None
    body_required: bool = True
    parameters: tuple[Parameter, ...] = ()
    answers: str = "The answer."
    media_types: tuple[str, ...] = ("application/json",)
    aliases: tuple[str, ...] = ()
    status: int = 200
    durable: bool = False
    reads_body: bool = True
    form: Mapping[str, Any] | None = None
    also: Mapping[str, str] = field(default_factory=dict)

    @property
    def least(self) -> Access:
        """The least role that may call."""
        return self.access or (Access.VIEWER if self.method == "GET" else Access.MEMBER)


@dataclass(frozen=True, slots=True)
class PublicEndpoint:
    """A route that needs no key: it can be called by anybody who reaches the gateway, so it tells nothing about it."""

    name: str
    method: str
    path: str
    handler: PublicHandler
    summary: str
    tag: str
    answers: str = "The answer."
    media_types: tuple[str, ...] = ("application/json",)
    listed: bool = True
    status: int = 200


AnyEndpoint = Endpoint | PublicEndpoint


def blueprint(endpoints: tuple[AnyEndpoint, ...], wrap: Callable[[AnyEndpoint], Trigger]) -> func.Blueprint:
    """Return the triggers of some endpoints, one function for each path and method."""
    made = func.Blueprint()  # type: ignore[no-untyped-call]  # the library is half typed
    for row in endpoints:
        paths = (row.path, *row.aliases) if isinstance(row, Endpoint) else (row.path,)
        for number, path in enumerate(paths):
            trigger = wrap(row)
            name = row.name if number == 0 else f"{row.name}_{number + 1}"
            route = made.route(
                route=path.removeprefix("/"),
                trigger_arg_name="request",
                methods=[row.method],
                auth_level=func.AuthLevel.ANONYMOUS,
            )
            built = route(trigger)
            if isinstance(row, Endpoint) and row.durable:
                built = made.generic_input_binding(arg_name="client", type="durableClient")(built)
            made.function_name(name)(built)
    return made
