"""What `gotrace fleet show`, `choose` and `trend` answer as JSON: each one object.

Times of metrics are in ns and sizes in bytes, other metrics in their own unit; null is unknown, or not shown for lack of
values or hosts.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

Hosts = Annotated[int, "hosts"]
Settings = Annotated[
    dict[str, list[str]], "all values of each setting: go_version, gogc, page_bytes, huge_pages, numa_nodes"
]


class Interval(TypedDict):
    """The median over hosts, and its 95 % interval, which is null if there are too few hosts."""

    value: float
    low: float | None
    high: float | None


class FleetEstimate(Interval):
    """With its confidence."""

    confidence: Annotated[float, "0.95; 1 without an interval"]


class BrokenFile(TypedDict):
    """A file that could not be read and was skipped."""

    file: str
    problem: str


class Group(TypedDict):
    """A service on a group of hosts."""

    group: str
    service: str
    emulated: bool


class Percentile(TypedDict):
    """A percentile of all values of a group."""

    value: Annotated[float, "ns"]
    exact: Annotated[bool, "otherwise within 1.1 %"]


Percentiles = Annotated[dict[str, Percentile | None], "p50 to p99.99, empty for a metric of runs; null: too few values"]


class ShownGroup(Group):
    """The metric that was asked for."""

    hosts: Hosts
    values: int
    percentiles_ns: Percentiles
    median_of_hosts: Interval | None
    hosts_counted: Annotated[int, "hosts with enough values for the metric"]
    quarters_of_day: Annotated[int, "quarters of the day (UTC) in which it was measured, of 4"]
    days: int
    not_enough: Annotated[str | None, "what is missing for a comparison with others"]
    between_hosts: Annotated[float | None, "standard deviation of logarithms"]
    within_host: Annotated[float | None, "the same, from one quarter of a day to the next"]
    letters: Annotated[str | None, "groups that share a letter cannot be told apart; null: not compared"]
    lost: Annotated[int, "events"]
    settings: Settings


class ShownTest(TypedDict):
    """The Mann-Whitney test on the hosts of two groups, Holm-adjusted for all pairs."""

    service: str
    a: str
    b: str
    p: float


class ShownReason(Group):
    """Stop-the-world pauses for one reason."""

    reason: str
    values: int
    percentiles_ns: Percentiles
    longest_ns: float


class ShownPause(TypedDict):
    """One of the longest pauses of all."""

    length_ns: int
    time_ns: Annotated[int | None, "since 1970"]
    host: str
    service: str
    version: str | None
    reason: str
    cause: Annotated[str | None, "null: not explained"]
    recording: str | None
    emulated: bool


class ShownAbsent(TypedDict):
    """A host that could not be reached."""

    host: str | None
    url: str
    times: int
    last_ns: Annotated[int, "since 1970"]
    problem: str


class ShownSkew(TypedDict):
    """A clock that is off by more than five minutes."""

    host: str
    skew_ns: int


class ShownAmplification(Group):
    """MAF, RSS / HeapAlloc, and what it consists of: medians over hosts."""

    hosts: Hosts
    maf: float
    rss_bytes: float | None
    heap_bytes: float | None
    live_bytes: float | None
    goal_bytes: float | None
    settings: Settings


class ShownResident(Group):
    """What RSS consists of."""

    hosts: Hosts
    parts_bytes: dict[str, float]


class AlongValue(TypedDict):
    """The hosts that have one value of a setting."""

    value: str
    hosts: Hosts
    maf: float


class ShownAlong(TypedDict):
    """MAF by the values of a setting, which need not be the cause."""

    service: str
    setting: str
    values: list[AlongValue]
    differs_together_with: Annotated[list[str], "settings that differ on the same hosts"]


class ShownStage(Group):
    """A stage of starts."""

    stage: str
    hosts: Hosts
    runs: int
    median_ns: float


class ShownClaim(TypedDict):
    """A published figure, from --claims."""

    group: str
    service: str
    metric: str
    value: str
    source: str


class ChoiceCut(TypedDict):
    """A type that a question ruled out."""

    type: str
    why: str


class ChoiceStep(TypedDict):
    """A question asked of all types that remained."""

    question: str
    kept: list[str]
    cut: list[ChoiceCut]


class ChoiceRule(TypedDict):
    """Which type to take, and when."""

    when: str
    take: str
    not_told_apart_from: str | None


class ChoicePrice(TypedDict):
    """The price of a machine, per hour."""

    provider: str
    instance: str
    region: str
    per_hour: float
    currency: str
    date: Annotated[str, "2026-11-30"]
    origin: Annotated[str, "whose price list it is from"]


class ChoiceStability(TypedDict):
    """Standard deviations of logarithms."""

    between: Annotated[float | None, "from host to host"]
    within: Annotated[float | None, "on a host from day to day"]


class ChoiceBurst(TypedDict):
    """A burstable type, whose CPU time is limited by credits."""

    what: str
    source: Annotated[str, "where the vendor says so"]
    past: Annotated[bool, "measured past its credits"]


class ChoiceType(TypedDict):
    """A type of machine, with the evidence."""

    type: str
    provider: str | None
    instance: str
    hosts: Hosts
    runs: int
    days: Annotated[list[str] | None, "the first and the last day"]
    plan: Annotated[str | None, "the load that counts"]
    versions: list[str]
    go_versions: list[str]
    metrics: dict[str, FleetEstimate]
    price: ChoicePrice | None
    cost_of_a_million: Annotated[FleetEstimate | None, "of a million requests, in the currency of the price"]
    stability: ChoiceStability
    letters: str | None
    burstable: ChoiceBurst | None
    cut: Annotated[str | None, "why it was left out"]
    beaten_by: str | None


class ShownCosts(TypedDict):
    """What a million requests of a service cost, against a percentile."""

    service: str
    metric: str
    types: list[ChoiceType]
    front: Annotated[list[str], "types for which no other is both cheaper and faster"]
    without: Annotated[list[ChoiceCut], "types without a cost"]


class ShownCounts(TypedDict):
    """What an emulated machine has of a service, without times."""

    host: str
    service: str
    runs: int
    pauses: Annotated[dict[str, int], "by reason"]
    causes: Annotated[dict[str, int], "of those that were explained"]


class FleetShow(TypedDict):
    """`gotrace fleet show`."""

    schema: Literal["gotrace.fleet-show/1"]
    by: str
    metric: str
    groups: list[ShownGroup]
    tests: list[ShownTest]
    reasons: list[ShownReason]
    longest: list[ShownPause]
    absent: list[ShownAbsent]
    skewed_clocks: list[ShownSkew]
    broken_files: list[BrokenFile]
    emulated_left_out: Annotated[list[str], "hosts whose times are not included"]
    emulated_counts: Annotated[list[ShownCounts], "what else is known of those"]
    invalid_runs: Annotated[int, "runs that do not count"]
    notes: list[str]
    amplification: list[ShownAmplification]
    resident: list[ShownResident]
    amplification_along: list[ShownAlong]
    starts: list[ShownStage]
    costs: Annotated[list[ShownCosts], "of each service, where prices are known"]
    claims: list[ShownClaim]


class FleetChoice(TypedDict):
    """`gotrace fleet choose`."""

    schema: Literal["gotrace.choice/1"]
    service: str
    ranked_by: str
    slos: list[str]
    steps: list[ChoiceStep]
    rules: list[ChoiceRule]
    types: list[ChoiceType]
    broken: list[BrokenFile]
    notes: list[str]


class TrendDifference(TypedDict):
    """What else changed at that time."""

    field: str
    before: str
    after: str


class TrendMetric(TypedDict):
    """A new level of a metric."""

    metric: str
    plan: Annotated[str | None, "its load"]
    before: float
    after: float
    ratio: float
    p: Annotated[float, "p of the largest divergence of all points"]
    q: Annotated[float, "p of its series, adjusted for all series"]
    new: bool
    worse: bool
    points: Annotated[list[int], "number before and after it, in `per`"]


class TrendChange(TypedDict):
    """All that changed at once in one group."""

    at: Annotated[str, "the first day (2026-11-30) or hour (2026-11-30T14:00Z) of the new level"]
    group: dict[str, str | None]
    machines_changed: Annotated[bool, "whether machines or runtimes changed"]
    differences: Annotated[list[TrendDifference], "machines first"]
    hosts: Annotated[list[int], "number before and after"]
    fingerprints: Annotated[list[list[str]], "of machines before and after"]
    metrics: list[TrendMetric]


class FleetTrend(TypedDict):
    """`gotrace fleet trend`."""

    schema: Literal["gotrace.trend/2"]
    per: Annotated[Literal["day", "hour"], "what a point of a series is"]
    series: int
    too_short: Annotated[int, "series with fewer than 14 points"]
    without_ratio: Annotated[int, "series with values of 0 or below"]
    permutations: int
    new: Annotated[int, "a change within this many last points is new"]
    changes: list[TrendChange]
    broken: list[BrokenFile]
    notes: list[str]
