"""Machines whose CPU is lent: they are fast until their credits are spent, so that a short measurement says too much."""

from __future__ import annotations

import re

# (provider, pattern of the type, what it is, where its vendor says so)
_FAMILIES = (
    (
        "aws",
        r"t(2|3|3a|4g)\..+",
        "spends CPU credits",
        "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/burstable-performance-instances.html",
    ),
    (
        "azure",
        r"(Standard_)?B\d+.*",
        "spends CPU credits",
        "https://learn.microsoft.com/azure/virtual-machines/sizes/general-purpose/b-family",
    ),
    (
        "gcp",
        r"e2-(micro|small|medium)|f1-micro|g1-small",
        "shares its cores and bursts",
        "https://cloud.google.com/compute/docs/general-purpose-machines#e2-shared-core",
    ),
)
# A machine that saved all it can, 24 hours of a baseline of 40 % of its CPUs, at full use: 24 h x 0.4 / (1 - 0.4).
PAST_CREDITS_NS = 16 * 3600 * 10**9
FULL_USE = 0.9


def burstable(provider: str | None, instance: str | None) -> tuple[str, str] | None:
    """What such a machine does, and the source of that; None for a machine that is not known as one."""
    for of, pattern, what, source in _FAMILIES:
        if provider == of and re.fullmatch(pattern, instance or ""):
            return what, source
    return None
