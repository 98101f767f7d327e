"""How much memory the processor's TLB can map at once: its documented sizes, and an estimate from them.

A number is here only with a source that was read: the maker's manual, a text that quotes it, or what CPUID says on such a
processor. What was not found is left out (Cortex-A78, AmpereOne) or None. Part numbers: arch/arm64/include/asm/cputype.h;
x86 models: arch/x86/include/asm/intel-family.h and bsp_init_amd in arch/x86/kernel/cpu/amd.c.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

HUGE = 2 << 20  # bytes


@dataclass(frozen=True)
class Tlb:
    """A core's TLB, in entries. The second level of Arm's cores holds instructions too."""

    name: str
    l1: int | None  # first level, data, 4 KiB pages
    l2: int  # second level, 4 KiB pages
    l2_huge: int | None  # those of the second level that pages of 2 MiB may use; None: not documented where we looked
    source: str


@dataclass(frozen=True)
class Reach:
    """Of the memory on pages of one size: ``page`` in bytes, and the share that the second-level TLB can map at once."""

    page: int
    pages: int
    share: float | None  # 0 to 1; None: how many entries may hold such pages is not documented


_JIEGEC = "quoted at jia.je/hardware"
_ARM = {  # (implementer, part)
    (0x41, 0xD07): Tlb(
        "Cortex-A57", 32, 1024, 1024, "Cortex-A57 TRM 5.2.2, 5.2.3, quoted in pytorch/cpuinfo src/arm/tlb.c"
    ),
    (0x41, 0xD08): Tlb(
        "Cortex-A72", 32, 1024, 1024, "Cortex-A72 TRM (100095) 5.2.3; first level: Wikipedia, ARM Cortex-A72"
    ),
    (0x41, 0xD0B): Tlb("Cortex-A76", 48, 1280, 1280, "Cortex-A76 TRM (100798) A5.2"),
    (0x41, 0xD0C): Tlb("Neoverse N1", 48, 1280, 1280, "Neoverse N1 TRM (100616) 6.2, table 6-4"),
    (0x41, 0xD40): Tlb("Neoverse V1", None, 2048, None, "Chips and Cheese, Hot Chips 2023: Arm's Neoverse V2"),
    (0x41, 0xD49): Tlb("Neoverse N2", 44, 1280, None, "Chips and Cheese, Arm's Neoverse N2: Cortex A710 for Servers"),
    (0x41, 0xD4F): Tlb("Neoverse V2", 48, 2048, None, f"Neoverse V2 TRM (102375), {_JIEGEC}/2024/11/07/arm-neoverse-v2"),
    (0x41, 0xD84): Tlb("Neoverse V3", 96, 2048, None, f"Neoverse V3 TRM (107734), {_JIEGEC}, ARM Neoverse V3"),
}
_INTEL, _AMD = "GenuineIntel", "AuthenticAMD"
_X86 = (  # vendor, family, models (first to last)
    (
        (_INTEL, 6, ((0x55, 0x55),)),
        Tlb("Skylake-SP or Cascade Lake", 64, 1536, 1536, "CPUID leaf 2 (03h, c3h), Intel community 1371605"),
    ),
    (
        (_INTEL, 6, ((0x6A, 0x6A), (0x6C, 0x6C))),
        Tlb(
            "Ice Lake-SP", 64, 2048, 1024, "CPUID leaf 18h of an i7-1068NG7 (same core: Sunny Cove), urd00m/System-Projects"
        ),
    ),
    (
        (_INTEL, 6, ((0x8F, 0x8F),)),
        Tlb("Sapphire Rapids", 96, 2048, None, f"Intel on its core, Golden Cove, {_JIEGEC}/2025/01/10/intel-golden-cove"),
    ),
    (
        (_AMD, 0x17, ((0x30, 0x4F), (0x60, 0x7F), (0x90, 0x91), (0xA0, 0xAF))),
        Tlb("Zen 2", 64, 2048, 2048, "WikiChip, Zen 2; the kernel's log (CPUID 80000006h) of a Ryzen 9 3950X"),
    ),
    (
        (_AMD, 0x19, ((0x00, 0x0F), (0x20, 0x5F))),
        Tlb(
            "Zen 3",
            64,
            2048,
            2048,
            "Chips and Cheese, AMD's Zen 4, part 2; the kernel's log (CPUID 80000006h) of an EPYC 7763",
        ),
    ),
    (
        (_AMD, 0x19, ((0x10, 0x1F), (0x60, 0xAF))),
        Tlb("Zen 4", 72, 3072, 3072, "CPUID 80000005h and 80000006h, read on an EPYC of family 25, model 17"),
    ),
    (
        (_AMD, 0x1A, ((0x00, 0x2F), (0x40, 0x4F), (0x70, 0x7F))),
        Tlb("Zen 5", 96, 4096, None, f"AMD 58455, Software Optimization Guide for Zen5, {_JIEGEC}, AMD Zen 5"),
    ),
)


def processor(root: str = "/") -> Tlb | None:
    """The TLB of processor 0 (hybrid hosts have others too), None where it is not in the tables."""
    midr = _read(root, "sys/devices/system/cpu/cpu0/regs/identification/midr_el1")
    if midr:
        number = int(midr, 16)
        return _ARM.get((number >> 24 & 0xFF, number >> 4 & 0xFFF))
    fields: dict[str, str] = {}
    for key, value in re.findall(r"^(.*?)\s*:[ \t]*(.*)$", _read(root, "proc/cpuinfo"), re.MULTILINE):
        fields.setdefault(key, value)
    if "CPU part" in fields:
        return _ARM.get((int(fields.get("CPU implementer", "0"), 16), int(fields["CPU part"], 16)))
    vendor, family, model = fields.get("vendor_id"), int(fields.get("cpu family", -1)), int(fields.get("model", -1))
    for (of_vendor, of_family, models), tlb in _X86:
        if (vendor, family) == (of_vendor, of_family) and any(first <= model <= last for first, last in models):
            return tlb
    return None


def reach(tlb: Tlb, pages: dict[int, int]) -> tuple[Reach, ...]:
    """For each page size in bytes, of which ``pages`` holds the resident bytes: pages, and the share mapped at once.

    The share is that of entries times page size, as if the second level held nothing else. The truth is below it: pages
    of other sizes, instructions, the other thread of the core and, in a virtual machine, the hypervisor's own translations
    want entries as well, and an entry is not free to be anywhere. It may be above where several pages share one entry
    (AMD does that for neighbours). It says how far the TLB reaches, not how often it misses: that is up to the accesses.
    """
    found = []
    for page, resident in sorted(pages.items()):
        if resident > 0:
            entries = tlb.l2 if page < HUGE else tlb.l2_huge if page == HUGE else None
            share = None if entries is None else min(entries * page, resident) / resident
            found.append(Reach(page, -(-resident // page), share))
    return tuple(found)


def _read(root: str, path: str) -> str:
    try:
        with open(os.path.join(root, path)) as file:
            return file.read()
    except OSError:
        return ""
