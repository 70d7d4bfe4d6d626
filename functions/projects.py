"""``/v1/projects``: requests and tokens per minute of whole projects, for the administrator."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, with_config
from starlette.responses import Response
from typing_extensions import TypedDict

from functions.endpoints import Access, Endpoint, blueprint
from functions.http import Call, endpoint
from functions.rendering import NO_STORE, json_response
from functions.validation import Schema
from shared.projects import MAX_LIMIT, Project

PerMinute = Annotated[int, Field(ge=1, le=MAX_LIMIT)]


@with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class ProjectRequest(TypedDict, total=False):
    """The limits of a project, over all its keys."""

    requests_per_minute: Annotated[PerMinute | None, Field(description="Absent means no limit.")]
    tokens_per_minute: Annotated[PerMinute | None, Field(description="Absent means no limit.")]


PROJECT: Final = Schema(ProjectRequest, "ProjectRequest")


async def put_project(call: Call) -> Response:
    """Set a project's limits."""
    body = call.json()
    PROJECT.check(body)
    project = Project(call.path("project"), body.get("requests_per_minute"), body.get("tokens_per_minute"))
    return json_response(_view(await call.gateway.projects.put(project)), headers=[NO_STORE])


async def list_projects(call: Call) -> Response:
    """List projects that have limits."""
    found = [_view(project) for project in await call.gateway.projects.list()]
    return json_response({"object": "list", "data": found}, headers=[NO_STORE])


async def delete_project(call: Call) -> Response:
    """Take a project's limits away."""
    name = call.path("project")
    await call.gateway.projects.remove(name)
    return json_response({"object": "project", "id": name, "deleted": True}, headers=[NO_STORE])


def _view(project: Project) -> dict[str, Any]:
    return {
        "object": "project",
        "id": project.name,
        "requests_per_minute": project.requests_per_minute,
        "tokens_per_minute": project.tokens_per_minute,
    }


ENDPOINTS: Final = (
    Endpoint(
        name="list_projects",
        method="GET",
        path="/v1/projects",
        handler=list_projects,
        summary="List projects that have limits",
        tag="Keys",
        access=Access.ADMIN,
        answers="Every project that has limits.",
    ),
    Endpoint(
        name="put_project",
        method="PUT",
        path="/v1/projects/{project}",
        handler=put_project,
        summary="Limit a project's requests and tokens per minute",
        tag="Keys",
        access=Access.ADMIN,
        body=PROJECT,
        answers="The limits, in force on every instance within seconds.",
    ),
    Endpoint(
        name="delete_project",
        method="DELETE",
        path="/v1/projects/{project}",
        handler=delete_project,
        summary="Take a project's limits away",
        tag="Keys",
        access=Access.ADMIN,
        answers="Which project has none any more.",
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)
