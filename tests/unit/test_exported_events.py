"""Events as tables, against what Arrow's own library makes of them, and what becomes of errors on the way."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest

from gotrace.recording.reader import Recording
from gotrace.run.export import write_events

RECORDINGS = Path(__file__).parents[1] / "testdata" / "recordings"


@pytest.mark.parametrize("name", [path.stem for path in sorted(RECORDINGS.glob("*.gotrace"))])
def test_what_is_exported_is_what_arrow_makes_of_it(name: str) -> None:
    """Parquet is read, and written as CSV, by Arrow: byte for byte what we write as CSV."""
    files = {format_: io.BytesIO() for format_ in ("parquet", "csv")}
    for format_, file in files.items():
        with Recording.open(str(RECORDINGS / f"{name}.gotrace")) as recording:
            write_events(recording, file, format_)
    table = pyarrow.parquet.read_table(files["parquet"])
    with Recording.open(str(RECORDINGS / f"{name}.gotrace")) as recording:
        assert len(table) == sum(len(chunk.events) for chunk in recording.chunks())
    common = {
        "type": pa.string(),
        "monotonic_ns": pa.int64(),
        "time": pa.timestamp("ns", "UTC"),
        "tid": pa.uint32(),
        "cpu": pa.uint16(),
    }
    own = dict.fromkeys(table.column_names[len(common) : -2], pa.uint64())
    assert table.schema.equals(pa.schema([*common.items(), *own.items(), ("text", pa.string()), ("frames", pa.string())]))
    clock = table["time"].cast(pa.timestamp("ns")).cast(pa.string())
    text = table.set_column(2, "time", pc.binary_join_element_wise(clock, "Z", ""))
    expected = io.BytesIO()
    pyarrow.csv.write_csv(text, expected)
    assert files["csv"].getvalue() == expected.getvalue()


class Full(io.RawIOBase):
    """A disk with room for a little."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if len(data) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)


@pytest.mark.parametrize("format_", ["parquet", "csv", "ndjson"])
def test_an_export_that_fails_says_why_and_nothing_else(format_: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Recording.open(str(RECORDINGS / "all.gotrace")) as recording, pytest.raises(OSError, match="No space left"):
        write_events(recording, Full(), format_)  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "")


def test_an_error_while_an_export_is_made_is_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Recording.open(str(RECORDINGS / "all.gotrace")) as recording:

        def interrupted(addresses: object) -> list[Any]:
            raise KeyboardInterrupt

        monkeypatch.setattr(recording, "frames", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_events(recording, io.BytesIO(), "parquet")
