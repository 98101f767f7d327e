"""Protocol buffer messages from a table of their fields, for formats of which a few messages are written."""

from __future__ import annotations

import functools
from typing import Any

Table = dict[str, dict[str, tuple[int, str]]]

_SCALARS = {"double": 1, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "bytes": 12, "uint32": 13}
_MESSAGE, _OPTIONAL, _REPEATED = 11, 1, 3  # FieldDescriptorProto.Type and .Label


def messages(package: str, table: Table) -> dict[str, Any]:
    """A class for every message of ``table``: name -> field -> (number, type), with "repeated " before a list's type.

    A field that was set is written even if it is 0, as in proto2; repeated numbers are packed, as in proto3.
    """
    return _made(package, tuple((name, tuple(fields.items())) for name, fields in table.items()))


@functools.cache
def _made(package: str, table: tuple[tuple[str, tuple[tuple[str, tuple[int, str]], ...]], ...]) -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for name, fields in table:
        message = file.message_type.add(name=name)
        for field, (number, text) in fields:
            type_ = text.removeprefix("repeated ")
            added = message.field.add(name=field, number=number, label=_OPTIONAL if type_ == text else _REPEATED)
            if type_ in _SCALARS:
                added.type = _SCALARS[type_]
                added.options.packed = type_ != text and type_ not in ("string", "bytes")
            else:
                added.type, added.type_name = _MESSAGE, f".{package}.{type_}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name, _ in table}
