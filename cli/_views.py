"""Every view by its name, as a recording names those it was made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gotrace.cli._mem_cycles import Cycles
from gotrace.cli._mem_faults import Faults
from gotrace.cli._mem_looks import Looks
from gotrace.cli._placement import Placement
from gotrace.cli._translation import Translation
from gotrace.cli._watch import View

if TYPE_CHECKING:
    from gotrace.recording.reader import Recording

_VIEWS: dict[str, type[View]] = {view.name: view for view in (Looks, Cycles, Faults, Placement, Translation)}


def recorded(source: Recording) -> list[View]:
    """The views that a recording was made for."""
    return [_VIEWS[name](**options) for name, options in source.header["views"].items() if name in _VIEWS]
