"""Recordings on disk, against Arrow's own library: whole, cut off, and damaged."""

from __future__ import annotations

import contextlib
import errno
import io
import random
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gotrace.errors import GotraceError
from gotrace.kernel.ring import wire_dtype
from gotrace.recording import format as form
from gotrace.recording.reader import Chunk, Recording
from gotrace.recording.writer import Writer
from gotrace.run.sources import Replayed

RECORDINGS = Path(__file__).parents[1] / "testdata" / "recordings"
HEADER = {"probes": {}, "about": 'ä "quoted" name', "clock": {"wall_offset_ns": 0}}
SIZES = (1000, 1, 70_000)


def parts() -> list[Any]:
    random_ = np.random.default_rng(1)
    out = [np.zeros(size, wire_dtype()) for size in SIZES]
    for part in out:
        for name in form.COLUMNS:
            highest = np.iinfo(part[name].dtype).max
            part[name] = random_.integers(0, highest, len(part), part[name].dtype, endpoint=True)
        part["kind"] |= form.FIRST_EVENT
    return out


def write(file: BinaryIO) -> None:
    writer = Writer(file, HEADER, wire_dtype())
    for number, part in enumerate(parts(), 1):
        writer.note(form.TEXT, form.NUMBERED | number, b"text %d" % number)
        writer.note(form.LOSS, number)
        writer.events(part)
        writer.flush()
    writer.flush()
    writer.close({"ended": "duration"})


def read(path: Path) -> tuple[Recording, list[Chunk]]:
    with Recording.open(str(path)) as recording:
        return recording, list(recording.chunks())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "run.gotrace"
    with open(path, "wb", buffering=0) as file:
        write(file)
    return path


def test_what_was_written_is_read(path: Path) -> None:
    recording, chunks = read(path)
    assert recording.header == {**HEADER, "version": form.VERSION} and not recording.cut_off
    assert [len(chunk.events) for chunk in chunks] == [*SIZES, 0]
    assert all(np.array_equal(chunk.events, part) for chunk, part in zip(chunks, parts(), strict=False))
    assert recording.text_of(form.NUMBERED | 3) == "text 3" and recording.lost == 3
    assert recording.end == {"ended": "duration"}


def test_arrow_and_duckdb_read_the_same(path: Path) -> None:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        rows = stream.read_all()
        assert file.tell() == path.stat().st_size  # nothing behind the end that Arrow sees
    rows.validate(full=True)
    fields = [pa.field(name, pa.from_numpy_dtype(wire_dtype()[name]), nullable=False) for name in form.COLUMNS]
    assert rows.schema.equals(pa.schema([*fields, pa.field("data", pa.binary())]), check_metadata=False)
    everything = np.concatenate(parts())
    events = rows.filter(pc.greater_equal(rows["kind"], form.FIRST_EVENT))
    for name in form.COLUMNS:
        assert np.array_equal(events[name].to_numpy(), everything[name]), name
    assert events["data"].null_count == len(events)
    notes = rows.filter(pc.less(rows["kind"], form.FIRST_EVENT))
    assert notes["data"].to_pylist()[:4] == [b"text 1", b"", b"text 2", b""] and not notes["data"].null_count
    (found,) = duckdb.sql("select count(*), sum(a), count(data) from rows where kind >= 256").fetchall()
    assert found == (sum(SIZES), sum(everything["a"].tolist()), 0)


def test_cut_off_anywhere_it_is_read_up_to_the_last_whole_chunk(path: Path, tmp_path: Path) -> None:
    whole, cut = path.read_bytes(), tmp_path / "cut.gotrace"
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        ends = [file.tell()]
        with contextlib.suppress(StopIteration):
            while True:
                stream.read_next_batch()
                ends.append(file.tell())
    ends[-1] = min(ends[-1], len(whole))
    near = {end + more for end in ends for more in (-9, -8, -1, 0, 1, 4, 8, 9, 100)}
    for size in sorted(size for size in near | set(range(0, len(whole), len(whole) // 50)) if size < len(whole)):
        cut.write_bytes(whole[:size])
        if size < ends[0]:
            with pytest.raises(
                GotraceError, match="is not a gotrace recording" if size < 8 else "is cut off in its header"
            ):
                read(cut)
            continue
        recording, chunks = read(cut)
        assert len(chunks) == sum(end <= size for end in ends[1:])
        assert recording.cut_off == (len(chunks) < len(SIZES) + 1)


@pytest.mark.parametrize("name", ["faults", "tlb", "numa"])
def test_cut_off_behind_its_header_it_watched_for_no_time(tmp_path: Path, name: str) -> None:
    whole, cut = (RECORDINGS / f"{name}.gotrace").read_bytes(), tmp_path / "cut.gotrace"
    cut.write_bytes(whole[: 8 + int.from_bytes(whole[4:8], "little")])
    with Recording.open(str(cut)) as recording:
        source = Replayed(recording)
        assert [len(events) for events in source.portions()] == [] and source.now_ns == source.begin_ns > 0
        assert source.end["ended"] == "recording truncated" and source.end["duration_ns"] == 0


@pytest.mark.parametrize("name", ["perf", "gc-1.19"])
def test_damaged_it_is_no_recording_or_one_that_was_cut_off(tmp_path: Path, name: str) -> None:
    whole, path = (RECORDINGS / f"{name}.gotrace").read_bytes(), tmp_path / "damaged.gotrace"
    draw = random.Random(20231114)
    opened = 0
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 8))):
            at = draw.randrange(len(damaged) if draw.random() < 0.5 else 6000)
            new = draw.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", draw.randbytes(1)))
            damaged[at : at + len(new)] = new
        path.write_bytes(damaged)
        with contextlib.suppress(GotraceError):
            read(path)
            opened += 1
    assert 100 < opened < 1400


@pytest.mark.parametrize("data", [b"", b"\xff" * 9, b"\0" * 4096, b"hello\n" * 100, b"ARROW1\0\0" * 20], ids=repr)
def test_something_else_is_no_recording(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(data)
    with pytest.raises(GotraceError, match="is not a gotrace recording"):
        read(path)


@pytest.mark.parametrize("metadata", [None, {"gotrace": "[1]"}, {"gotrace": "{"}, {"gotrace": '{"version": 1}'}], ids=repr)
def test_an_arrow_stream_of_somebody_elses_is_no_recording(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    columns = [pa.field(name, pa.uint64()) for name in form.COLUMNS]
    schemas = [[*columns, pa.field("data", pa.string())], [pa.field("x", pa.list_(pa.int8()))], []]
    for fields in schemas:
        path = tmp_path / "other"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, pa.schema(fields, metadata)):
            pass
        with pytest.raises(GotraceError, match="is not a gotrace recording"):
            read(path)


class Disk(io.RawIOBase):
    """Has room for ``room`` bytes, and takes no more than ``most`` at once."""

    def __init__(self, room: int, most: int) -> None:
        self.content = b""
        self._room, self._most = room, most

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        taken = bytes(data)[: min(self._most, self._room - len(self.content))]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.content += taken
        return len(taken)


def test_a_write_that_takes_a_part_is_continued(path: Path) -> None:
    disk = Disk(1 << 30, 1000)
    write(disk)  # type: ignore[arg-type]
    # but for the moments of the notes
    with pa.ipc.open_stream(disk.content) as ours, pa.ipc.open_stream(path.read_bytes()) as expected:
        assert ours.read_all().drop_columns("time_ns").equals(expected.read_all().drop_columns("time_ns"))


def test_what_was_written_before_the_disk_was_full_stays_readable(path: Path, tmp_path: Path) -> None:
    disk = Disk(path.stat().st_size // 2, 1 << 30)
    with pytest.raises(OSError, match="No space left on device"):
        write(disk)  # type: ignore[arg-type]
    full = tmp_path / "full.gotrace"
    full.write_bytes(disk.content)
    recording, chunks = read(full)
    assert recording.cut_off and [len(chunk.events) for chunk in chunks] == [*SIZES[:2]]


def test_stacks_and_tasks_told_before_tracing_began_are_kept_of_every_probe() -> None:
    """The rest of what version 0.1.0 recorded before then is not."""
    kept, left = 0, 0
    with Recording.open(str(RECORDINGS / "all.gotrace")) as recording:
        begin = recording.header["clock"]["begin_ns"]
        probes = recording.header["probes"].values()
        told = {kind["number"] for probe in probes for name, kind in probe["kinds"].items() if name in ("stack", "task")}
        assert len(told) > 3
        for chunk in recording.chunks():
            early = chunk.events["time_ns"] < begin
            of_told = np.isin(chunk.events["kind"], sorted(told))
            kept += np.count_nonzero(~early | of_told)
            left += np.count_nonzero(early & ~of_told)
    with Recording.open(str(RECORDINGS / "all.gotrace")) as recording:
        assert sum(map(len, Replayed(recording).portions())) == kept
    assert left
