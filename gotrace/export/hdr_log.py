"""The HdrHistogram interval log (.hlog): one line per interval and tag, each with a whole histogram in it.

The format is that of org.HdrHistogram.HistogramLogWriter (format version 1.3, histograms in V2 encoding); the authority
is HistogramLogReader's class comment and HistogramLogScanner in https://github.com/HdrHistogram/HdrHistogram.
HistogramLogProcessor, HistogramLogVisualizer, hdrh.log and others read it. Two habits of these readers matter:

* A processor that is given no tag reads only the lines without one.
* An interval that starts before the log's StartTime is skipped.

Time stamps are absolute (seconds since the epoch), so there is no BaseTime line: that one is for relative ones.
"""

from __future__ import annotations

import datetime
import re

import numpy as np

from gotrace.analysis.histogram import Histogram, bucket_indexes, highest_values
from gotrace.text import Stream

FORMAT_VERSION = "1.3"
LEGEND = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
# Interval_Max is in milliseconds by convention (HistogramLogWriter's default maxValueUnitRatio); histograms are in ns.
MAX_VALUE_UNIT_RATIO = 1_000_000

_NOT_FOR_TAGS = re.compile("[^A-Za-z0-9-]+")


def tag(reason: str, part: str = "") -> str:
    """The tag of one kind of duration: the reason, and the part of it after a full stop.

    ``tag("GC mark termination", "total")`` is ``"GC_mark_termination.total"``. Every run of characters that are not
    ASCII letters, digits or hyphens becomes one underscore, because spaces, commas and line ends delimit the log's
    fields; at the ends it goes. So a tag never holds more than one full stop, and a shell takes it as it is.
    """
    words = [_NOT_FOR_TAGS.sub("_", text).strip("_") for text in (reason, part)]
    return ".".join([words[0] or "unknown", *filter(None, words[1:])])


class Writer:
    """Writes a log, header first, each line flushed as it is written: a crash loses at most the interval under way.

    ``file`` is an open text file, which the caller closes; ``start_time_s`` the log's StartTime in seconds since the
    epoch. OSError (disk full) passes through.
    """

    def __init__(self, file: Stream, start_time_s: float) -> None:
        self._file = file
        self._start_time_s = start_time_s
        date = datetime.datetime.fromtimestamp(start_time_s, datetime.timezone.utc)
        self.comment("[Logged with gotrace; values are nanoseconds]")
        self.comment(f"[Histogram log format version {FORMAT_VERSION}]")
        self.comment(f"[StartTime: {start_time_s:.3f} (seconds since epoch), {date:%a %b %d %H:%M:%S} UTC {date:%Y}]")
        self._line(LEGEND)

    def comment(self, text: str) -> None:
        """A line that every reader skips."""
        self._line("#" + " ".join(text.splitlines()))

    def write(self, tag: str | None, start_s: float, end_s: float, histogram: Histogram) -> None:
        """One interval's histogram of nanoseconds, under a tag made by `tag`, or under none.

        Times are seconds since the epoch. A start before the log's own (the clock was set back) is moved up to it.
        What the histogram could not count goes into a comment, because the format has no field for it.
        """
        start_s = max(start_s, self._start_time_s)
        length_s = max(end_s - start_s, 0.0)
        prefix = f"Tag={tag}," if tag else ""
        largest = hdr_max(histogram) / MAX_VALUE_UNIT_RATIO
        if histogram.out_of_range:
            self.comment(f"[{tag or 'untagged'}: {histogram.out_of_range} values out of range in the next interval]")
        self._line(f"{prefix}{start_s:.3f},{length_s:.3f},{largest:.3f},{histogram.encode().decode('ascii')}")

    def _line(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()


def hdr_max(histogram: Histogram) -> int:
    """The maximum as HdrHistogram reports it: the upper end of the bucket that the largest value is in."""
    if not histogram.max:
        return 0
    return int(highest_values(bucket_indexes(np.array([histogram.max])))[0])
