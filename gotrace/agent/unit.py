"""The agent as a service of systemd. See docs/security.md for its capabilities."""

from __future__ import annotations

from collections.abc import Sequence

from gotrace.kernel.privileges import SERVE_CAPABILITIES

# Besides systemd's own group for services: what loads programs and holds them.
SYSTEM_CALLS = ("@system-service", "bpf", "perf_event_open", "process_vm_readv", "pidfd_open")

_UNIT = """\
# Made by `gotrace serve --systemd`.
[Unit]
Description=gotrace: pauses and memory of every Go process, for Prometheus
After=network.target

[Service]
Type=exec
ExecStartPre={command} serve --prepare
ExecStart={command} serve{options}
Restart=on-failure
RestartSec=10
# Wrong settings stay wrong.
RestartPreventExitStatus=2

# No user of its own, and of root's rights those alone that docs/security.md lists.
DynamicUser=yes
AmbientCapabilities={capabilities}
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes
CacheDirectory=gotrace
Environment=GOTRACE_CACHE=%C/gotrace

# The compiler of ExecStartPre takes 130 MB, the agent less than 64.
MemoryMax=256M
MemorySwapMax=0
CPUQuota=50%
TasksMax=64

ProtectSystem=strict
# It may be installed there.
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


def _quoted(word: str) -> str:
    """A word of a command line as systemd.service(5) reads it: with specifiers, variables and escapes."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return word if word and word.isprintable() and not set(word) & set(" '\";\\") else f'"{word}"'
