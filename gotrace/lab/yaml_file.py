"""Files that people write, in YAML: read into a msgspec struct, and what is wrong with one is said with its place.

A struct is to have ``forbid_unknown_fields=True``: a key that is misspelt must not be taken for one that is left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from gotrace.errors import UsageError
from gotrace.text import printable

T = TypeVar("T")

_MOST_BYTES = 1 << 20
_TWICE = "appears twice"

# msgspec's names of types, and those of people who write files.
_TYPES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "keys with values",
    "null": "nothing",
}


def read(path: str, kind: type[T], schema: str) -> T:
    """The file ``path`` as a ``kind``, whose key "schema" has to be ``schema``. Raises UsageError."""
    name = printable(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}", "check the path and its permissions") from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{name} has more than 1 MiB", f"check that it is a {schema} file")
    return parse(data, Path(path).name, kind, schema)


def parse(data: bytes, name: str, kind: type[T], schema: str) -> T:
    """The text of the file ``name`` as a ``kind``. Raises UsageError with the line, or the path of the key."""
    name = printable(name)
    found = _loaded(data, name)
    if not isinstance(found, dict):
        raise UsageError(f"{name} holds no keys", f"it must begin with `schema: {schema}`")
    said = found.get("schema")
    if said != schema:
        what = f"is of {printable(str(said))}" if said is not None else "has no key schema"
        raise UsageError(f"{name} {what}", f"this gotrace reads `schema: {schema}`")
    return converted(found, kind, name)


def converted(found: Any, kind: type[T], name: str, at: str = "") -> T:
    """What was read of the file ``name`` as a ``kind``; ``at`` is the path of its key. Raises UsageError with the path."""
    import msgspec

    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        what, place, path = str(error).partition(" - at `$")
        text = f"{what} - at `$.{at}{path or '`'}" if at else f"{what}{place}{path}"
        like = "" if at else _like(path, kind)
        raise UsageError(f"{name}: {_told(text)}", like or _hint(text, kind, name)) from None


def _loaded(data: bytes, name: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """YAML without keys that stand twice, of which PyYAML would take the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.tag.endswith(":merge"):
                    continue
                word = self.construct_object(key, deep=True)
                if isinstance(word, str) and word in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {printable(word)} {_TWICE}", key.start_mark
                    )
                seen.add(word if isinstance(word, str) else id(key))
            return super().construct_mapping(node, deep)  # type: ignore[no-any-return, unused-ignore]

    try:
        return yaml.load(data, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = printable(error.problem or error.context or "it cannot be read")
        twice = problem.endswith(_TWICE)
        hint = "remove one of them" if twice else "it has to be YAML, in which indentation matters"
        raise UsageError(f"{name}{where}: {problem}", hint) from None
    except yaml.YAMLError as error:  # of characters
        raise UsageError(f"{name} is not text: {printable(str(error).splitlines()[0])}", "write it as UTF-8") from None
    except RecursionError:
        raise UsageError(f"{name} is nested too deeply", "no key needs such nesting") from None
    except ValueError as error:  # of a date that is none
        raise UsageError(f"{name}: {printable(str(error))}", "quote values that are not dates") from None


_TOLD = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`(?P<path>.*)`)?$", re.S)


def _told(error: str) -> str:
    """msgspec's words, the place first: "steps[2].baseline: there is no key 'run'"."""
    match = _TOLD.match(error)
    assert match is not None
    what, path = match["what"], (match["path"] or "").removeprefix("$").removeprefix(".")
    if key := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        what = f"there is no key {printable(key[1])!r}"
    elif key := re.fullmatch(r"Object missing required field `(.*)`", what):
        what = f"the key {printable(key[1])!r} is missing"
    else:
        what = re.sub("`([^`]*)`", lambda names: " or ".join(_TYPES.get(e, e) for e in names[1].split(" | ")), what)
        what = printable(what[:1].lower() + what[1:]).replace("`", "")
    return f"{printable(path)}: {what}" if path else what


def _like(path: str, kind: type[Any]) -> str:
    """How the key of the struct at ``path`` (".key`", ".key[...]`") may be written, by its example or its default."""
    import typing

    import msgspec

    key = re.match(r"\.(\w+)(\[\.\.\.\]|\[\d+\])?`$", path)
    if key is None or not issubclass(kind, msgspec.Struct):
        return ""
    found = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    if (field := found.get(key[1])) is None:
        return ""
    metas = getattr(typing.get_type_hints(kind, include_extras=True)[field.name], "__metadata__", ())
    examples = [example for meta in metas for example in meta.examples or ()]
    example = examples[0] if examples else field.default
    if example is msgspec.NODEFAULT or example in ("", None):
        return ""
    text = f"[{', '.join(example)}]" if isinstance(example, list) else str(example)
    return f"write it like {key[1]}: {text.lower() if isinstance(example, bool) else text}"


def _hint(error: str, kind: type[Any], name: str) -> str:
    if key := re.search(r"unknown field `(.*?)`", error):
        import difflib

        if key[1] in _keys(kind):
            return f"the key belongs to another part of {name}"
        if near := difflib.get_close_matches(key[1], sorted(_keys(kind)), 1):
            return f"did you mean {near[0]}?"
    return f"correct it in {name}"


def _keys(kind: Any, seen: set[Any] | None = None) -> set[str]:
    """The names of all fields of a struct and of the structs in it."""
    import typing

    import msgspec

    seen = seen if seen is not None else set()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind in seen:
            return set()
        seen.add(kind)
        fields = msgspec.structs.fields(kind)
        return {each.encode_name for each in fields}.union(*(_keys(each.type, seen) for each in fields))
    return set().union(*(_keys(each, seen) for each in typing.get_args(kind)))
