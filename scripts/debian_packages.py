"""Debian's packages, of any release and architecture, with this machine's apt; what is installed here is left alone."""

from __future__ import annotations

import os
import re
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def _mirror() -> str:
    """The Debian mirror this machine uses, or Debian's own."""
    for path in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        found = re.search(r"https?://\S*/debian/?(?=\s)", path.read_text() if path.is_file() else "")
        if found:
            return found[0]
    return "http://deb.debian.org/debian"


def apt_environment(suite: str, arch: str, state: Path) -> dict[str, str]:
    """In which apt-get is one of ``suite`` and ``arch`` (Debian's name), its lists and settings in the folder ``state``."""
    for needed in ("lists/partial", "archives/partial"):
        (state / needed).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
    (state / "apt.conf").write_text(f"""
        #clear APT::Architectures;
        #clear APT::Update::Post-Invoke;
        #clear APT::Update::Post-Invoke-Success;
        APT {{ Architecture "{arch}"; Architectures {{ "{arch}"; }}; Install-Recommends "0"; Sandbox::User "root"; }};
        Acquire {{ Languages "none"; Retries "3"; }};
        Debug::NoLocking "1";
        Dir::State "{state}";
        Dir::State::Lists "{state}/lists";
        Dir::State::status "{state}/status";
        Dir::Etc::sourcelist "{state}/sources.list";
        Dir::Etc::sourceparts "-";
        Dir::Etc::preferencesparts "-";
        Dir::Cache "{state}";
        Dir::Cache::archives "{state}/archives";
    """)
    return {**os.environ, "APT_CONFIG": str(state / "apt.conf")}
