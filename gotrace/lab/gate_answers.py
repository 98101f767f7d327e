"""What a gate answers over HTTP, whoever listens: to Argo Rollouts, which asks, and to Flagger, which posts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.analysis.stats.verdicts import Outcome
    from gotrace.lab.gate import Gated

MOST_BODY = 64 << 10
TEXT, JSON = "text/plain; charset=utf-8", "application/json"


class Answer(NamedTuple):
    """Status, body, and Content-Type."""

    status: int
    text: str
    kind: str = TEXT


NO_CANARY = Answer(400, "the body is not a canary webhook in JSON: name, namespace, phase, metadata\n")


def asked(gated: Gated | str, inconclusive: Outcome = "inconclusive") -> Answer:
    """To GET: 200 with whatever verdict, as Argo takes another status for an error of the measurement; 503 without one.

    A text is why there is none; ``inconclusive`` as in `Gated.counted`.
    """
    if isinstance(gated, str):
        return Answer(503, json.dumps({"error": printable(gated)}), JSON)
    return Answer(200, json.dumps({"verdict": gated.counted(inconclusive), "result": gated.to_json()}), JSON)


def posted(gated: Gated | str, inconclusive: Outcome = "inconclusive") -> Answer:
    """To POST: 200 for a pass, else 409, with the reason as the body, which Flagger writes into its events."""
    if isinstance(gated, str):
        return Answer(503, f"{printable(gated)}\n")
    return Answer(200 if gated.counted(inconclusive) == "pass" else 409, f"{printable(gated.sentence)}\n")


def canary_of(body: bytes) -> str | None:
    """What Flagger's webhook is about, for the log: "namespace/name phase". None if it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    words = [found.get(name, "") for name in ("namespace", "name", "phase")]
    metadata = found.get("metadata")
    if not all(isinstance(each, str) for each in words) or not (metadata is None or isinstance(metadata, dict)):
        return None
    namespace, name, phase = (printable(each[:253]) for each in words)
    return f"{namespace}/{name} {phase}".rstrip()
