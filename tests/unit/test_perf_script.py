"""What perf prints, field by field and variant by variant; texts are of perf 6.1 unless said otherwise."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotrace.analysis.columns import Kinds
from gotrace.analysis.spans import OFF_CPU, STOP, Pairs, Span, SpanHistograms
from gotrace.analysis.stacks import INLINED, KERNEL, USER, Frame, StackTable
from gotrace.kernel.ring import wire_dtype
from gotrace.recording import format as form
from gotrace.recording import perf_import, perf_script
from gotrace.recording.perf_script import PerfScript, Sample
from gotrace.recording.reader import Recording
from gotrace.recording.writer import Writer

KALLSYMS = "[kernel.kallsyms]"


def parsed(text: str | bytes) -> tuple[list[Sample], PerfScript]:
    data = text.encode() if isinstance(text, str) else text
    script = PerfScript(io.BytesIO(data))
    return list(script), script


def one(text: str | bytes) -> Sample:
    samples, script = parsed(text)
    assert script.garbage == 0, script.first_garbage
    (sample,) = samples
    return sample


def plain(samples: list[Sample]) -> list[Sample | tuple[Frame, ...]]:
    """Stacks of two parsers are compared by what is in them."""
    return [part for each in samples for part in (each._replace(stack=None), each.frames)]


def frames(*lines: str) -> list[Frame]:
    return list(one("x  1 [000]  1.000000: cpu-clock: \n" + "".join(f"\t{line}\n" for line in lines) + "\n").frames)


CHAIN = (
    "\tffffffff821facd8 __schedule+0x618 ([kernel.kallsyms])\n"
    "\t           3aee5 runtime.(*sweepLocked).sweep+0x985 (/tmp/gcload)\n"
    "\t           894e1 runtime.goexit.abi0+0x1 (/tmp/gcload)\n\n"
)
CHAIN_FRAMES = (
    Frame("__schedule", "", 0, KALLSYMS, KERNEL),
    Frame("runtime.(*sweepLocked).sweep", "", 0, "/tmp/gcload", USER),
    Frame("runtime.goexit.abi0", "", 0, "/tmp/gcload", USER),
)


def test_default_fields() -> None:
    sample = one("gcload  8629 [001]  1288.860779:    1001001              cpu-clock: \n" + CHAIN)
    assert sample[:-1] == ("gcload", None, 8629, 1, 1_288_860_779_000, "cpu-clock", 1001001, None, "")
    assert sample.frames == CHAIN_FRAMES


def test_without_a_callchain() -> None:
    sample = one("   gcload  8629 [001]  1.935604525:    1001001  cpu-clock:            422fc4 main.f+0x104 (/tmp/a b)\n")
    assert sample[:-1] == ("gcload", None, 8629, 1, 1_935_604_525, "cpu-clock", 1001001, None, "")
    assert sample.frames == (Frame("main.f", "", 0, "/tmp/a b", USER),)


def test_hardware_events() -> None:
    """As perf prints what this machine's CPU does not count: modifiers, and the PMU's own syntax with terms."""
    samples, script = parsed(
        "service 4711/4712 [003] 85412.123456:      20003   dTLB-load-misses:u: \n"
        + CHAIN
        + "         service  4712 [003] 85412.123999:     123456 cpu/event=0xd0,umask=0x81/upp:  "
        "    55d0c0ffee12 main.(*T).walk+0x12 (/srv/service)\n"
        "         service  4712 [003] 85412.124000:          1 L1-dcache-load-misses:       55d0c0ffee12 [unknown] (/x)\n"
    )
    assert script.garbage == 0
    assert [(each.event, each.period, each.pid, each.tid) for each in samples] == [
        ("dTLB-load-misses:u", 20003, 4711, 4712),
        ("cpu/event=0xd0,umask=0x81/upp", 123456, None, 4712),
        ("L1-dcache-load-misses", 1, None, 4712),
    ]
    assert samples[0].frames == CHAIN_FRAMES
    assert samples[1].frames == (Frame("main.(*T).walk", "", 0, "/srv/service", USER),)
    assert samples[2].frames == (Frame("[unknown]", "", 0, "/x", USER),)


@pytest.mark.parametrize(
    "comm",
    [
        "Web Content",
        "kworker/u8:2-events_unbound",
        "foo 12",
        "12",
        "(sd-pam)",
        "a [003]",
        "[x]: y",
        "#1",
        "tab\there",
        "1.5: q",
    ],
)
def test_any_name(comm: str) -> None:
    for text in (
        f"{comm}  8629 [001]  1288.860779:    1001001 cpu-clock: \n{CHAIN}",
        f"{comm:>16}  8629 [001]     1.000001: a:b: x\n",
    ):
        sample = one(text)
        assert (sample.comm, sample.tid, sample.cpu) == (comm, 8629, 1)
    assert one(f"{comm}   12/8629  [001]  1288.860779:    1001001 cpu-clock: \n{CHAIN}")[:4] == (comm, 12, 8629, 1)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gcload  8629  1288.842754: ", ("gcload", None, 8629, None, 1288842754000, "", None)),
        (" 8629  1288.842754:              cpu-clock: ", ("", None, 8629, None, 1288842754000, "cpu-clock", None)),
        (" 8626/8629  [001]  1289.017677:   cpu-clock: ", ("", 8626, 8629, 1, 1289017677000, "cpu-clock", None)),
        ("", ("", None, None, None, None, "", None)),
        ("             cpu-clock: ", ("", None, None, None, None, "cpu-clock", None)),
        (" 1288.842754: ", ("", None, None, None, 1288842754000, "", None)),
        ("gcload  8629 [001]    1001001   cpu-clock: ", ("gcload", None, 8629, 1, None, "cpu-clock", 1001001)),
        ("gcload  8629    1001001   cpu-clock: ", ("gcload", None, 8629, None, None, "cpu-clock", 1001001)),
        ("migration/0    18     sched:sched_switch: ", ("migration/0", None, 18, None, None, "sched:sched_switch", None)),
        ("gcload  8629 ", ("gcload", None, 8629, None, None, "", None)),
        ("gcload  8629 [001] K      1288.860779:          1 a: ", ("gcload", None, 8629, 1, 1288860779000, "a", 1)),
        ("gcload  8629 [001]  1288.860779:    1001001 ", ("gcload", None, 8629, 1, 1288860779000, "", 1001001)),
        ("gcload [001]  1288.860779:  cycles: ", ("gcload", None, None, 1, 1288860779000, "cycles", None)),
        ("gcload  1288.860779:  cycles:", ("gcload", None, None, None, 1288860779000, "cycles", None)),
        (":-1    -1 [002]     0.000001:  cycles: ", (":-1", None, -1, 2, 1000, "cycles", None)),
    ],
)
def test_chosen_fields(line: str, expected: tuple[Any, ...]) -> None:
    """`perf script -F` with one field or the other missing."""
    sample = one(f"{line}\n{CHAIN}")
    assert sample[:7] == expected
    assert sample.frames == CHAIN_FRAMES
    twice, script = parsed(f"{line}\n{CHAIN}" * 2)
    assert script.garbage == 0 and plain(twice) == plain([sample, sample])


@pytest.mark.parametrize(
    ("rest", "address", "frame"),
    [
        (
            "          6e1440 main.cycles+0x0 (/a/b) ffffffff817554ea elf_load+0x28a ([kernel.kallsyms])",
            0x6E1440,
            "elf_load",
        ),
        (
            "    7fff586fe8d9 [unknown] ([stack]) ffffffff81b75d98 _copy_to_user ([kernel.kallsyms])",
            0x7FFF586FE8D9,
            "_copy_to_user",
        ),
        ("          48a8a0           48a8a0", 0x48A8A0, "0x48a8a0"),
        ("          6e1440", 0x6E1440, None),
        ("           6e1440", None, "0x6e1440"),
        (" ffffffff817554ea", None, "0xffffffff817554ea"),
        ("ffffffff817554ea", 0xFFFFFFFF817554EA, None),
        ("48a8a0 main.main (/a)", None, "main.main"),
    ],
)
def test_data_addresses(rest: str, address: int | None, frame: str | None) -> None:
    sample = one(f"  gcload 19603  1574.518237:          1 page-faults: {rest}\n")
    assert sample.address == address
    assert [each.function for each in sample.frames] == ([frame] if frame else [])


def test_data_address_and_callchain() -> None:
    sample = one("gcload 19603  1574.518237:          1 page-faults:           6e1440 main.cycles+0x0 (/a)\n" + CHAIN)
    assert (sample.address, sample.text, sample.frames) == (0x6E1440, "", CHAIN_FRAMES)


def test_tracepoints() -> None:
    text = "prev_comm=a b prev_pid=1 prev_prio=120 prev_state=D ==> next_comm=migration/0 next_pid=18 next_prio=0"
    sample = one(f"perf  8625 [000]  1288.836351:     sched:sched_switch: {text}\n{CHAIN}")
    assert (sample.event, sample.text, sample.period, sample.address) == ("sched:sched_switch", text, None, None)
    assert sample.frames == CHAIN_FRAMES
    sample = one("perf  8625 [000]  1288.836351: raw_syscalls:sys_enter: NR 16 (b, 2400, 0, 7f000e82b5e0, 1, 0)\n")
    assert (sample.text, sample.frames) == ("NR 16 (b, 2400, 0, 7f000e82b5e0, 1, 0)", ())
    sample = one("perf 1 [000]  1.836351: a:b: x=1 ffffffff821facd8 __schedule ([kernel.kallsyms])\n")
    assert (sample.text, sample.frames) == ("x=1", (CHAIN_FRAMES[0],))


def test_frames_of_every_kind() -> None:
    assert frames(
        "           fdd6b __GI___ioctl+0x3b (/usr/lib/x86_64-linux-gnu/libc.so.6)",
        "           ee137 sched_setaffinity@@GLIBC_2.3.4+0x7 (/usr/lib/libc.so.6)",
        "ffffffffc0401234 nf_hook+0x4 ([nf_conntrack])",
        "ffffffffc0401234 nf_hook+0x4 (/lib/modules/6.1.0/kernel/net/nf.ko.xz)",
        "ffffffff81000000 startup_64+0x0 (/usr/lib/debug/boot/vmlinux)",
        "ffffffffc0000123 bpf_prog_6deef7357e7b4530_sd_fw_ingress+0x1 (bpf_prog_6deef7357e7b4530_sd_fw_ingress)",
        "ffff800010000000 [unknown] ([unknown])",
        "    7ffff7fc1a00 clock_gettime+0x10 ([vdso])",
        "ffffffffff600000 vgettimeofday+0x0 ([vsyscall])",
        "    7f0000001234 [unknown] ([unknown])",
        "           40112 (anonymous namespace)::run(std::function<void (int)> const&, int (*)(char)) const+0x5 (/a (1)/b)",
        "           40113 operator new(unsigned long)+0x1 (/tmp/x (deleted))",
        "           40114 type:.eq.[2]interface {}+0x8 (/tmp/go)",
        "           40115 main.Map[go.shape.struct { a int; b string }].func1 (inlined)",
        "           40116 Foo::bar(int) (inlined)",
        "           40117 call_it (//anon)",
        "           40118 Interpreter (/tmp/perf-12.map)",
    ) == [
        Frame("__GI___ioctl", "", 0, "/usr/lib/x86_64-linux-gnu/libc.so.6", USER),
        Frame("sched_setaffinity@@GLIBC_2.3.4", "", 0, "/usr/lib/libc.so.6", USER),
        Frame("nf_hook", "", 0, "[nf_conntrack]", KERNEL),
        Frame("nf_hook", "", 0, "/lib/modules/6.1.0/kernel/net/nf.ko.xz", KERNEL),
        Frame("startup_64", "", 0, "/usr/lib/debug/boot/vmlinux", KERNEL),
        Frame(*["bpf_prog_6deef7357e7b4530_sd_fw_ingress", "", 0, "bpf_prog_6deef7357e7b4530_sd_fw_ingress", KERNEL]),  # type: ignore[arg-type]
        Frame("[unknown]", "", 0, "[unknown]", KERNEL),
        Frame("clock_gettime", "", 0, "[vdso]", USER),
        Frame("vgettimeofday", "", 0, "[vsyscall]", USER),
        Frame("[unknown]", "", 0, "[unknown]", USER),
        Frame("(anonymous namespace)::run(std::function<void (int)> const&, int (*)(char)) const", "", 0, "/a (1)/b", USER),
        Frame("operator new(unsigned long)", "", 0, "/tmp/x (deleted)", USER),
        Frame("type:.eq.[2]interface {}", "", 0, "/tmp/go", USER),
        Frame("main.Map[go.shape.struct { a int; b string }].func1", "", 0, "", INLINED),
        Frame("Foo::bar(int)", "", 0, "", INLINED),
        Frame("call_it", "", 0, "//anon", USER),
        Frame("Interpreter", "", 0, "/tmp/perf-12.map", USER),
    ]


def test_frames_without_some_fields() -> None:
    """-F ip,sym / ip / ip,dso; an address stands for a symbol that was not asked for."""
    assert frames("   40112 main.f", "   40113", "   40114 (/tmp/x)", "   40115 f(int, char (*)(int))") == [
        Frame("main.f", "", 0, "", USER),
        Frame("0x40113", "", 0, "", USER),
        Frame("0x40114", "", 0, "/tmp/x", USER),
        Frame("f(int, char (*)(int))", "", 0, "", USER),
    ]


def test_source_lines() -> None:
    chain = (
        "\t           2724a __libc_start_call_main (/usr/lib/libc.so.6)\n  libc-start.c:74\n"
        "\t           40111 inner\n  /src/a b.c:12 (inlined)\n"
        "\t           40111 outer (/x)\n  a.go:9 (discriminator 3)\n"
        "\tffffffff821f4dab pv_native_safe_halt ([kernel.kallsyms])\n  [kernel.kallsyms][ffffffff821f4dab]\n"
    )
    expected = (
        Frame("__libc_start_call_main", "libc-start.c", 74, "/usr/lib/libc.so.6", USER),
        Frame("inner", "/src/a b.c", 12, "", INLINED),
        Frame("outer", "a.go", 9, "/x", USER),
        Frame("pv_native_safe_halt", "", 0, KALLSYMS, KERNEL),
    )
    assert one(f"gcload 1  1.000001: cpu-clock: \n{chain}|12   code()\n\n").frames == expected
    single = one(
        "  gcload 1  1.000001: cpu-clock:            2724a __libc_start_call_main (/usr/lib/libc.so.6)\n  libc-start.c:74\n"
    )
    assert single.frames == expected[:1]


@pytest.mark.parametrize("head", ["gcload ", "gcload 12 ", "gcload     sched:sched_switch: ", "[001] ", "  cpu-clock: "])
def test_a_stack_that_perf_could_not_walk(head: str) -> None:
    """A first line that any text could be is one of a sample without frames if the same had some before."""
    samples, script = parsed(f"{head}\n{CHAIN}{head}\n\n{head}\n{CHAIN}")
    assert [each.frames for each in samples] == [CHAIN_FRAMES, (), CHAIN_FRAMES] and script.garbage == 0
    samples, script = parsed(f"other \n\n{head}\n{CHAIN}garbage \n\n")
    assert len(samples) == 1 and (script.garbage, script.first_garbage) == (2, (1, b"other "))


def test_several_kinds_of_samples_in_a_row() -> None:
    text = (
        "a  1 [000]  1.000001: sched:x: text\n"
        "a  1 [000]  1.000002: cpu-clock: \n" + CHAIN + "\n"
        "a  1 [000]  1.000003: cpu-clock: \n\n"
        "a  1 [000]  1.000004: cpu-clock:            40111 f (/x)\n"
        "a  1 [000]  1.000005: sched:x: \n"
    )
    samples, script = parsed(text)
    assert [each.time_ns for each in samples] == [1_000_001_000 + 1000 * n for n in range(5)]
    assert [len(each.frames) for each in samples] == [0, 3, 0, 1, 0]
    assert script.garbage == 0 and script.lines == text.count("\n")


HEADER = """\
# ========
# captured on    : Wed Nov 25 03:25:23 2026
# hostname : vm
# os release : 6.18.44-fc-v669
# perf version : 6.1.187
# arch : aarch64
# nrcpus online : 2
# cmdline : /usr/bin/perf record -a -F 999 -e sched:sched_switch
# event : name = sched:sched_switch, , id = { 22, 23 }, { sample_period, sample_freq } = 999, freq = 1
# event : name = page-faults, , id = { 22, 23 }, { sample_period, sample_freq } = 1, sample_type = IP
# time of first sample : 1288.836258
# ========
#
"""


def test_header_and_other_records() -> None:
    text = (
        HEADER
        + "perf  8625 [000]  1.836258: a: \n"
        + CHAIN
        + "swapper     0 [000]     0.000000: PERF_RECORD_MMAP -1/0: [0xffffffff81000000(0x120bb08) @ 0]: x [kernel]_text\n"
        "swapper     0 [000]     0.000000: PERF_RECORD_FORK(1:1):(0:0)\n"
        "perf     1 [000]     0.000000: PERF_RECORD_LOST lost 17\n"
    )
    samples, script = parsed(text)
    assert len(samples) == 1 and script.garbage == 0 and script.lost == 17 and script.lines == text.count("\n")
    assert script.facts["arch"] == "aarch64" and script.facts["cmdline"].startswith("/usr/bin/perf record")
    assert script.partial == {"sched:sched_switch"}


def test_line_ends_of_another_system() -> None:
    text = HEADER + "gcload  8629 [001]  1.5: x\ngcload  8629 [001]  1288.860779:    1001001 cpu-clock: \n" + CHAIN * 1
    unix, with_cr = parsed(text), parsed(text.replace("\n", "\r\n"))
    assert plain(unix[0]) == plain(with_cr[0]) and len(unix[0]) == 1
    assert (unix[1].garbage, unix[1].lines) == (with_cr[1].garbage, with_cr[1].lines)


def test_spaces_for_tabs() -> None:
    sample = one("gcload  8629 [001]  1288.860779:    1001001 cpu-clock: \n" + CHAIN.replace("\t", "        "))
    assert sample.frames == CHAIN_FRAMES


def test_garbage_is_counted() -> None:
    good = "gcload  8629 [001]  1288.860779:    1001001 cpu-clock: \n" + CHAIN
    garbage = "[ perf record: Woken up 3 times to write data ]\n", "Processed 1234\n", "Warning: foo:\n", "\x00\xff\n"
    samples, script = parsed(good + "".join(garbage) + good + "\n\nTruncated he\n\t  1234 f (/x)\n\n" + good)
    assert len(samples) == 3
    assert script.first_garbage == (6, garbage[0].encode().rstrip())
    assert script.garbage == len(garbage) + 2


def test_no_line_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_script, "_CHUNK", 1 << 12)
    good = "gcload  8629 [001]  1288.860779:    1001001 cpu-clock: \n" + CHAIN
    huge = "x" * (perf_script.LONGEST_LINE * 3)
    text = good + huge + "\n" + good + "\t" + huge + "\n" + good + huge
    samples, script = parsed(text)
    assert len(samples) == 3 and script.garbage == 3 and script.lines == text.count("\n") + 1


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1000])
def test_chunks_do_not_matter(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEADER + ("a b  1 [000]  1.000002: cpu-clock: \n" + CHAIN + "c 2 [001]  2.000000: x:y: text\n" + "garbage\n") * 5
    whole = parsed(text)
    for each in (text, text.replace("\n", "\r\n")):
        monkeypatch.setattr(perf_script, "_CHUNK", chunk)
        samples, script = parsed(each)
        assert plain(samples) == plain(whole[0]) and len(samples) == 10
        assert (script.lines, script.garbage, script.first_garbage) == (
            *(whole[1].lines, whole[1].garbage, whole[1].first_garbage),
        )


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_script, "_MEMORY", 20_000)
    text = "".join(f"t{n}  {n} [000]  1.000002: cpu-clock: \n\t  {n:x} f{n} (/x)\n\t  1 main (/x)\n\n" for n in range(1000))
    samples, script = parsed(text)
    assert [each.frames[0].function for each in samples] == [f"f{n}" for n in range(1000)]
    assert script._held <= 20_000 and len(script._chains) < 100


PIECES = st.sampled_from(
    [
        b"gcload  8629 [001]  1288.860779:    1001001 cpu-clock: \n",
        b"\tffffffff821facd8 __schedule+0x618 ([kernel.kallsyms])\n",
        b"\t           40111 f(int) (/x)\n",
        b"  file.c:12 (inlined)\n",
        b"  gcload  8629 [001]  1.000000: page-faults:     7fff586fe8d9 [unknown] ([stack]) ffffffff81b75d98 _copy (x)\n",
        b"perf 1 [000]  1.5: sched:sched_switch: prev_comm=a prev_pid=1 prev_prio=1 prev_state=S ==> next_comm=b next_pid=",
        b"perf 1 [000]  1.500000: sched:sched_switch: prev_comm=a prev_pid=1 prev_prio=1 prev_state=S ==> next_comm=b "
        b"next_pid=2 next_prio=3\n",
        b"9999999999.999999999: -1/99999999999 [99999999]",
        b"# event : name = x, { sample_period, sample_freq } = 999999999999999999999999\n",
        *(
            b"\n",
            b"\n\n",
            b"\r\n",
            b"\t",
            b" ",
            b":",
            b": ",
            b"(",
            b")",
            b"[",
            b"1",
            b"1288.860779: ",
            b"PERF_RECORD_LOST lost 9",
        ),
        b"99999999999999999999 cycles: ffffffffffffffff\n",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(PIECES, st.binary(max_size=40)), max_size=40).map(b"".join), st.sampled_from([3, 50, 1 << 20]))
def test_nothing_crashes(tmp_path_factory: pytest.TempPathFactory, data: bytes, chunk: int) -> None:
    """Arbitrary bytes: every line is counted, and whatever came out can be written as a recording and read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perf_script, "_CHUNK", chunk)
        samples, script = parsed(data)
    lines = data.replace(b"\r\n", b"\n")
    assert script.lines == lines.count(b"\n") + (not lines.endswith(b"\n") and lines != b"")
    assert script.garbage <= script.lines
    path = tmp_path_factory.getbasetemp() / "fuzz.gotrace"
    recorded(path, samples, script)
    with Recording.open(str(path)) as recording:
        events = np.concatenate([chunk.events for chunk in recording.chunks()] or [np.zeros(0, wire_dtype())])
    assert (events["kind"] == perf_import.SAMPLE).sum() == len(samples)


@pytest.mark.parametrize(
    "line",
    [
        b" " * 60_000,
        b"1 " * 30_000,
        b"a: " * 20_000,
        b"\t" + b"(" * 60_000 + b")",
        b"x 1 [0]  1.000000: a:b: " + b"abcdef " * 8_000 + b")",
        b"x 1 [0]  1.000000: a:b: " + b"0123456789abcdef " * 3_500 + b"x",
        b"x 1 [0]  1.000000: a: " + b"0123456789abcdef " * 3_500 + b"x",
        b"x 1 [0]  1.000000: a: " + b"a/" * 30_000,
        b" 1" * 20_000 + b" ABI:2 => ",
        b"[0]" * 20_000,
        b" [0]" * 15_000 + b" x",
        b"x 1 [0]  1.000000: sched:sched_switch: "
        + b"prev_comm=a prev_pid=1 prev_prio=1 prev_state=S ==> next_comm=" * 900,
        b"  a:1 (discriminator " * 3_000,
        b"[1] " * 15_000 + b"[",
        b"9" * 60_000,
        b"1." * 30_000,
    ],
)
def test_no_line_takes_long(line: bytes, tmp_path: Path) -> None:
    begin = time.process_time()
    samples, script = parsed(b"x 1 [0]  1.000000: a: \n" + line + b"\n\n")
    recorded(tmp_path / "x.gotrace", samples, script)
    assert time.process_time() - begin < 2


def recorded(path: Path, samples: list[Sample], script: PerfScript, **options: Any) -> perf_import.Importer:
    with open(path, "wb", buffering=0) as file:
        writer = Writer(file, perf_import.header(script, 0), wire_dtype())
        importer = perf_import.Importer(writer, wire_dtype(), options.get("wanted", lambda *_: True), script.partial)
        importer.add(samples)
        writer.close(importer.end(script, "end of the input"))
    return importer


def test_the_recording_holds_it_all(tmp_path: Path) -> None:
    text = (
        HEADER
        + "Web Content  7/8 [001]  1.000001:    1001001 cpu-clock: \n"
        + CHAIN
        + "swapper  0/0 [003]  1.000002: page-faults:           6e1440\n"
        + "Web Content  7/8  1.000003:    2 cpu-clock: \n"
        + CHAIN
    )
    samples, script = parsed(text)
    recorded(tmp_path / "x.gotrace", samples, script)
    with Recording.open(str(tmp_path / "x.gotrace")) as recording:
        (chunk,) = recording.chunks()
        header, end = recording.header, recording.end
        kinds = header["probes"]["perf"]["kinds"]
        stacks = StackTable([kinds["stack"]["number"]], recording.frames)
        stacks.feed(chunk.events)
        rows = [
            (int(row["time_ns"]), int(row["tid"]), int(row["cpu"]), int(row["a"]), int(row["d"]), int(row["e"]))
            for row in chunk.events[chunk.events["kind"] == kinds["sample"]["number"]]
        ]
        names = [
            recording.text(int(row["c"]) & ((1 << 48) - 1), int(row["c"]) >> 48)
            for row in chunk.events[chunk.events["kind"] == kinds["sample"]["number"]]
        ]
        numbers = chunk.events["b"][chunk.events["kind"] == kinds["sample"]["number"]].tolist()
        found = tuple(stacks.frames(numbers[0]))
        (task,) = chunk.events[(chunk.events["kind"] == kinds["task"]["number"]) & (chunk.events["tid"] == 8)]
    assert rows == [
        (1_000_001_000, 8, 1, 1001001, 0, 7),
        (1_000_002_000, 0, 3, 1, 0x6E1440, 0),
        (1_000_003_000, 8, perf_import.NO_CPU, 2, 0, 7),
    ]
    assert names == ["cpu-clock", "page-faults", "cpu-clock"]
    assert numbers == [1, 0, 1] and found == CHAIN_FRAMES
    assert task["a"].tobytes() + task["b"].tobytes() == b"Web Content".ljust(16, b"\0") and task["c"] == 7
    assert header["target"]["arch"] == "arm64" and header["host"]["name"] == "vm" and header["host"]["cpus"] == 2
    assert end is not None and end["perf"]["events"] == {"cpu-clock": 2, "page-faults": 1}


def test_too_many_names_are_told_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_import, "_MOST_TEXTS", 3)
    monkeypatch.setattr(perf_import, "_MOST_FUNCTIONS", 5)
    monkeypatch.setattr(perf_import, "_MOST_TASKS", 5)
    text = "".join(f"x{n}  {n} [000]  1.000002: e{n}: \n\t  1 f{n} (/x)\n\n" for n in range(20))
    importer = recorded(tmp_path / "x.gotrace", *parsed(text))
    assert importer.samples == {"e0": 1, "e1": 1, "e2": 1, perf_import.OTHERS: 17}
    with Recording.open(str(tmp_path / "x.gotrace")) as recording:
        list(recording.chunks())
        assert [recording.frames([n + 1])[0].function for n in range(20)] == [f"f{n}" for n in range(20)]


def switch(left: int, came: int) -> str:
    return f"prev_comm=a prev_pid={left} prev_prio=120 prev_state=S ==> next_comm=b next_pid={came} next_prio=120"


def test_time_off_the_cpu() -> None:
    pairs = Pairs()
    feed = lambda at, left, came, cpu=0: pairs.feed("sched:sched_switch", switch(left, came), at, left, cpu, 1)  # noqa: E731
    assert feed(10, 1, 2) is None
    assert feed(20, 2, 1) == Span(10, 20, 1, OFF_CPU)
    assert feed(30, 1, 0) is None
    assert pairs.feed("sched:sched_switch", "swapper:0 [120] R ==> b c:2 [120]", 45, 0, 0, 1) == Span(20, 45, 2, OFF_CPU)
    assert pairs.gaps == 0
    # 2 left and 3 came unseen: nobody knows whether 1 came meanwhile
    assert feed(60, 3, 1) is None
    assert pairs.gaps == 1
    assert feed(70, 1, 3) == Span(60, 70, 3, OFF_CPU)
    assert pairs.feed("sched:sched_switch", "prev_comm=nonsense", 1, 1, 0, 1) is None


def test_system_calls_and_stops() -> None:
    pairs = Pairs()
    events = [
        ("raw_syscalls:sys_enter", "NR 202 (1, 2)", 10, 5),
        ("syscalls:sys_enter_futex", "uaddr: 0x1", 11, 5),
        ("raw_syscalls:sys_enter", "NR 0 (1, 2)", 12, 6),
        ("syscalls:sys_exit_futex", "0x0", 13, 5),
        ("raw_syscalls:sys_exit", "NR 202 = 0", 14, 5),
        ("raw_syscalls:sys_exit", "NR 1 = 0", 15, 6),
        ("raw_syscalls:sys_exit", "NR 0 = 0", 16, 6),
        ("probe_gcload:stopTheWorldWithSema", "(451cc0)", 20, 5),
        ("probe_gcload:startTheWorldWithSema_1", "(452100)", 29, 6),
        ("probe_gcload:startTheWorldWithSema", "(452100)", 30, 6),
        ("cpu-clock", "", 31, 6),
    ]
    spans = [pairs.feed(event, text, at, tid, 0, "gcload") for event, text, at, tid in events]
    assert [span for span in spans if span] == [
        Span(11, 13, 5, "syscall futex"),
        Span(10, 14, 5, "syscall 202"),
        Span(20, 29, 6, STOP),
    ]
    assert pairs.takes("sched:sched_switch") and not pairs.takes("page-faults")


def test_what_was_taken_only_in_part_makes_no_spans(tmp_path: Path) -> None:
    text = "".join(
        f"a  1 [000]  1.00000{n}: {period} raw_syscalls:sys_e{side}: NR 1 = 0\n"
        for n, (period, side) in enumerate([("", "nter"), ("", "xit"), ("1", "nter"), ("7", "xit"), ("", "xit")])
    )
    importer = recorded(tmp_path / "x.gotrace", *parsed(text))
    assert importer.spans == {"syscall 1": 1} and importer.partial == {"raw_syscalls:sys_exit"}
    text = (
        HEADER
        + f"a  1 [000]  1.000001: sched:sched_switch: {switch(1, 2)}\nb 2  1.000002: sched:sched_switch: {switch(2, 1)}\n"
    )
    importer = recorded(tmp_path / "x.gotrace", *parsed(text))
    assert importer.spans == {} and importer.partial == {"sched:sched_switch"}


def test_histograms_by_interval() -> None:
    events = np.zeros(6, wire_dtype())
    events["kind"] = [7, 7, 8, 7, 7, 7]
    events["time_ns"] = [1010, 1020, 1030, 1150, 1140, 1090]
    events["a"] = [1000, 1000, 0, 1000, 1100, 1089]
    events["b"] = [1, 2, 1, 1, 1, 2]
    kinds = Kinds({"span": {"number": 7, "columns": ["begin_ns", "what", "pid"]}})
    spans = SpanHistograms(kinds, str, 1000, 100)
    told = [*spans.feed(events[:4]), *spans.feed(events[4:]), *spans.finish(), *spans.finish()]
    shown = [(at, {name: (each.count, each.sum) for name, each in named.items()}) for at, named in told]
    assert shown == [(0, {"1": (1, 10), "2": (1, 20)}), (1, {"1": (2, 190), "2": (1, 1)})]
    whole = SpanHistograms(kinds, str, 1000, 0)
    assert [*whole.feed(events)] == []
    ((_, named),) = whole.finish()
    assert {name: each.count for name, each in named.items()} == {"1": 3, "2": 2}


def test_numbered_texts_are_no_addresses() -> None:
    assert form.NUMBERED >> 48 == 0x8000
    assert json.loads(json.dumps([CHAIN_FRAMES[0]])) == [list(CHAIN_FRAMES[0])]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("srv ", ("srv", None, None, None, None, "", None)),
        ("Web Content ", ("Web Content", None, None, None, None, "", None)),
        ("C1 Comp ", ("C1 Comp", None, None, None, None, "", None)),
        ("an odd: na ", ("an odd: na", None, None, None, None, "", None)),
        ("an odd: na [0] [001] ", ("an odd: na [0]", None, None, 1, None, "", None)),
        ("srv cpu-clock: ", ("srv", None, None, None, None, "cpu-clock", None)),
        ("srv [003] ", ("srv", None, None, 3, None, "", None)),
        ("srv [003] K      cycles:ppp: ", ("srv", None, None, 3, None, "cycles:ppp", None)),
        ("srv    2004008 cpu-clock: ", ("srv", None, None, None, None, "cpu-clock", 2004008)),
        ("[003]     1.000001: ", ("", None, None, 3, 1_000_001_000, "", None)),
        ("srv  12 [003]     1,500000:    1001001 cpu-clock: ", ("srv", None, 12, 3, 1_500_000_000, "cpu-clock", 1001001)),
    ],
)
def test_fields_that_hardly_tell_a_sample(first: str, expected: tuple[Any, ...]) -> None:
    """`perf script -F comm,ip,sym` and its like, as HHVM's guide has it; decimals after a comma."""
    samples, script = parsed(f"{first}\n{CHAIN}" * 3)
    assert script.garbage == 0, script.first_garbage
    assert [each[:7] for each in samples] == [expected] * 3
    assert {each.frames for each in samples} == {CHAIN_FRAMES}


def test_any_text_is_no_sample_where_samples_have_times() -> None:
    samples, script = parsed("gcload  8629 [001]  1288.860779: cpu-clock: \n" + CHAIN + "Truncated he\n" + CHAIN)
    assert len(samples) == 1 and script.garbage == 4
    samples, script = parsed("srv \n" + CHAIN + "no callchain\n\nsrv \n" + CHAIN)
    assert len(samples) == 2 and script.garbage == 1


def test_a_callchain_alone_is_whole() -> None:
    """-F ip,sym: what was seen before, too, does not take the first line of a callchain for that of a sample."""
    shorter = CHAIN.partition("\n")[2]
    samples, script = parsed("\n" + shorter + "\n" + CHAIN + "\n" + shorter)
    assert script.garbage == 0 and [each.frames for each in samples] == [CHAIN_FRAMES[1:], CHAIN_FRAMES, CHAIN_FRAMES[1:]]


def test_the_address_tells_what_is_the_kernel() -> None:
    """Not the brackets: of a just-in-time compiler, of simpleperf, of a module."""
    chain = (
        "ffffff9c80100200 futex_wait ([kernel.kallsyms])",
        "ffffffffc0401234 nf_hook ([nf_conntrack])",
        "        9c510100 com.example.Basket.total ([JIT app cache])",
        "    7f0000001000 f ([some module])",
        "        c0008000 do_idle ([kernel.kallsyms])",  # of 32 bits
    )
    assert [frame.kind for frame in frames(*chain)] == [KERNEL, KERNEL, USER, USER, KERNEL]


BRANCH_STACK = " 0x4100/0x4200/P/-/-/0  0x45a108(/srv/a)/0x4108(/srv/a)/M/X/-/12/COND/-  "
SYMBOLS = " main.f+0x10/main.g+0x0/P/-/-/0/RET/-  operator new(unsigned long)+0x5/main.f+0x0/-/-/-/0 "


@pytest.mark.parametrize("branches", [BRANCH_STACK, SYMBOLS])
def test_branch_stacks_are_left_out_and_counted(branches: str) -> None:
    """As perf_sample__fprintf_brstack prints them: behind the callchain, without an empty line, or behind the address."""
    chain, samples = CHAIN.rstrip("\n") + "\n", []
    for text, stack in (
        (f"a 1 [000]  1.000001:   1 cycles: \n{chain}{branches}\n", CHAIN_FRAMES),
        (f"a 1 [000]  1.000001:   1 cycles:             40111 f (/x) {branches}\n", (Frame("f", "", 0, "/x", USER),)),
        (f"a 1 [000]  1.000001:   1 cycles: {branches}\n", ()),
    ):
        samples, script = parsed(text * 3)
        assert script.garbage == 0, script.first_garbage
        assert [each.frames for each in samples] == [stack] * 3
        assert script.left_out == {perf_script.BRANCHES: 3}
        assert {(each.address, each.text) for each in samples} == {(None, "")}
    registers = "a 1 [000]  1.000001:   1 cycles: \n" + chain + " ABI:2    AX:0x1    BX:0xffff\n"
    samples, script = parsed(registers * 2)
    assert len(samples) == 2 and script.garbage == 0 and script.left_out == {perf_script.REGISTERS: 2}
    # a path in the text of a tracepoint is none
    sample = one("a 1 [000]  1.000001: a:b: name=/P/-/-/0 x (y)\n")
    assert sample.text == "name=/P/-/-/0 x (y)"


@pytest.mark.parametrize("flags", ["", "  call                     ", "  tr strt                  "])
def test_a_branch_is_where_it_comes_from(flags: str) -> None:
    """As perf_sample__fprintf_bts prints one."""
    line = f"ls 9 [003] 5.000001:   1 branches:uH: {flags}    55d5aa001100 main+0x1 (/x) =>     7f0000001200 foo (/y)\n"
    sample = one(line)
    assert (sample.frames, sample.address, sample.text) == ((Frame("main", "", 0, "/x", USER),), 0x7F0000001200, "")


# What a sample is rendered from, by the formats of process_event (6.1; newer ones print process and thread wider).
FIELDS = ("comm", "pid", "tid", "cpu", "time", "event", "period", "trace", "ip", "sym", "dso")
PLAIN = ["srv", "Web Content", "kworker/u8:2-ev", "(sd-pam)", "GC Thread", "C1 CompilerThre", "com.example.shop"]
ODD = ["foo 12", "12", "a [003]", "[x]: y", "#1", "1.5: q"]
FUNCTIONS = {
    "main.walk": (0x4100, "/srv/app"),
    "main.(*T).F[go.shape.int]": (0x45A108, "/srv/a b (1)"),
    "malloc": (0x7F5993D8CA2D, "/usr/lib/libc.so.6"),
    "__schedule": (0xFFFFFFFF821F8B58, KALLSYMS),
}


@st.composite
def printed(draw: st.DrawFn) -> tuple[str, list[Sample], list[list[str]]]:
    """(what perf prints, the samples, the names in their stacks), for any fields that tell a sample at all."""
    fields = draw(st.sets(st.sampled_from(FIELDS)))
    chains = draw(st.booleans())
    if "pid" in fields:
        fields |= {"tid"}  # a lone number is the thread's
    if "trace" in fields:
        fields |= {"event"}
    if "trace" in fields and not chains:
        fields = fields - {"ip", "sym", "dso"} | {"time"}  # only parentheses tell where a tracepoint's own text ends
    elif len({"time", "tid", "event"} & fields) < 2:
        fields |= {"ip"}  # else it could be any text
    if {"sym", "dso"} & fields:
        fields |= {"ip"}
    if not chains and not {"time", "tid", "event"} & fields and "ip" in fields:
        fields = {*fields, "sym"} - (set() if "comm" in fields else {"period"})  # two numbers and a name
    names = PLAIN + (ODD if {"time", "tid"} <= fields else [])
    wide, comma, ns = draw(st.sampled_from([5, 7])), draw(st.booleans()), draw(st.booleans())
    text, samples, stacks = [], [], []
    for _ in range(draw(st.integers(1, 4))):
        comm, period = draw(st.sampled_from(names)), draw(st.sampled_from([1, 2004008, 10**9]))
        tid, at = draw(st.integers(1, 99999)), draw(st.integers(0, 10**14)) // 1000 * 1000
        cpu = draw(st.integers(0, 300))
        event = draw(st.sampled_from(["cpu-clock", "cycles:ppp", "sched:sched_switch", "cpu/event=0xd0,umask=0x81/upp"]))
        trace = draw(st.sampled_from(["a=b c:d", "prev_comm=a ==> next_comm=b"])) if event.startswith("sched:") else ""
        stack = draw(st.lists(st.sampled_from(sorted(FUNCTIONS)), min_size=1, max_size=5 if chains else 1))
        line = ""
        if "comm" in fields:
            line += f"{comm} " if chains else f"{comm:>16} "
        if "tid" in fields:
            line += f"{77:{wide}}/{tid:<{wide}} " if "pid" in fields else f"{tid:{wide}} "
        if "cpu" in fields:
            line += f"[{cpu:03}] "
        if "time" in fields:
            decimals = f"{at % 10**9:09}" if ns else f"{at % 10**9 // 1000:06}"
            line += f"{at // 10**9:5}{',' if comma else '.'}{decimals}: "
        if "period" in fields:
            line += f"{period:10} "
        if "event" in fields:
            line += f"{event:>18}: "
        if "trace" in fields:
            line += trace
        shown = []
        for name in stack:
            address, module = FUNCTIONS[name]
            words = [f"{address:16x}", *([name] if "sym" in fields else []), *([f"({module})"] if "dso" in fields else [])]
            shown.append(" ".join(words))
        if "ip" not in fields:
            text.append(f"{line}\n")
        elif chains:
            text.append(f"{line}\n" + "".join(f"\t{each}\n" for each in shown) + "\n")
        else:
            text.append(f"{line} {shown[0]}\n")
        samples.append(
            Sample(
                comm if "comm" in fields else "",
                77 if "pid" in fields else None,
                tid if "tid" in fields else None,
                cpu if "cpu" in fields else None,
                at if "time" in fields else None,
                event if "event" in fields else "",
                period if "period" in fields else None,
                None,
                trace if "trace" in fields else "",
                None,
            )
        )
        functions = [name if "sym" in fields else f"{FUNCTIONS[name][0]:#x}" for name in stack]
        stacks.append(functions if "ip" in fields else [])
    return "".join(text), samples, stacks


@settings(max_examples=400, deadline=None)
@given(printed())
def test_any_fields(text: tuple[str, list[Sample], list[list[str]]]) -> None:
    """`perf script -F`: what is rendered comes back, whatever the fields are."""
    shown, samples, stacks = text
    found, script = parsed(shown)
    assert script.garbage == 0, script.first_garbage
    assert [each._replace(stack=None) for each in found] == samples
    assert [[frame.function for frame in each.frames] for each in found] == stacks


def test_a_name_whose_last_word_is_in_capitals() -> None:
    """Chromium's threads are called so; what perf calls misc is one of a few letters."""
    text = f"{'ChromeDriver IO':<16} cpu-clock: \n\tffffffff81000000 f\n\n"
    (sample,) = PerfScript(io.BytesIO(text.encode()))
    assert (sample.comm, sample.event) == ("ChromeDriver IO", "cpu-clock")
