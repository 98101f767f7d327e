"""Weighted stacks for https://www.speedscope.app.

The format is what speedscope publishes as https://www.speedscope.app/file-format-schema.json (and in its npm package,
with which a test compares), in its "sampled" form: stacks, each with a weight.
"""

from __future__ import annotations

import json

import numpy as np

import gotrace
from gotrace.analysis.flame import Profile

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
# of the units that speedscope knows, those that a profile's can be
_UNITS = ("nanoseconds", "bytes")


def speedscope(profile: Profile, name: str) -> bytes:
    """``profile`` as a file, shown as ``name``; the weights are the profile's, in its unit if speedscope knows it.

    A function is one frame wherever on the stack and at whatever line it is, inlined or not: that is what speedscope adds
    up by. One without a source file has its module instead. Stacks keep their order.
    """
    numbers: dict[tuple[str, str], int] = {}
    merged = [numbers.setdefault((frame.function, frame.file or frame.module), len(numbers)) for frame in profile.frames]
    path = np.array(merged, np.int64)[profile.path].tolist()
    ends = profile.ends.tolist()
    told = {
        "$schema": _SCHEMA,
        "name": name,
        "exporter": f"gotrace {gotrace.__version__}",
        "shared": {
            "frames": [{"name": function, **({"file": file} if file else {})} for function, file in numbers],
        },
        "profiles": [
            {
                "type": "sampled",
                "name": name,
                "unit": profile.unit if profile.unit in _UNITS else "none",
                "startValue": 0,
                "endValue": int(profile.weights.sum()),
                "samples": [path[begin:end] for begin, end in zip([0, *ends], ends, strict=False)],
                "weights": profile.weights.tolist(),
            }
        ],
    }
    # Characters beyond ASCII are escaped: a name need not be valid Unicode.
    return json.dumps(told, separators=(",", ":")).encode()
