"""Protocol buffer messages from a table of their fields, for formats of which a few messages are written."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Table = dict[str, dict[str, tuple[int, str]]]

_SCALARS = {"double": 1, "int64": 3, "uint64": 4, "int32": 5, "fixed64": 6, "bool": 8, "string": 9, "bytes": 12}
_SCALARS |= {"uint32": 13, "sfixed64": 16, "sint32": 17, "sint64": 18}
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5  # wire types
_FIXED = {"double": struct.Struct("<d").pack, "fixed64": struct.Struct("<Q").pack, "sfixed64": struct.Struct("<q").pack}
_SHORT = [bytes((value,)) for value in range(0x80)]
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


class Encoder:
    """Writes messages of a table by itself, without the library, for a process that has to be small.

    As with `messages`, numbers in a list are packed, and a field that was set is written even if it is 0.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._fields = {
            message: {name: self._field(number, type_) for name, (number, type_) in fields.items()}
            for message, fields in table.items()
        }

    def __call__(self, message: str, values: Mapping[str, Any]) -> bytes:
        """A message with these fields; a message in a field is a mapping, or bytes encoded before. None is left out."""
        fields = self._fields[message]
        return b"".join([fields[name](value) for name, value in values.items() if value is not None])

    def _field(self, number: int, text: str) -> Callable[[Any], bytes]:
        """What writes a field: its key, and its value."""
        type_ = text.removeprefix("repeated ")
        of_length = varint(number << 3 | _LEN)
        if type_ in ("string", "bytes") or type_ in self._table:

            def one(value: Any) -> bytes:
                if type_ == "string":
                    value = value.encode()
                data: bytes = value if isinstance(value, bytes) else self(type_, value)
                return of_length + varint(len(data)) + data

            return one if type_ is text else lambda values: b"".join(map(one, values))
        number_of = _NUMBERS.get(type_, varint)
        if type_ is text:
            key = varint(number << 3 | (_I64 if type_ in _FIXED else _VARINT))
            return lambda value: key + number_of(value)

        def packed(values: Any) -> bytes:
            data = b"".join(map(number_of, values))
            return of_length + varint(len(data)) + data if data else b""

        return packed


def _zigzag(value: int) -> bytes:
    return varint(value << 1 ^ value >> 63)  # 0, -1, 1, -2 are 0, 1, 2, 3


def varint(value: int) -> bytes:
    """``value`` in as few bytes of 7 bits as it needs; a negative one as 64 bits of two's complement."""
    if 0 <= value < 0x80:
        return _SHORT[value]
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decoded(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number, and what it holds undeciphered. Raises ValueError for what is no message."""
    at = 0
    while at < len(data):
        key, at = _varint_at(data, at)
        kind, value = key & 7, 0
        if kind == _VARINT:
            value, at = _varint_at(data, at)
            yield key >> 3, value
            continue
        if kind not in (_I64, _LEN, _I32):
            raise ValueError(f"wire type {kind}")
        size, at = _varint_at(data, at) if kind == _LEN else (8 if kind == _I64 else 4, at)
        if at + size > len(data):
            raise ValueError("cut off")
        yield key >> 3, data[at : at + size]
        at += size


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("cut off")


_NUMBERS: dict[str, Callable[[Any], bytes]] = {**_FIXED, "sint32": _zigzag, "sint64": _zigzag}
