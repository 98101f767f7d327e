"""The agent as a service of systemd. See docs/security.md for its capabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gotrace.errors import UsageError
from gotrace.kernel.privileges import SERVE_CAPABILITIES
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.agent.settings import Settings

# Besides systemd's own group for services: what loads programs and holds them.
SYSTEM_CALLS = ("@system-service", "bpf", "perf_event_open", "process_vm_readv", "pidfd_open")

_STATE = "/var/lib/gotrace"
_PRIVATE = ("/tmp", "/var/tmp")

_UNIT = """\
# Made by `gotrace serve --systemd`.
[Unit]
Description=gotrace: pauses and memory of every Go process, for Prometheus
After=network.target

[Service]
Type=exec
ExecStartPre={command} serve --prepare
ExecStart={command} serve{options}
# The shell's own kill: a minimal Debian has no /bin/kill.
ExecReload={command} serve{options} --check
ExecReload=/bin/sh -c 'kill -HUP $MAINPID'
# With half of a slow CPU, the compiler takes minutes.
TimeoutStartSec=10min
Restart=on-failure
RestartSec=10
# Wrong settings stay wrong.
RestartPreventExitStatus=2

# Runs as root, with only the capabilities that docs/security.md lists. CAP_SYS_ADMIN has to be added to both
# lines on Linux before 6.10, and for explain_above where kernel.perf_event_paranoid is above 2 (Debian has 3).
DynamicUser=yes
AmbientCapabilities={capabilities}
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes
# For a spool; everything else is read-only.
StateDirectory=gotrace
CacheDirectory=gotrace
Environment=GOTRACE_CACHE=%C/gotrace

# The compiler of ExecStartPre takes 130 MB, the agent less than 64.
MemoryMax=256M
MemorySwapMax=0
CPUQuota=50%
TasksMax=64

ProtectSystem=strict
# gotrace may be installed there.
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallArchitectures=native
SystemCallFilter={calls}
SystemCallErrorNumber=EPERM
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def unit(command: Sequence[str], options: Sequence[str] = ()) -> str:
    """The text of gotrace.service. ``command`` starts gotrace and is absolute, ``options`` are those of `serve`."""
    return _UNIT.format(
        command=" ".join(map(_quoted, command)),
        options="".join(f" {_quoted(each)}" for each in options),
        capabilities=" ".join(SERVE_CAPABILITIES),
        calls=" ".join(SYSTEM_CALLS),
    )


def require_usable(settings: Settings, file: str | None) -> None:
    """That the service would have what its settings name. Raises UsageError."""
    for path in filter(None, (file, settings.token_file, settings.tls_certificate, settings.tls_key)):
        if _is_in(path, _PRIVATE):
            raise UsageError(f"the service cannot see {printable(path)}: it has a private /tmp", "move it to /etc/gotrace")
    if settings.spool and not _is_in(settings.spool, (_STATE,)):
        raise UsageError(f"the service cannot write {printable(settings.spool)}", f"write spool: {_STATE}/spool")


def _is_in(path: str, folders: Sequence[str]) -> bool:
    return any(os.path.commonpath((os.path.abspath(path), folder)) == folder for folder in folders)


def _quoted(word: str) -> str:
    """A word of a command line as systemd.service(5) reads it: with specifiers, variables and escapes."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return word if word and word.isprintable() and not set(word) & set(" '\";\\") else f'"{word}"'
