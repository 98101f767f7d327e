"""`gotrace fleet show` on measured values under invented hosts (tests/fleets.py), against numpy on the values."""

from __future__ import annotations

import functools
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import fleets
import jsonschema
import numpy as np
import pytest
from scipy import stats
from spools import Written

from conftest import HOSTILE
from gotrace.cli.main import main
from gotrace.fleet.add import add
from gotrace.fleet.database import opened
from gotrace.fleet.machines import Told
from gotrace.fleet.show_stragglers import stragglers
from gotrace.fleet.store import adding

BUCKET = 0.011  # of a value that is not kept itself


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> fleets.Made:
    return fleets.made(tmp_path_factory.mktemp("fleet") / "shop")


@dataclass
class Result:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def show(*arguments: str) -> Result:
    return fleet_command("show", *arguments)


def fleet_command(*arguments: str) -> Result:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err, pytest.raises(SystemExit) as ended:
        main(["fleet", *arguments])
    return Result(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def told(folder: str, *arguments: str) -> dict[str, Any]:
    result = show(folder, "--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(found, schema())
    return found


@functools.cache
def schema() -> Any:
    return json.loads(show("--json-schema").stdout)


def nearest(values: fleets.IntArray, percent: float) -> float:
    return float(np.percentile(values, percent, method="inverted_cdf"))


def test_percentiles_are_those_of_all_values(fleet: fleets.Made) -> None:
    found = told(fleet.folder, "--metric", "latency.p99")["groups"]
    assert [(each["group"], each["hosts"]) for each in found] == [("c7g.large", 5), ("cax21", 5)]
    for each in found:
        hosts = [host for host, (_, instance) in fleets.TYPES.items() if instance == each["group"]]
        values = np.concatenate([fleet.of_host(host) for host in hosts])
        assert each["values"] == len(values)
        for name, percentile in each["percentiles_ns"].items():
            true = nearest(values, float(name[1:]))
            assert percentile["value"] == (true if percentile["exact"] else pytest.approx(true, rel=BUCKET))


def test_a_group_has_the_median_of_its_hosts(fleet: fleets.Made) -> None:
    for each in told(fleet.folder, "--metric", "latency.p99", "--by", "vendor")["groups"]:
        hosts = [host for host, (vendor, _) in fleets.TYPES.items() if vendor == each["group"]]
        p99 = [nearest(fleet.of_host(host), 99) for host in hosts]
        assert each["median_of_hosts"]["value"] == pytest.approx(np.median(p99), rel=BUCKET)
        assert min(p99) * (1 - BUCKET) <= each["median_of_hosts"]["low"] < each["median_of_hosts"]["high"]
        logs = np.log(p99)
        assert each["between_hosts"] == pytest.approx(np.std(logs, ddof=1), abs=2 * BUCKET)
        quarters = [[np.log(nearest(fleet.latencies[host, q], 99)) for q in range(4)] for host in hosts]
        within = np.sqrt(np.mean([np.var(of, ddof=1) for of in quarters]))
        assert each["within_host"] == pytest.approx(within, abs=2 * BUCKET)
        assert (each["quarters_of_day"], each["days"], each["not_enough"]) == (4, 2, None)


def test_types_that_do_not_differ_share_a_letter_and_a_slower_one_does_not(fleet: fleets.Made, tmp_path: Path) -> None:
    same = told(fleet.folder, "--metric", "latency.p50")
    assert {each["letters"] for each in same["groups"]} == {"a"}
    slow = fleets.made(tmp_path / "slow", slower=dict.fromkeys(fleets.HOSTS[:5], 5.0))
    found = told(slow.folder, "--metric", "latency.p50")
    assert {each["group"]: each["letters"] for each in found["groups"]} == {"cax21": "a", "c7g.large": "b"}
    sides = [[nearest(slow.of_host(host), 50) for host in hosts] for hosts in (fleets.HOSTS[:5], fleets.HOSTS[5:])]
    assert found["tests"][0]["p"] == pytest.approx(stats.mannwhitneyu(*sides, method="exact").pvalue)
    assert "Pairs that differ" in show(slow.folder, "--metric", "latency.p50").stdout


def test_a_metric_of_runs_is_their_median_on_each_host(fleet: fleets.Made) -> None:
    for each in told(fleet.folder, "--metric", "rss.peak", "--by", "vendor")["groups"]:
        hosts = [host for host, (vendor, _) in fleets.TYPES.items() if vendor == each["group"]]
        true = [np.median([fleet.metrics[host, quarter]["rss.peak"] for quarter in range(4)]) for host in hosts]
        assert each["median_of_hosts"]["value"] == pytest.approx(np.median(true))


def test_reasons_and_the_longest_pauses(fleet: fleets.Made) -> None:
    found = told(fleet.folder, "--by", "service", "--metric", "stw.total.p90")
    every = [pause for of in fleet.pauses.values() for pause in of]
    for each in found["reasons"]:
        values = np.array([pause.length_ns for pause in every if pause.reason == each["reason"]])
        assert each["values"] == len(values) and each["longest_ns"] == values.max()
        assert each["percentiles_ns"]["p90"]["value"] == pytest.approx(nearest(values, 90), rel=BUCKET)
        assert each["percentiles_ns"]["p99"] is None  # 368 are needed
    assert {each["reason"] for each in found["reasons"]} == {pause.reason for pause in every}
    lengths = sorted((pause.length_ns for pause in every), reverse=True)[:16]
    assert [each["length_ns"] for each in found["longest"]] == lengths
    causes = {pause.length_ns: pause.cause for pause in every}
    assert [each["cause"] for each in found["longest"]] == [causes[length] for length in lengths]
    assert any(causes[length] for length in lengths)


@pytest.mark.parametrize("emulated", [False, True])
def test_pauses_of_a_run_that_does_not_count(tmp_path: Path, emulated: bool) -> None:
    one = {"host": "host-0", "source": "s-host-0", "start_ns": fleets.START, "run": "0", "valid": False}
    fleet = fleets.made(tmp_path / "fleet", emulated=("host-0",) * emulated, more={"run": [one]})
    found = told(fleet.folder, "--by", "host", "--metric", "stw.total.p90")
    lengths = [pause.length_ns for (host, at), of in fleet.pauses.items() for pause in of if (host, at) != ("host-0", 0)]
    own = sum(len(of) for (host, at), of in fleet.pauses.items() if host == "host-0" and at)
    if emulated:
        assert [sum(each["pauses"].values()) for each in found["emulated_counts"]] == [own]
    else:
        assert sum(each["values"] for each in found["reasons"] if each["group"] == "host-0") == own
        assert [each["length_ns"] for each in found["longest"]] == sorted(lengths, reverse=True)[:16]
    assert found["invalid_runs"] == 1
    counted = "select sum(n)::bigint from merged where metric = 'stw.total' and host = 'host-0'"
    assert opened(str(fleet.folder)).rows(counted) == [(own,)]


def test_starts_are_the_runs_own(fleet: fleets.Made) -> None:
    for each in told(fleet.folder, "--metric", "latency.p99", "--by", "host")["starts"]:
        values = [fleet.metrics[each["group"], quarter][f"start.{each['stage']}"] for quarter in range(4)]
        assert each["median_ns"] == pytest.approx(np.median(values)) and each["runs"] == 4


def test_amplification_and_what_it_goes_along_with(tmp_path: Path) -> None:
    """Page size and Go version differ together on five hosts, GOGC on others: neither is called a cause."""
    large = {host: {"page_bytes": 65536, "go_version": "go1.26.1"} for host in fleets.HOSTS[:5]}
    fleet = fleets.made(tmp_path / "fleet", settings={**large, "host-7": {"gogc": "off"}})
    found = told(fleet.folder, "--metric", "latency.p99", "--by", "service")
    maf = {
        host: float(np.median([fleet.metrics[host, quarter]["mem.amplification"] for quarter in range(4)]))
        for host in fleets.HOSTS
    }
    (group,) = found["amplification"]
    assert group["maf"] == pytest.approx(np.median([*maf.values()])) and group["hosts"] == 10
    rss = [np.median([fleet.metrics[host, quarter]["rss.mean"] for quarter in range(4)]) for host in fleets.HOSTS]
    assert group["rss_bytes"] == pytest.approx(np.median(rss))
    assert group["settings"]["page_bytes"] == ["4096", "65536"]
    along = {each["setting"]: each for each in found["amplification_along"]}
    assert along.keys() == {"page_bytes", "go_version", "gogc"}
    values = {each["value"]: each for each in along["page_bytes"]["values"]}
    assert values["65536"]["maf"] == pytest.approx(np.median([maf[host] for host in fleets.HOSTS[:5]]))
    assert along["page_bytes"]["differs_together_with"] == ["go_version"] and not along["gogc"]["differs_together_with"]
    text = show(fleet.folder, "--metric", "latency.p99", "--by", "service").stdout
    assert "go1.26.1, go1.27.3" in text and "that does not make the setting the cause" in text


def test_a_setting_of_a_host_is_known_if_one_source_knows_it(tmp_path: Path) -> None:
    """A recording does not name the machine's; those of a process are its own."""
    of = {"service": "shop", "metric": "latency", "label": "", "start_ns": 0, "source": "x"}
    with adding(str(tmp_path / "f")) as addition:
        for host, print_, pages in (("a", "report", "madvise"), ("a", "recording", None), ("b", "recording", None)):
            about = {"host": host, "fingerprint": print_, "source": "x"}
            addition.add("host", [{**about, "seen_ns": 0, "huge_pages": pages, "instance": "large"}])
            addition.add("run", [{**about, "service": "shop", "start_ns": 0, "gogc": "50" if pages else None, "run": "1"}])
            addition.add("total", [{**of, **about, "count": 1, "zeros": 1}])

    def settings(by: str) -> list[tuple[list[str], list[str]]]:
        groups = told(str(tmp_path / "f"), "--metric", "latency.p50", "--by", by)["groups"]
        return [(each["settings"]["huge_pages"], each["settings"]["gogc"]) for each in groups]

    assert settings("host") == [(["madvise"], ["50", "unknown"]), (["unknown"], ["unknown"])]
    assert settings("type") == [(["madvise", "unknown"], ["50", "unknown"])]


def test_few_hosts_are_listed_and_not_compared(tmp_path: Path) -> None:
    types = {host: fleets.TYPES[host] for host in [*fleets.HOSTS[:5], *fleets.HOSTS[5:8]]}
    fleet = fleets.made(tmp_path / "fleet", types=types)
    found = {each["group"]: each for each in told(fleet.folder, "--metric", "latency.p99")["groups"]}
    assert found["cax21"]["not_enough"] == "3 of 5 hosts" and found["cax21"]["letters"] is None
    assert found["cax21"]["median_of_hosts"]["low"] is None
    assert "Not enough" in show(fleet.folder, "--metric", "latency.p99").stdout


def test_emulated_machines_have_no_times_unless_they_are_asked_for(tmp_path: Path) -> None:
    fleet = fleets.made(tmp_path / "fleet", emulated=("host-0",))
    found = told(fleet.folder, "--metric", "latency.p99")
    assert found["emulated_left_out"] == ["host-0"] and sum(each["hosts"] for each in found["groups"]) == 9
    assert not [each for each in found["longest"] if each["host"] == "host-0"]
    both = told(fleet.folder, "--metric", "latency.p99", "--emulated")
    (alone,) = (each for each in both["groups"] if each["emulated"])
    assert alone["hosts"] == 1 and alone["letters"] is None
    assert alone["values"] == len(fleet.of_host("host-0"))
    assert "c7g.large (emulated)" in show(fleet.folder, "--metric", "latency.p99", "--emulated").stdout


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    """Losses, a clock that is off, hosts that do not answer, and a file that is broken: exit 3 at the end."""
    whose = {"host": "host-1", "fingerprint": "f-host-1", "service": "shop", "version": "v1", "start_ns": fleets.START}
    more = {
        "absent": [
            {"host": "gone", "url": "http://gone:9464", "time_ns": fleets.START + at, "problem": "connection refused"}
            for at in range(3)
        ],
        "period": [{**whose, "skew_ns": -400 * 10**9, "rss_bytes": 3 << 20, "heap_bytes": 1 << 20, "lost": 0}],
    }
    fleet = fleets.made(tmp_path / "fleet", lost={"host-2": 7}, more=more)
    broken = next(Path(fleet.folder).glob("worst/date=*")) / "broken.parquet"
    broken.write_bytes(b"PAR1 not at all")
    result = show(fleet.folder, "--metric", "latency.p99")
    assert result.exit_code == 3
    assert "c7g.large (28)" in result.stdout and "are lower bounds" in result.stdout  # 7 of each of its four runs
    assert "host-1 (-6.67 min)" in result.stdout and "connection refused" in result.stdout
    assert f"LEFT OUT: {broken}" in result.stdout
    found = json.loads(show(fleet.folder, "--metric", "latency.p99", "--format", "json").stdout)
    jsonschema.validate(found, schema())
    assert found["absent"][0]["times"] == 3 and found["broken_files"][0]["file"] == str(broken)


def test_stragglers_weigh_what_the_explained_pauses_took(fleet: fleets.Made, tmp_path: Path) -> None:
    explained = [pause for of in fleet.pauses.values() for pause in of if pause.cause]
    found = stragglers(opened(fleet.folder))
    assert found.explained == len(explained) > 5
    assert int(found.profile.weights.sum()) == sum(pause.length_ns for pause in explained)
    stacks = {tuple(frame.function for frame in found.profile.stack(at)) for at in range(len(found.profile))}
    assert (*explained[0].stack, f"[{explained[0].cause}]") in stacks
    path = tmp_path / "stragglers.svg"
    assert show(fleet.folder, "-o", str(path), "--metric", "latency.p99").exit_code == 0
    assert path.read_text().count("runtime.stopTheWorldWithSema") and explained[0].cause in path.read_text()


def test_claims_stand_apart(fleet: fleets.Made, tmp_path: Path) -> None:
    file = tmp_path / "claims.csv"
    file.write_text("group,service,metric,value,source\nc7g.large,shop,latency.p99,0.1 ms,somebody's blog\n")
    before = told(fleet.folder, "--metric", "latency.p99")
    after = told(fleet.folder, "--metric", "latency.p99", "--claims", str(file))
    assert before["groups"] == after["groups"] and after["claims"][0]["source"] == "somebody's blog"
    text = show(fleet.folder, "--metric", "latency.p99", "--claims", str(file)).stdout
    assert "Not measured by gotrace" in text.split("Claimed by others")[1]
    file.write_text("group,service,metric,value,source\nc7g.large,shop,latency.p99,0.1 ms,\n")
    refused = show(fleet.folder, "--metric", "latency.p99", "--claims", str(file))
    assert refused.exit_code == 2 and "line 2" in refused.output


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--metric", "latency.p98x"], "this fleet has no metric 'latency.p98x'"),
        (["--metric", "latency.p0"], "percentiles lie between"),
        (["--by", "colour"], "Invalid value for '--by'"),
    ],
)
def test_refusals_say_what_there_is(fleet: fleets.Made, arguments: list[str], words: str) -> None:
    result = show(fleet.folder, *arguments)
    assert result.exit_code == 2 and words in result.output


def test_an_empty_fleet_and_none(tmp_path: Path) -> None:
    from gotrace.fleet.store import adding

    with adding(str(tmp_path / "empty")):
        pass
    assert "nothing has been added" in show(str(tmp_path / "empty")).output
    assert show(str(tmp_path)).exit_code == 2


@pytest.mark.parametrize(
    "harm, left_out",
    [("empty", "total/date="), ("no total", "/total: the folder"), ("no hist", "/hist: the folder")],
)
def test_what_is_damaged_is_not_called_empty(tmp_path: Path, harm: str, left_out: str) -> None:
    """Where every file of a table is damaged, or all are gone: each command names them, and what it says helps."""
    spool, folder = Written(tmp_path / "spool"), tmp_path / "f"
    spool.minute()
    add(str(folder), [str(spool.folder)], Told())
    shutil.copytree(folder, copy := tmp_path / "copy")
    for file in folder.glob("total/*/*.parquet") if harm == "empty" else ():
        file.write_bytes(b"")
    if harm != "empty":
        shutil.rmtree(folder / harm.removeprefix("no "))
    for command in (
        ("show", str(folder)),
        ("show", str(folder), "--metric", "gc.mark.p50"),
        ("trend", str(folder), "--metric", "nothing"),
        ("choose", str(folder), "--slo", "stw.total.p99<=1ms"),
        ("choose", str(folder), "--slo", "stw.total.p99<=1ms", "--service", "none"),
        ("sql", str(folder), "from total"),
    ):
        found = fleet_command(*command)
        assert found.exit_code == 3 and left_out in found.output and "nothing has been added" not in found.output, command
    # What the hint says: to add again does not help, a new folder and a copy do.
    add(str(folder), [str(spool.folder)], Told())
    assert show(str(folder)).exit_code == 3
    add(str(tmp_path / "new"), [str(spool.folder)], Told())
    shutil.copytree(copy, folder, dirs_exist_ok=True)
    assert show(str(tmp_path / "new")).stdout == show(str(folder)).stdout == show(str(copy)).stdout


def test_damage_elsewhere_does_not_hide_a_mistyped_name(tmp_path: Path) -> None:
    """Only files that could have it do; what is said then."""
    spool, folder = Written(tmp_path / "spool"), tmp_path / "f"
    spool.minute()
    add(str(folder), [str(spool.folder)], Told())
    commands = (
        ("show", str(folder), "--metric", "nothing"),
        ("trend", str(folder), "--metric", "nothing"),
        ("choose", str(folder), "--slo", "stw.total.p99<=1ms", "--service", "none"),
    )
    for table in ("price", "absent", "worst"):
        (folder / table / "date=2026-11-30").mkdir(parents=True, exist_ok=True)
        (folder / table / "date=2026-11-30" / "cut.parquet").write_bytes(b"")
    for command in commands:
        found = fleet_command(*command)
        assert found.exit_code == 2 and "there are " in found.output and "cut.parquet" not in found.output, command
    (total,) = folder.glob("total/*/*.parquet")
    shutil.copy(total, total.with_name("more.parquet"))
    total.write_bytes(b"")
    for command in commands:
        found = fleet_command(*command)
        assert found.exit_code == 3 and "in what can be read there are " in found.output, command
        assert "cut.parquet" not in found.output, command


def test_a_fleet_of_prices_is_not_called_empty(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(
        "provider,instance,region,per_hour,currency,date,origin\naws,c7g.large,eu,0.07,USD,2026-11-01,list\n"
    )
    add(str(tmp_path / "f"), [str(tmp_path / "prices.csv")], Told())
    found = show(str(tmp_path / "f"))
    assert found.exit_code == 2 and "nothing that was added has any" in found.output


def test_names_do_no_harm(tmp_path: Path) -> None:
    types = {name: ("aws\x1b[31m", HOSTILE[0]) for name in HOSTILE if name.isascii()}
    fleet = fleets.made(tmp_path / "fleet", types=types, service=HOSTILE[3])
    for ending in ("html", "md", "txt"):
        path = tmp_path / f"out.{ending}"
        result = show(fleet.folder, "--metric", "latency.p99", "-o", str(path))
        assert result.exit_code == 0 and "\x1b" not in result.stdout + path.read_text()
        if ending != "txt":
            assert "<img" not in path.read_text() and "<script>alert" not in path.read_text()


@functools.cache
def _json_numbers(text: str) -> Any:
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_json_has_no_infinities(fleet: fleets.Made) -> None:
    assert _json_numbers(show(fleet.folder, "--metric", "latency.p99", "--by", "host", "--format", "json").stdout)


def test_what_two_agents_measured_and_who_is_missing(tmp_path: Path) -> None:
    """Twice the same minutes are told of; so is an agent that never answered, by its own address."""
    folder = str(tmp_path / "f")
    for number, host in enumerate(("web-1", "web-1", "web-2")):
        spool = Written(tmp_path / f"spool{number}", host)
        for _ in range(2):
            spool.minute(count=40 + number)
        add(folder, [str(spool.folder)], Told())
    with adding(folder) as addition:
        for url, time_ns in (("http://a:1", 5), ("http://a:1", 7), ("http://b:1", 6)):
            addition.add("absent", [{"url": url, "time_ns": time_ns, "problem": f"refused {time_ns}", "source": None}])
    result = show(folder, "--metric", "stw.total.p50")
    assert [line for line in result.stdout.splitlines() if "twice" in line] == [
        "web-1: shop was measured twice at the same time: its pauses count twice"
    ]
    found = told(folder, "--metric", "stw.total.p50")["absent"]
    assert [(each["url"], each["times"], each["problem"]) for each in found] == [
        ("http://a:1", 2, "refused 7"),
        ("http://b:1", 1, "refused 6"),
    ]


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("command", [["show"], ["choose", "--slo", "latency.p99<=80ms"], ["trend"]])
def test_names_of_any_length_do_not_widen_a_terminals_tables(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are shortened there, and whole in a file."""
    monkeypatch.setenv("COLUMNS", "100")
    long = {host: f"{host}-{'h' * 3000}" for host in fleets.HOSTS}
    types = {long[host]: (provider, f"{type_}-{'t' * 3000}") for host, (provider, type_) in fleets.TYPES.items()}
    folder = fleets.made(tmp_path / "shop", types=types, service=f"shop-{'s' * 3000}").folder
    lines = []
    for stream in (Terminal(), StringIO()):
        with redirect_stdout(stream), pytest.raises(SystemExit):
            main(["fleet", command[0], folder, *command[1:]])
        lines.append(stream.getvalue().splitlines())
    on_terminal, in_file = lines
    assert max(map(len, on_terminal)) <= 100
    assert command != ["show"] or any({"type", "service", "p50", "p90"} <= set(line.split()) for line in on_terminal)
    if command != ["trend"]:  # nothing changed, so there is no table
        assert any("…" in line for line in on_terminal) and not any("…" in line for line in in_file)
        assert max(map(len, in_file)) > 3000
