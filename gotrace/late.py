"""What is read of the installation only when it is needed: modules that functions import, and files of pictures.

Imports are late where a quick start depends on it. Who gives root back may not be able to read the installation any more
(a checkout under /root), so whatever may be needed then has to be there before: `keep_the_rest`.
"""

from __future__ import annotations

import contextlib
import dis
import gc
import importlib
import itertools
import os
import sys
from collections.abc import Collection, Iterator
from types import CodeType, FunctionType

_IMPORT = dis.opmap["IMPORT_NAME"]

# What these import late is for before a command runs: completion, schemas, the commands that were not asked for.
_OVER = {"gotrace.cli.main", "gotrace.cli.options"}
# For what is done as root alone, in children: compiling and disassembling. Large, too.
_OF_ROOT = {"bcc", "capstone"}
# What libraries import late themselves, in functions that we use: `numpy.unique` (since numpy 2.0).
_OF_LIBRARIES = {"numpy.ma"}


_TEXTS = (".css", ".html", ".js", ".svg")
_texts: dict[str, str] = {}


def own_text(path: str) -> str:
    """A text file of the installation. Raises OSError."""
    if path in _texts:
        return _texts[path]
    with open(path, encoding="utf-8") as file:
        return file.read()


def keep_the_rest(package: str, but: Collection[str] = ()) -> None:
    """Import what any function of ``package`` that is there would, then what functions of that would, and so on.

    And read its files for pictures. ``but`` are modules to leave out.
    """
    _import_the_rest(package, but)
    for folder, _, names in itertools.chain.from_iterable(map(os.walk, sys.modules[package].__path__)):
        for path in (os.path.join(folder, name) for name in names if name.endswith(_TEXTS)):
            _texts[path] = own_text(path)


def _import_the_rest(package: str, but: Collection[str]) -> None:
    seen: set[CodeType] = set()
    known = {*but, *sys.modules}
    while True:
        codes = [
            each.__code__
            for each in gc.get_objects()
            if type(each) is FunctionType
            and (each.__module__ or "").partition(".")[0] == package
            and each.__module__ not in _OVER
        ]
        names = {name for code in codes if code not in seen for name in _imported(code)}
        names |= {name for name in _OF_LIBRARIES if name.partition(".")[0] in sys.modules}
        names -= known
        if not names:
            return
        seen.update(codes)
        known |= names
        for name in sorted(names):
            if name.partition(".")[0] not in _OF_ROOT and not any(name.startswith(f"{each}.") for each in but):
                _try(name)


def _try(name: str) -> None:
    # It may be no module but something in one, or not be installed: who needs it is told so.
    with contextlib.suppress(ImportError):
        importlib.import_module(name)


def _imported(code: CodeType) -> Iterator[str]:
    """What the instructions of a function and those within it import, as it is named there; with what is taken from it."""
    if _IMPORT in code.co_code[::2]:
        module = ""
        for instruction in dis.get_instructions(code):
            if instruction.opname == "IMPORT_NAME":
                module = instruction.argval
                yield module
            elif instruction.opname == "IMPORT_FROM":
                yield f"{module}.{instruction.argval}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imported(constant)
