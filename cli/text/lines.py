"""Records as JSON, for commands whose other format is a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gotrace.run.files import Sink


def write_json(stream: Sink, format_: str, records: Sequence[Mapping[str, Any]]) -> bool:
    """As "json", all of them in one, or "ndjson", a line each; False where it is neither."""
    if format_ == "json":
        stream.write(json.dumps(records, indent=1) + "\n")
    elif format_ == "ndjson":
        stream.write("".join(f"{json.dumps(each)}\n" for each in records))
    else:
        return False
    return True
