"""How long something ran, and ran alone; what the events of a build that lost some of them say."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotrace.analysis.builds.build import builds
from gotrace.analysis.builds.caches import packages_in
from gotrace.analysis.builds.overlaps import alone, length
from gotrace.analysis.builds.processes import Decoder
from gotrace.analysis.columns import Kinds
from gotrace.cli.text.build import sentences
from gotrace.kernel.ring import wire_dtype
from gotrace.probes.tree import PROBE

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda each: (each[0], sum(each))), max_size=6)


@given(st.dictionaries(st.sampled_from("abc"), SPANS))
def test_union_and_alone_are_what_counting_every_moment_gives(spans):
    moments = {name: {at for begin, end in each for at in range(begin, end)} for name, each in spans.items()}
    for name, each in spans.items():
        assert length(each) == len(moments[name])
        others = set().union(*(at for other, at in moments.items() if other != name))
        assert alone(spans)[name] == len(moments[name] - others)


NUMBERS = {kind.name: kind.number for kind in PROBE.kinds}
COMPILER = b"/go/pkg/tool/linux_amd64/compile\0-o\0/tmp/go-build1/b002/_pkg_.a\0-p\0a\x1b[31mb\0-importcfg\0/x\0"


def events(*rows):
    """(kind, time, thread, columns) as the ring has them."""
    found = np.zeros(len(rows), wire_dtype())
    for number, (kind, time_ns, tid, *columns) in enumerate(rows):
        found[number]["kind"], found[number]["time_ns"], found[number]["tid"] = NUMBERS[kind], time_ns, tid
        for letter, value in zip("abcde", columns, strict=False):
            found[number][letter] = value
    return found


def executed(time_ns, pid, text, lost=()):
    yield ("executed", time_ns, pid, pid, len(text), 5, 0)
    for part in range(-(-len(text) // 32)):
        chunk = text[32 * part : 32 * part + 32].ljust(32, b"\0")
        if part not in lost:
            yield ("arguments", time_ns, pid, part, *np.frombuffer(chunk, np.uint64))


def build(*rows, lists=None):
    decoder = Decoder(Kinds(PROBE.header_kinds()), 1)
    decoder.feed(events(*rows))
    (found,) = builds(decoder.trees, lists or {}, 1000)
    return found


TREE = (("forked", 100, 1, 2, 1), *executed(110, 2, b"go\0build\0"), ("forked", 200, 2, 3, 2))


def test_a_build_is_told_to_where_it_was_seen():
    done = build(*TREE, *executed(210, 3, COMPILER), ("exited", 400, 3, 3, 0, 105, 7), ("exited", 500, 2, 2, 0, 55, 0))
    (step,) = done.steps
    assert (step.stage, step.name, step.begin_ns, step.end_ns, step.cpu_ns) == ("compile", "a\x1b[31mb", 110, 300, 100)
    assert done.total_ns == 400 and done.exit_code == 0 and done.unread == 1 and done.cut == 0
    assert done.stage("go command alone").wall_ns == 400 - 190
    lacking = build(*TREE, *executed(210, 3, COMPILER))
    assert lacking.exit_code is None and lacking.total_ns == 900 and not lacking.steps[0].ended
    assert lacking.steps[0].cpu_ns is None and not lacking.compiled


def test_arguments_that_were_lost_are_counted():
    done = build(
        *TREE, *executed(210, 3, COMPILER, lost=[2]), ("exited", 400, 3, 3, 0, 105, 7), ("exited", 500, 2, 2, 0, 5, 0)
    )
    assert done.cut == 1


def told(text, status=0):
    """A build with one more process than its go command."""
    exits = ("exited", 400, 3, 3, status << 8, 105, 7), ("exited", 500, 2, 2, 0, 55, 0)
    return build(*TREE, *executed(210, 3, text), *exits)


def test_what_is_vetted_is_not_compiled():
    vet = b"/go/pkg/tool/linux_amd64/vet\0/tmp/go-build1/b001/vet.cfg\0"
    lists = {"/tmp/go-build1/b001/vet.cfg": '{\n\t"ImportPath": "a/b",\n\t"VetxOutput": "/tmp/go-build1/b001/vet.out"\n}'}
    exits = ("exited", 400, 3, 3, 0, 105, 7), ("exited", 500, 2, 2, 0, 55, 0)
    lines = list(sentences(build(*TREE, *executed(210, 3, vet), *exits, lists=lists)))
    assert "0 packages compiled, 0 from the cache." in lines and "1 package vetted (a/b 190 ns)." in lines
    assert "1 package compiled (ab 190 ns), 0 from the cache." in list(sentences(told(COMPILER.replace(b"\x1b[31m", b""))))


def test_what_a_build_goes_on_after():
    """The go command asks a C compiler for what it may not know."""
    lines = list(sentences(told(b"gcc\0-E\0-\0", 1)))
    assert "gcc failed: exit 1; the command went on." in lines


@pytest.mark.parametrize(
    ("arguments", "stage", "name"),
    [
        (b"sudo\0/tmp/go-build1/b001/costly.test\0-test.v\0", "run", "costly.test"),
        (b"env\0/tmp/go-build12/b001/exe/app\0-o\0x\0", "run", "app"),
        (b"/tmp/go-build12/b001/exe/app\0", "run", "app"),
        (b"gcc\0-I\0/tmp/go-build1/b002/\0-o\0/tmp/go-build1/b002/exe/a.out\0", "C toolchain", "unknown"),
        (b"gcc\0-I\0/tmp/go-build1/b002/\0-c\0/tmp/go-build1/b002/x.c\0", "C toolchain", "unknown"),
        (b"git\0status\0", "other programs", "git"),
    ],
)
def test_what_a_process_does(arguments, stage, name):
    (step,) = told(arguments).steps
    assert (step.stage, step.name) == (stage, name)


def test_lists_of_packages():
    importcfg = '# import config\npackagefile a/b=/c/d=e\nmodinfo "x"\npackagefile broken\n'
    assert packages_in(importcfg) == [("a/b", "/c/d=e")]
    vetted, work = {"x": "/w/go-build1/b002/vet.out", "y": "/cache/y-d"}, "/w/go-build1/b003/vet.out"
    config = {"ImportPath": "a/b [a/b.test]", "VetxOutput": work, "PackageFile": {"x": "/x.a"}, "PackageVetx": vetted}
    assert packages_in(json.dumps(config)) == [("a/b [a/b.test]", work), ("x", "/x.a"), ("x", vetted["x"])]
    assert packages_in(json.dumps({**config, "PackageFile": None}))[0] == ("a/b [a/b.test]", work)
    for broken in ("{", "{}", json.dumps({**config, "PackageVetx": [1]})):
        assert packages_in(broken) == []
