"""What has to hold for every probe, found by walking the package: the next one is checked without a word here."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from pathlib import Path

import pytest

from gotrace.kernel.compiler import ebpf_folder
from gotrace.kernel.ring import event_dtype, wire_dtype
from gotrace.probe import Library, Plan, Point, ProbeModule, all_probes

PROBES = all_probes()


def test_each_stem_names_two_files():
    texts = {name.removesuffix(".bpf.c") for name in os.listdir(ebpf_folder()) if name.endswith(".bpf.c")}
    assert texts == set(PROBES) == {module.PROBE.stem for module in PROBES.values()}


def test_kinds_are_told_apart_by_their_numbers():
    numbers = [kind.number for module in PROBES.values() for kind in module.PROBE.kinds]
    assert len(set(numbers)) == len(numbers) and all(0 < number < 1 << 16 for number in numbers)


@pytest.mark.parametrize("name", PROBES)
def test_text_and_declaration_name_the_same(name):
    """Every setting, counter and kind that is declared is used in the C text, and nothing else is."""
    probe = PROBES[name].PROBE
    text = "".join(Path(ebpf_folder(), part).read_text() for part in (*probe.parts, f"{name}.bpf.c"))
    declared = {f"CONFIG_{word.upper()}" for word in probe.config} | {f"HIT_{word.upper()}" for word in probe.counts}
    declared |= {f"KIND_{kind.name.upper()}" for kind in probe.kinds if not kind.of_session}
    named = set(re.findall(r"\b(?:CONFIG|HIT|KIND)_[A-Z0-9_]+", text))
    in_a_row = re.compile(r"(CONFIG_(?:SHAPES|NAMED))\d+")  # settings that C reaches from the first of them
    assert {in_a_row.sub(r"\1", each) for each in declared} == {in_a_row.sub(r"\1", each) for each in named}
    assert all(len(kind.columns) <= 5 for kind in probe.kinds)


@pytest.mark.parametrize("name", PROBES)
def test_a_module_is_what_a_session_takes_it_for(name):
    """The protocol's names and numbers of parameters, in every module."""
    for function in ("plan", "settings"):
        wanted, found = (inspect.signature(getattr(each, function)) for each in (ProbeModule, PROBES[name]))
        assert len(found.parameters) == len(wanted.parameters) - 1  # but self
    assert PROBES[name].PROBE.stem == name


@pytest.mark.bpf
@pytest.mark.parametrize("name", PROBES)
def test_compiles_and_the_verifier_takes_every_program(name):
    from gotrace.kernel import bpf
    from gotrace.kernel.child import Child

    probe = PROBES[name].PROBE
    obj = Child(probe.compile).result()
    # each program counts its hits under its own name
    assert set(obj.programs) == set(probe.hits)
    assert bpf.BpfObject.from_json(obj.to_json()) == obj
    with bpf.load(obj) as loaded:
        assert set(loaded.programs) == set(probe.hits)
        loaded.maps["config"].write_words(range(len(probe.config)))
        assert loaded.maps["config"].words()[: len(probe.config)] == tuple(range(len(probe.config)))


def test_event_layout_comes_from_the_header():
    dtype = wire_dtype()
    assert dtype.itemsize == 56
    assert dtype.names == ("time_ns", "tid", "kind", "cpu", "a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "struct event {\n\tu32 a;\n\tu64 b;\n};",
        "struct event {\n\tu64 a;\n\tu32 b;\n};",
        "struct event {\n\tvoid *a;\n};",
        "struct event {\n\tu64 a[2];\n};",
    ],
    ids=["no struct", "hole", "hole at the end", "pointer", "array"],
)
def test_layouts_that_are_refused(text):
    with pytest.raises(ValueError, match="struct event"):
        event_dtype(text)


def test_a_plan_survives_the_cache():
    point = Point("a", "b", "c", 1, 2, b"\x90\xcc", "nop", True)
    plan = Plan(
        "go1.27.3", "", "amd64", True, False, 0, (point,), {"work": 5}, ("work",), (), {"clock": "x", "reasons": {"1": "y"}}
    )
    plan = dataclasses.replace(plan, libraries=(Library("/lib/libc.so.6", "ab", 4096),))
    assert Plan.from_json(plan.to_json()) == plan
