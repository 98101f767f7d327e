"""How long an example of hypothesis's takes depends on what else the machine has to do."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("gotrace", deadline=None)
settings.load_profile("gotrace")
