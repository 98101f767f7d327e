"""Where a start can be divided, against Go's own disassembler, for both architectures."""

from __future__ import annotations

import re
import subprocess

import pytest

import debian
import targets
from gotrace.binary import code
from gotrace.binary.elf import Elf
from gotrace.binary.program import GoProgram
from gotrace.binary.startup import BOOTSTRAP, bootstrap_steps, init_loop

CASES = [
    (version, arch, flavour)
    for version in targets.MATRIX
    for arch in ("amd64", "arm64")
    for flavour in ("default", "pie", "noopt", "pgo")
    if flavour in targets.flavours_of(version, arch)
    and (flavour == "default" or version in ("1.19.8", "1.22.10", "1.27.3"))
]
everything = pytest.mark.parametrize(("version", "arch", "flavour"), CASES)

# what every release does, in this order
ALWAYS = ["check", "args", "osinit", "schedinit", "mallocinit", "modulesinit", "typelinksinit", "itabsinit", "goargs"]
ALWAYS += ["gcinit", "procresize", "newproc", "mstart"]
NO_STEP = re.compile(
    r"throw|fatal|abort|exit|write|lock|unlock|morestack|print|panic|Panic|badctxt|gcWriteBarrier|acquirem|releasem|^\(?R?[0-9A-Z]+\)?$"
)


def disassembled(path, symbol):
    """(address, mnemonic, operands) as `go tool objdump` has them."""
    found = []
    for line in targets.go_tool("objdump", "-s", f"^{re.escape(symbol)}(.abi0)?$", path):
        fields = line.split("\t")
        if line.startswith("TEXT") or not line.strip():
            continue
        words = [field for field in fields if field.strip()]
        name, _, operands = words[-1].strip().partition(" ")
        found.append((int(words[1], 16), name, operands.strip()))
    return found


@everything
def test_bootstrap_is_divided_at_the_calls_that_objdump_shows(version, arch, flavour):
    path = targets.build("gcload", version, flavour, arch)
    theirs = {}
    for symbol in BOOTSTRAP:
        theirs |= {at: what for at, name, what in disassembled(path, symbol) if name == "CALL"}
    with GoProgram.open(path) as program:
        steps = bootstrap_steps(program)
    for callee, site in steps:
        assert theirs[site.address].removesuffix("(SB)").removesuffix(".abi0") == callee
        assert site.emulated
    ours = {site.address for _, site in steps}
    left_out = {what for at, what in theirs.items() if at not in ours}
    assert not {what for what in left_out if not NO_STEP.search(what)}
    names = [callee.removeprefix("runtime.") for callee, _ in steps]
    assert [name for name in names if name in ALWAYS] == ALWAYS


@everything
def test_the_loop_over_init_functions_is_the_only_one_of_its_kind(version, arch, flavour):
    path = targets.build("gcload", version, flavour, arch)
    with GoProgram.open(path) as program:
        loop = init_loop(program)
    around = disassembled(path, loop.site.symbol)
    at = next(number for number, (address, _, _) in enumerate(around) if address == loop.site.address)
    address, jump, target = around[at]
    # the condition is "unsigned less": BCC and BLO are one instruction
    assert jump == ("JA" if arch == "amd64" else "BCC") and loop.site.emulated
    # it leads back to an indirect call: that of the init function
    words = re.fullmatch(r"(-\d+)\(PC\)", target)
    back = address + 4 * int(words[1]) if words else int(target, 16)
    assert back < address
    assert "CALL" in [name for each, name, operands in around if back <= each < address and "(SB)" not in operands]
    assert loop.nfns_offset == (16 if version.startswith("1.19.") else 4)
    # the registers, by Go's names for them: rsi is SI, x4 is R4
    task, index = (name[1:].upper() if arch == "amd64" else f"R{name[1:]}" for name in (loop.task, loop.index))
    load, compare = around[at - 2][2], around[at - 1][2]
    assert f"{loop.nfns_offset}({task})" in (re.sub("0x([0-9a-f]+)", lambda m: str(int(m[1], 16)), f"{load} {compare}"))
    assert index in re.split(r"\W+", compare)


@pytest.mark.skipif(targets.EMULATED, reason="nothing can be fetched there")
@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_where_the_dynamic_linker_says_how_far_it_is(suite, arch):
    """Its calls of _dl_debug_state, as binutils disassembles them; since glibc 2.41 they are one jump (in trixie)."""
    (path,) = [each for each in debian.unpacked(suite, arch, "libc6").rglob("ld-linux-*.so.*") if not each.is_symlink()]
    prefix = "" if arch == targets.HOST_ARCH else targets.CROSS_CC[arch].removesuffix("gcc")
    text = subprocess.run([f"{prefix}objdump", "-d", path], capture_output=True, text=True, check=True).stdout
    refers = re.compile(r"^ *([0-9a-f]+):\t.*\t(\w[\w.]*)[ \t]+[0-9a-f]+ <_dl_debug_state(?:@@\w+)?>", re.MULTILINE)
    theirs = {int(at, 16): name for at, name in refers.findall(text)}
    with Elf.open(path) as elf:
        (address,) = {address for name, address, _ in elf.functions() if name == "_dl_debug_state"}
        sites = code.calls_of(elf, address, "_dl_debug_state")
    assert {site.address for site in sites} == set(theirs) and sites
    assert all(site.emulated for site in sites)
    jump, call = {"amd64": ("jmp", "call"), "arm64": ("b", "bl")}[arch]
    assert set(theirs.values()) == ({jump} if suite == "trixie" else {call})
