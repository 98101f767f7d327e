"""Recording 10 million values: our histogram, an array at a time, against a loop over hdrh's ``record_value``."""

from __future__ import annotations

import json
import statistics
import time

import numpy as np
from hdrh.histogram import HdrHistogram

from gotrace.analysis.histogram import HIGHEST, LOWEST, SIGNIFICANT_DIGITS, Histogram

VALUES = 10_000_000
OUR_ROUNDS = 5  # the median of these; theirs runs once, for it takes longer than all of ours by far


def pauses(count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Made-up durations in nanoseconds: a median of 36 us, one in a thousand above 2 ms, whole numbers from 100 ns."""
    drawn = np.random.default_rng(20231114).lognormal(10.5, 1.3, count)
    return np.clip(drawn, 100, HIGHEST).astype(np.int64)


def run() -> dict[str, object]:
    """Both sides over the same values, all of them; the counts are compared afterwards."""
    values = pauses(VALUES)
    ours: list[float] = []
    for _ in range(OUR_ROUNDS):
        histogram = Histogram()
        begin = time.perf_counter()
        histogram.record(values)
        ours.append(time.perf_counter() - begin)

    reference = HdrHistogram(LOWEST, HIGHEST, SIGNIFICANT_DIGITS)
    numbers = values.tolist()  # not timed: to hdrh's advantage, a loop gets Python's own integers
    record = reference.record_value
    begin = time.perf_counter()
    for number in numbers:
        record(number)
    theirs = time.perf_counter() - begin

    counts = np.frombuffer(reference.counts, np.int64)[: len(histogram.counts)]
    if histogram.count != reference.total_count or not np.array_equal(counts, histogram.counts):
        raise AssertionError("the two histograms differ")
    seconds = statistics.median(ours)
    return {
        "name": "histogram_record",
        "ours": round(seconds, 6),
        "theirs": round(theirs, 3),
        "unit": "s per 10 M values",
        "ratio": round(seconds / theirs, 6),
    }


if __name__ == "__main__":
    print(json.dumps(run()))
