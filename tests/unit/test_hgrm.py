"""Percentile distributions against what HdrHistogram prints."""

from __future__ import annotations

import io
import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.iterators import PercentileIterator
from hypothesis import given, settings
from hypothesis import strategies as st

from gotrace.analysis.histogram import HIGHEST, LOWEST, SIGNIFICANT_DIGITS, Histogram
from gotrace.export import hgrm

# Printed by HistogramLogProcessor of HdrHistogram 2.2.2 (-outputValueUnitRatio 1000) for the values of `golden`.
GOLDEN = """\
       Value     Percentile TotalCount 1/(1-Percentile)

       0.000 0.000000000000          1           1.00
      10.415 0.100000000000          5           1.11
      10.959 0.200000000000          9           1.25
      11.511 0.300000000000         13           1.43
      12.055 0.400000000000         17           1.67
      12.607 0.500000000000         21           2.00
      13.015 0.550000000000         24           2.22
      13.295 0.600000000000         26           2.50
      13.567 0.650000000000         28           2.86
      13.839 0.700000000000         30           3.33
      14.111 0.750000000000         32           4.00
      14.247 0.775000000000         33           4.44
      14.391 0.800000000000         34           5.00
      14.527 0.825000000000         35           5.71
      14.663 0.850000000000         36           6.67
      14.799 0.875000000000         37           8.00
      14.935 0.887500000000         38           8.89
      14.935 0.900000000000         38          10.00
      15.071 0.912500000000         39          11.43
      15.071 0.925000000000         39          13.33
      15.207 0.937500000000         40          16.00
      15.207 0.943750000000         40          17.78
      15.207 0.950000000000         40          20.00
      15.343 0.956250000000         41          22.86
      15.343 0.962500000000         41          26.67
      15.343 0.968750000000         41          32.00
      15.343 0.971875000000         41          35.56
      15.343 0.975000000000         41          40.00
    1234.943 0.978125000000         42          45.71
    1234.943 1.000000000000         42
#[Mean    =       41.460, StdDeviation   =      186.327]
#[Max     =     1234.943, Total count    =           42]
#[Buckets =           32, SubBuckets     =         2048]
"""


def histogram(values: list[int]) -> Histogram:
    out = Histogram()
    out.record(np.array(values, np.int64))
    return out


def golden() -> Histogram:
    return histogram([10_000 + 137 * i for i in range(40)] + [1_234_567, 0])


class _EvenSteps(PercentileIterator):  # type: ignore[misc]
    """hdrh's iterator with the steps of the original, which rounds the halvings down to a whole number."""

    def increment_iteration_level(self) -> None:
        gap = 100.0 - self.percentile_to_iterate_to
        if gap:
            halvings = int(math.log(100 / gap) / math.log(2)) + 1
            self.percentile_to_iterate_to += 100.0 / (self.percentile_ticks_per_half_distance * 2**halvings)


class _Hdrh(HdrHistogram):  # type: ignore[misc]
    def get_percentile_iterator(self, ticks: int) -> PercentileIterator:
        return _EvenSteps(self, ticks)


def numbers(text: str) -> list[list[float]]:
    return [[float(number) for number in re.findall(r"\d+\.?\d*", line)] for line in text.splitlines()]


def test_it_prints_what_the_original_prints() -> None:
    assert hgrm.distribution(golden()) == GOLDEN


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 40).flatmap(lambda bits: st.integers(0, 1 << bits)), max_size=50))
def test_numbers_are_hdrhs(values: list[int]) -> None:
    theirs = _Hdrh(LOWEST, HIGHEST, SIGNIFICANT_DIGITS)
    for value in values:
        theirs.record_value(value)
    file = io.BytesIO()
    theirs.output_percentile_distribution(file, 1.0)
    ours = hgrm.distribution(histogram(values), unit=1.0)
    for mine, other in zip(numbers(ours), numbers(file.getvalue().decode()), strict=True):
        # a half of the last digit is rounded differently, and sums are taken in another order
        assert mine == pytest.approx(other, rel=1e-12, abs=0.00101 if len(mine) == 2 else 1.01e-12)


def test_an_empty_histogram() -> None:
    text = hgrm.distribution(Histogram())
    assert text.splitlines()[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert "#[Max     =        0.000, Total count    =            0]" in text


def test_values_scale_with_the_unit() -> None:
    lines = hgrm.distribution(histogram([2_000_000]), unit=1e6).splitlines()
    assert lines[2].split()[:3] == ["2.001", "0.000000000000", "1"]


def curve(text: str) -> list[str]:
    """The lines that plotters draw: no comment, four fields."""
    return [line for line in text.splitlines() if not line.startswith("#") and len(line.split()) == 4][1:]


def test_a_file_has_one_curve_in_the_open(tmp_path: Path) -> None:
    path = tmp_path / "all.hgrm"
    first, second = golden(), histogram([5, 7_000])
    with path.open("w") as file:
        hgrm.write(file, {"all_pauses.total": first, "GC.total": second, "GC.stopping": first})
    text = path.read_text()
    assert text.startswith("#[Tag: all_pauses.total]\n#[Unit: microseconds]\n")
    assert curve(text) == curve(hgrm.distribution(first))
    # the command of the module's docstring
    command = re.search(r"``(sed .*?) all.hgrm", hgrm.__doc__ or "")
    assert command is not None
    extract = command[1].replace("NAME", "GC.total")
    taken = subprocess.run(f"{extract} {path}", shell=True, capture_output=True, text=True, check=True).stdout
    assert taken.splitlines()[0] == " #[Tag: GC.total]"
    assert [line.split() for line in curve(taken)] == [line.split() for line in curve(hgrm.distribution(second))]


def test_nothing_to_write_is_still_a_distribution() -> None:
    file = io.StringIO()
    hgrm.write(file, {})
    assert hgrm.distribution(Histogram()) in file.getvalue()
