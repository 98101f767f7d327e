"""Flame graphs as other tools' files: Go's own pprof and speedscope's own schema read them back."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter

import numpy as np
import pytest

import targets
from gotrace.analysis.flame import Profile, profile_of
from gotrace.analysis.stacks import FRAMELESS, INLINED, KERNEL, USER, Frame
from gotrace.export.pprof import pprof
from gotrace.export.speedscope import speedscope
from gotrace.text import printable

SPEEDSCOPE = "speedscope@1.25.0"

MAIN = Frame("main.main", "/src/main.go", 10, "service", USER)
SORT = Frame("sort.Slice", "/go/sort.go", 20, "service", USER)
LESS = Frame("main.less", "/src/less.go", 30, "service", INLINED)
KEY = Frame("main.(*Item[go.shape.int]).key", "/src/less.go", 31, "service", INLINED)
COPY = Frame("runtime.memmove", "/go/memmove.s", 40, "service", FRAMELESS)
GENERIC = Frame("main.Map[go.shape.int,go.shape.string]", "/src/map.go", 7, "service", USER)
WRITE = Frame("write", "", 0, "libc.so.6", USER)
SYSCALL = Frame("do_syscall_64", "", 0, "", KERNEL)
HOSTILE = [
    Frame(name, "/src/<b>'\".go", 1, "service", USER)
    for name in (
        'main."quoted"\'s',
        "main.<script>alert(1)</script>",
        "main.Größe.名前",
        "main.two\nlines\x1b[2J",
        "main.\u202ereversed",
        "main.not_utf8\udcff",
        "",
    )
]

STACKS = {
    (MAIN,): (7, 1),
    (MAIN, SORT): (1_000, 3),
    (MAIN, SORT._replace(line=21)): (200, 1),
    (MAIN, SORT, LESS, KEY): (30_000, 9),
    (MAIN, SORT, LESS): (400, 2),
    (MAIN, SORT, LESS, COPY): (900, 4),
    (MAIN, LESS, SORT, LESS, KEY): (5_000, 5),
    (LESS, KEY, MAIN): (60, 1),  # what LESS was inlined into is missing
    (MAIN, GENERIC, MAIN, GENERIC): (70_000, 11),
    (MAIN, WRITE, SYSCALL): (800_000, 12),
    **{(MAIN, frame): (10_000_000 + number, 20 + number) for number, frame in enumerate(HOSTILE)},
}


def expected(profile: Profile, weights) -> tuple[Counter[str], Counter[str]]:
    """What every function weighs by itself, and with what it calls."""
    flat: Counter[str] = Counter()
    cum: Counter[str] = Counter()
    for number in range(len(profile)):
        names = [frame.function for frame in profile.stack(number)]
        flat[names[-1]] += int(weights[number])
        for name in set(names):
            cum[name] += int(weights[number])
    return flat, cum


@pytest.fixture
def read(tmp_path):
    """read(file, *options) -> what `go tool pprof` prints of it."""
    environment = {**targets.environment(targets.NEWEST), "PPROF_TMPDIR": str(tmp_path), "HOME": str(tmp_path)}

    def run(file: bytes, *options: str) -> str:
        path = tmp_path / "profile.pb.gz"
        path.write_bytes(file)
        all_ = ["-nodecount=0", "-nodefraction=0", "-edgefraction=0"]
        command = [targets.go_tool_path("pprof"), *all_, *options, str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def file_of(profile: Profile, kind: str = "cpu") -> bytes:
    return pprof(profile, kind, time_ns=1_700_000_000_000_000_000, duration_ns=2_500_000_000, period_ns=10_101_010)


def table(text: str) -> tuple[dict[str, int], dict[str, int], set[str]]:
    """(flat, cum, inlined) of `-top`"""
    flat, cum, inlined = {}, {}, set()
    body = text.split("flat%", 1)[1].split("\n", 1)[1]
    for line in body.splitlines():
        alone, _, _, whole, _, *name = line.split(maxsplit=5)
        found = "".join(name)
        plain = found.removesuffix(" (inline)").removesuffix(" (partial-inline)")
        if plain != found:
            inlined.add(plain)
        # pprof leaves the unit away where there is nothing
        flat[plain], cum[plain] = (int(re.fullmatch(r"(\d+)(?:ns)?", number)[1]) for number in (alone, whole))
    return flat, cum, inlined


@pytest.mark.parametrize("index", ["samples", "delay"])
def test_pprof_adds_up_to_the_same(read, index):
    profile = profile_of(STACKS)
    text = read(file_of(profile, "delay"), "-top", f"-sample_index={index}", "-unit=ns")
    flat, cum = expected(profile, profile.counts if index == "samples" else profile.weights)
    found_flat, found_cum, inlined = table(text)
    named = [name for name in cum if name]  # one without is told as "[service]", the module that it is in
    assert {name: found_cum[printable(name)] for name in named} == {name: cum[name] for name in named}
    assert {name: found_flat[printable(name)] for name in named} == {name: flat[name] for name in named}
    assert found_flat["[service]"] == flat[""]
    assert sum(found_flat.values()) == sum(flat.values()) and len(found_cum) == len(cum)
    assert inlined == {LESS.function, KEY.function}
    assert "Type: " + index in text and "Duration: 2.50s" in text and "Time: 2023-11-14" in text and "File: service" in text
    assert not set(text) & {"\x1b", "\u202e"}


def test_pprof_shows_every_stack(read):
    """Lines, files and inlined functions, one stack after the other."""
    profile = profile_of({stack: value for stack, value in STACKS.items() if not set(stack) & set(HOSTILE)})
    text = read(file_of(profile), "-traces", "-lines", "-unit=ns")
    found = Counter()
    for part in text.split("-----------+-------------------------------------------------------")[1:]:
        lines = part.split("\n")[1:]
        if not lines[0].strip():
            continue
        weight, first = lines[0].split(maxsplit=1)
        stack = [first, *(line.strip() for line in lines[1:] if line.strip())]
        found[tuple(name.removesuffix(" (inline)") for name in reversed(stack))] += int(weight.removesuffix("ns"))
    assert found == Counter(
        {
            tuple(
                f"{frame.function} {frame.file}:{frame.line}" if frame.file else frame.function for frame in stack
            ): weight
            for stack, (weight, _) in STACKS.items()
            if not set(stack) & set(HOSTILE)
        }
    )


def test_pprof_has_one_location_for_inlined_functions(read):
    text = read(file_of(profile_of(STACKS)), "-raw")
    locations = text.split("\nLocations\n")[1].split("\nMappings\n")[0]
    # the innermost first; those after it, on lines of their own, are what it was compiled into
    whole = [re.findall(r"([\w.()*\[\]/]+) /\S+?:(\d+)", each) for each in re.split(r"\n +\d+: ", "\n" + locations)]
    assert [(KEY.function, "31"), (LESS.function, "30"), (SORT.function, "20")] in whole
    assert [(KEY.function, "31"), (LESS.function, "30")] in whole
    mappings = text.split("\nMappings\n")[1]
    named = re.findall(r"^\d+: \S+ (\S+) +\[FN\]\[FL\]\[LN\]\[IN\]$", mappings, re.M)
    assert named == ["service", "libc.so.6", "[kernel.kallsyms]"]
    assert "PeriodType: cpu nanoseconds\nPeriod: 10101010\n" in text


def test_pprof_of_nothing_and_of_other_units(read):
    assert read(file_of(profile_of({})), "-raw")
    assert read(file_of(profile_of({(): (5, 1)})), "-raw")
    profile = profile_of({(MAIN,): (4096, 2)}, "bytes")
    assert "samples/count alloc/bytes" in read(file_of(profile, "alloc"), "-raw")
    assert file_of(profile) == file_of(profile)


def many(stacks: int, depth: int) -> Profile:
    """Made-up stacks of functions, of which every third one is inlined."""
    draw = np.random.default_rng(7)
    frames = [Frame(f"main.f{n}", "/src/f.go", n, "service", USER if n % 3 else INLINED) for n in range(900)]
    path = draw.integers(0, len(frames), stacks * depth).astype(np.int32)
    ends = np.sort(draw.integers(0, len(path) + 1, stacks - 1))
    return Profile(frames, path, np.append(ends, len(path)), draw.integers(0, 9_999, stacks), np.ones(stacks, np.int64))


def test_pprof_of_many_stacks(read):
    """Chains of inlined functions of every length, and stacks of none, add up too."""
    profile = many(20_000, 7)
    flat, cum = Counter(), Counter()
    for number in range(len(profile)):
        names = [frame.function for frame in profile.stack(number)]
        if names:
            flat[names[-1]] += int(profile.weights[number])
        for name in set(names):
            cum[name] += int(profile.weights[number])
    found_flat, found_cum, _ = table(read(file_of(profile), "-top", "-unit=ns"))
    assert found_cum == dict(cum)
    assert found_flat == {name: flat[name] for name in cum}


@pytest.fixture(scope="session")
def schema():
    command = [targets.ROOT / "scripts" / "npm-package", SPEEDSCOPE]
    folder = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    with open(f"{folder}/dist/release/file-format-schema.json") as file:
        return json.load(file)


@pytest.mark.parametrize("profile", [profile_of(STACKS), profile_of({}), profile_of({(): (5, 1)}), many(2_000, 9)])
def test_speedscope_by_its_own_schema(schema, profile):
    import jsonschema

    text = speedscope(profile, "service <&>\n'\"")
    told = json.loads(text)
    jsonschema.validate(told, schema)
    # a misspelt name would be none that the schema minds
    assert told.keys() <= schema["definitions"]["FileFormat.File"]["properties"].keys()
    (shown,) = told["profiles"]
    assert shown.keys() == schema["definitions"]["FileFormat.SampledProfile"]["properties"].keys()
    frames = told["shared"]["frames"]
    assert all(frame.keys() <= schema["definitions"]["FileFormat.Frame"]["properties"].keys() for frame in frames)
    assert shown["unit"] == "nanoseconds" and shown["endValue"] == sum(shown["weights"]) == profile.weights.sum()
    stacks = [[frames[number]["name"] for number in stack] for stack in shown["samples"]]
    assert stacks == [[frame.function for frame in profile.stack(number)] for number in range(len(profile))]
    assert shown["weights"] == profile.weights.tolist()
    assert len({(frame["name"], frame.get("file")) for frame in frames}) == len(frames)
    assert text.isascii()


def test_speedscope_knows_no_other_units():
    assert json.loads(speedscope(profile_of({}, "bytes"), ""))["profiles"][0]["unit"] == "bytes"
    assert json.loads(speedscope(profile_of({}, "switches"), ""))["profiles"][0]["unit"] == "none"
