"""The OpenAPI description of the read API, made from the forms of its answers.

Owns: the routes, parameters and summaries of the description. Does not know: who answers.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rillcast.observability.api_forms import AlarmList, Forecast, MixtureOf, Problem, SilentList, Status, StreamList

ROOT: Final = "/api/v1"
MAX_LIMIT: Final = 1_000
DEFAULT_LIMIT: Final = 100
TROUBLES: Final = ("alarm", "silence", "any")
ALARM_STATES: Final = ("open", "closed", "all")
SCOPES: Final = ("group", "member")
_REFERENCE: Final = "#/components/schemas/{model}"


def openapi() -> dict[str, Any]:
    """Return the description of the API (OpenAPI 3.1)."""
    forms: list[type[BaseModel]] = [Status, StreamList, AlarmList, SilentList, MixtureOf, Forecast, Problem]
    _, schemas = models_json_schema([(form, "serialization") for form in forms], ref_template=_REFERENCE)
    text = {"schema": {"type": "string"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rillcast",
            "version": version("rillcast"),
            "description": "The newest forecasts of one member of a Rillcast service. It changes nothing.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": ROOT}],
        "security": [{}, {"token": []}],
        "paths": {
            "/status": {"get": _operation("status", "The state of this member", Status)},
            "/streams": {
                "get": _operation(
                    "listStreams",
                    "Streams with the status of their newest event, by id",
                    StreamList,
                    HTTPStatus.BAD_REQUEST,
                    parameters=[
                        _scope(),
                        _limit("Largest number of streams on a page."),
                        {"name": "after", "in": "query", "description": "Only streams after this id."} | text,
                        {"name": "prefix", "in": "query", "description": "Only streams whose id begins like this."}
                        | text,
                        {
                            "name": "contains",
                            "in": "query",
                            "description": "Only streams whose id has this part, in capital or small letters.",
                        }
                        | text,
                        {
                            "name": "trouble",
                            "in": "query",
                            "description": "Only streams with an open alarm, or without events, or either of them.",
                            "schema": {"type": "string", "enum": list(TROUBLES)},
                        },
                    ],
                )
            },
            "/alarms": {
                "get": _operation(
                    "listAlarms",
                    "Alarms of streams, open ones first",
                    AlarmList,
                    HTTPStatus.BAD_REQUEST,
                    parameters=[
                        _scope(),
                        _limit("Largest number of alarms."),
                        {
                            "name": "state",
                            "in": "query",
                            "description": "Which alarms are listed.",
                            "schema": {"type": "string", "enum": list(ALARM_STATES), "default": "all"},
                        },
                    ],
                )
            },
            "/silent": {
                "get": _operation(
                    "listSilentStreams",
                    "Streams without events, the last that was heard first",
                    SilentList,
                    HTTPStatus.BAD_REQUEST,
                    parameters=[_scope(), _limit("Largest number of streams.")],
                )
            },
            "/mixture": {
                "get": _operation(
                    "getMixture",
                    "What forecasts of experts are made of",
                    MixtureOf,
                    HTTPStatus.BAD_REQUEST,
                    HTTPStatus.NOT_FOUND,
                    parameters=[
                        {
                            "name": "unique_id",
                            "in": "query",
                            "description": "A stream that the live page charts; without it, the mean of some streams.",
                        }
                        | text
                    ],
                )
            },
            "/streams/{unique_id}": {
                "get": _operation(
                    "getForecast",
                    "The newest forecast of a stream",
                    Forecast,
                    HTTPStatus.NOT_FOUND,
                    parameters=[
                        _scope(),
                        {
                            "name": "unique_id",
                            "in": "path",
                            "required": True,
                            "description": "The stream's id, URL-encoded.",
                        }
                        | text,
                    ],
                )
            },
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Required if http.token is set."}
            },
        },
    }


def _scope() -> dict[str, Any]:
    choice = {"type": "string", "enum": list(SCOPES), "default": SCOPES[0]}
    return {
        "name": "scope",
        "in": "query",
        "description": "All members that http.peers names, or the member that is asked, alone.",
        "schema": choice,
    }


def _limit(description: str) -> dict[str, Any]:
    bounds = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
    return {"name": "limit", "in": "query", "description": description, "schema": bounds}


def _operation(
    name: str,
    summary: str,
    form: type[BaseModel],
    *problems: HTTPStatus,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    responses = {HTTPStatus.OK: ("The answer.", form)} | {
        status: (status.phrase, Problem) for status in (*problems, HTTPStatus.UNAUTHORIZED)
    }
    described = {
        str(status.value): {
            "description": description,
            "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model=shown.__name__)}}},
        }
        for status, (description, shown) in responses.items()
    }
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": described}
    return operation | ({"parameters": parameters} if parameters else {})
