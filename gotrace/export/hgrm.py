"""The percentile distribution (.hgrm) that HdrHistogram's outputPercentileDistribution prints.

Line for line that of org.HdrHistogram.AbstractHistogram (2.2.2), which HistogramLogProcessor and the plotters agree on,
and not hdrh's: that one takes other steps towards 100 %, does not scale the deviation, and words the footer otherwise.

Plotters take all lines that are not comments for one curve, so a file has exactly one distribution in the open: that of
the first name. The other names' distributions follow as comments, for people to read; to plot one of them:
``sed -n '/^# #.Tag: NAME]/,/#.Buckets/s/^#//p' all.hgrm > one.hgrm``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

from gotrace.analysis.histogram import (
    BUCKETS,
    SIGNIFICANT_DIGITS,
    SUB_BUCKETS,
    Histogram,
    bucket_widths,
    highest_values,
    lowest_values,
)
from gotrace.export.hdr_log import hdr_max
from gotrace.text import Stream

# Values are printed in microseconds: with the format's three decimals they are exact to the nanosecond, and stopping
# the world of a Go program takes a few of them. (`HistogramLogProcessor -outputValueUnitRatio 1000` does the same.)
UNIT_NS, UNIT_NAME = 1000.0, "microseconds"
TICKS_PER_HALF_DISTANCE = 5


def write(file: Stream, named: Mapping[str, Histogram]) -> None:
    """Write one file for all of ``named``, the first of which is what plotters see (an empty one if there is none)."""
    for position, (name, histogram) in enumerate((named or {"none": Histogram()}).items()):
        text = f"#[Tag: {name}]\n#[Unit: {UNIT_NAME}]\n{distribution(histogram)}"
        if position:
            text = "".join(f"# {line}".rstrip() + "\n" for line in ["", *text.splitlines()])
        file.write(text)
    file.flush()


def distribution(histogram: Histogram, unit: float = UNIT_NS, ticks: int = TICKS_PER_HALF_DISTANCE) -> str:
    """The text of one distribution; values are divided by ``unit``, ``ticks`` steps lead half the way to 100 %."""
    digits = SIGNIFICANT_DIGITS
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} 1/(1-Percentile)", ""]
    for value, level, count in _steps(histogram, ticks):
        line = f"{_fixed(value / unit, digits):>12} {_fixed(level / 100, 12)} {count:>10}"
        lines.append(line if level == 100 else f"{line} {_fixed(1 / (1 - level / 100), 2):>14}")
    mean, deviation = (_fixed(moment / unit, digits) for moment in _moments(histogram))
    largest = _fixed(hdr_max(histogram) / unit, digits)
    lines += [
        f"#[Mean    = {mean:>12}, StdDeviation   = {deviation:>12}]",
        f"#[Max     = {largest:>12}, Total count    = {histogram.count:>12}]",
        f"#[Buckets = {BUCKETS:>12}, SubBuckets     = {SUB_BUCKETS:>12}]",
    ]
    return "".join(f"{line}\n" for line in lines)


def _steps(histogram: Histogram, ticks: int) -> Iterator[tuple[int, float, int]]:
    """(value, percentile level, count up to there), as HdrHistogram's PercentileIterator gives them."""
    indexes, counts = histogram.nonzero()
    if not len(indexes):
        return
    values, up_to_here = highest_values(indexes), np.cumsum(counts)
    reached = 100.0 * up_to_here / histogram.count
    last, position, level = len(indexes) - 1, 0, 0.0
    while True:
        position = max(position, min(int(np.searchsorted(reached, level)), last))
        yield int(values[position]), level, int(up_to_here[position])
        if position == last:
            break
        # The steps are even up to 50 %, half as wide up to 75 %, and so on.
        halvings = int(math.log(100.0 / (100.0 - level)) / math.log(2)) + 1
        level += 100.0 / (ticks * 2**halvings)
    yield int(values[last]), 100.0, int(up_to_here[last])


def _moments(histogram: Histogram) -> tuple[float, float]:
    """Mean and standard deviation with every value taken for the middle of its bucket, as HdrHistogram does."""
    indexes, counts = histogram.nonzero()
    if not len(indexes):
        return 0.0, 0.0
    middles = (lowest_values(indexes) + (bucket_widths(indexes) >> 1)).astype(np.float64)
    mean = float(np.sum(middles * counts) / histogram.count)
    return mean, math.sqrt(float(np.sum((middles - mean) ** 2 * counts)) / histogram.count)


def _fixed(number: float, digits: int) -> str:
    # Java rounds halves of the shortest decimal form up, C and Python those of the binary number to even.
    return f"{Decimal(repr(number)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):f}"
