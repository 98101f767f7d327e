"""JSON Schemas, derived from the types of records: a field's type, its description, and what else it may be.

A record is a TypedDict whose fields are `typing.Annotated` with a description (a text), `Keys` or `OneOf`; what JSON has
of a dataclass are its fields.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

Schema = dict[str, Any]

_NAMES = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}


@dataclass(frozen=True)
class Keys:
    """The only names that an object's members may have."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class OneOf:
    """The only values."""

    values: tuple[str | None, ...]


def json_schema(title: str, records: Sequence[type]) -> Schema:
    """JSON Schema (2020-12) of one line of ndjson, which is one of ``records``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "oneOf": [schema_of(record) for record in records],
    }


def schema_of(kind: Any) -> Schema:
    """The schema of a type. Objects have the members that are declared, and no others."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _annotated(schema_of(arguments[0]), arguments[1:])
    if origin is Literal:
        return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        members = [schema_of(each) for each in arguments]
        if all(list(each) == ["type"] for each in members):
            return {"type": [each["type"] for each in members]}
        return {"anyOf": members}
    if origin in (list, tuple):
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if kind is Any:
        return {}
    if is_typeddict(kind):
        return _object(get_type_hints(kind, include_extras=True), kind.__required_keys__)
    if dataclasses.is_dataclass(kind):
        fields = get_type_hints(kind, include_extras=True)
        return _object(fields, fields)
    return {"type": _NAMES[kind]}


def _annotated(schema: Schema, notes: Sequence[Any]) -> Schema:
    for note in notes:
        if isinstance(note, str):
            schema = {**schema, "description": note}
        elif isinstance(note, Keys):
            schema = {**schema, "propertyNames": {"enum": list(note.names)}}
        elif isinstance(note, OneOf):
            schema = {"enum": list(note.values)}
    return schema


def _object(fields: dict[str, Any], required: Any) -> Schema:
    return {
        "type": "object",
        "properties": {name: schema_of(kind) for name, kind in fields.items()},
        "required": [name for name in fields if name in required],
        "additionalProperties": False,
    }
