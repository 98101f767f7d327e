"""A real Prometheus scrapes us, with native histograms and without; what it answers is compared with the values."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from prometheuses import ask, needs_prometheus, query, started, waited_for

from gotrace.agent.http import Server
from gotrace.agent.metrics_page import MetricsPage
from gotrace.analysis.exponential import CLASSIC_NS
from gotrace.export.metrics.model import Exemplar, Family, Registry, Resource, label_value

pytestmark = needs_prometheus

QUANTILES = (0.5, 0.9, 0.99, 0.999)
PAUSES = Family("gotrace.stw.duration", "histogram", "s", "Pauses.", ("reason",))
LOST = Family("gotrace.events.lost", "counter", "{event}", "Events that were lost.")
HOSTILE = 'evil"} 1\n# HELP injected x\ninjected 1\n# EOF\\ \0 \udcff ☃'


def narrow(rng: np.random.Generator) -> np.ndarray:
    """Two million stops of one kind: within five powers of two."""
    return rng.lognormal(np.log(30e3), 0.3, 2_000_000).astype(np.int64)


def wide(rng: np.random.Generator) -> np.ndarray:
    """Two million stops of a busy service, within 13 powers of two: most are short, a few wait for a CPU quota."""
    parts = (rng.lognormal(np.log(center), spread, size) for center, spread, size in PARTS)
    return np.concatenate(list(parts)).astype(np.int64)


PARTS = ((12e3, 0.5, 1_900_000), (400e3, 0.8, 95_000), (40e6, 0.4, 5_000))


class Scraped(NamedTuple):
    registry: Registry
    values: dict[str, np.ndarray]
    native: str
    classic: str


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    rng = np.random.default_rng(20261)
    registry = Registry([PAUSES, LOST])
    values = {"narrow": narrow(rng), "wide": wide(rng)}
    for name, array in values.items():
        series = registry.histogram(PAUSES, Resource.of({"service.name": name}), "GC mark termination")
        longest = Exemplar.of(int(array.max()), {"cause": "cpu quota"}, time.time_ns())
        for part in np.array_split(array, 50):
            series.observe(part, longest)
    registry.histogram(PAUSES, Resource.of({"service.name": HOSTILE}), HOSTILE).observe(np.array([5]))
    registry.histogram(PAUSES, Resource.of({"service.name": "empty"}), "none yet")
    registry.number(LOST, Resource.of({"service.name": HOSTILE})).add(5)
    folder = tmp_path_factory.mktemp("prometheus")
    with Server(("127.0.0.1", 0), {"/metrics": MetricsPage(registry, fresh_s=0).route}) as server:
        native, native_address = started(folder / "native", server.address[1], "native-histograms")
        classic, classic_address = started(folder / "classic", server.address[1])
        try:
            yield Scraped(registry, values, native_address, classic_address)
        finally:
            for process in (native, classic):
                process.kill()
                process.wait()


def test_a_native_quantile_is_within_a_bucket_of_the_values(scraped: Scraped) -> None:
    schemas = {}
    for series in dict(scraped.registry.collect())[PAUSES]:
        schemas[series.resource.labels[0][1]] = series.values.schema
    assert (schemas["narrow"], schemas["wide"]) == (5, 3)
    for name, values in scraped.values.items():
        width = 2 ** (2.0 ** -schemas[name])  # 2.2 % in schema 5, 9 % in schema 3
        selected = f'gotrace_stw_duration_seconds{{service_name="{name}"}}'
        for quantile in QUANTILES:
            (found,) = waited_for(scraped.native, f"histogram_quantile({quantile}, {selected})")
            exact = np.quantile(values, quantile, method="inverted_cdf") / 1e9
            assert exact / width <= float(found["value"][1]) <= exact * width, (name, quantile)
        (count,) = query(scraped.native, f"histogram_count({selected})")
        (total,) = query(scraped.native, f"histogram_sum({selected})")
        assert float(count["value"][1]) == len(values)
        assert float(total["value"][1]) == int(values.sum()) / 1e9
    # Native ones are there before their first value, and take the classic ones' place.
    assert (
        query(scraped.native, 'histogram_count(gotrace_stw_duration_seconds{service_name="empty"})')[0]["value"][1] == "0"
    )
    assert query(scraped.native, "gotrace_stw_duration_seconds_bucket") == []


def test_a_classic_quantile_is_within_its_bucket(scraped: Scraped) -> None:
    for name, values in scraped.values.items():
        selected = f'gotrace_stw_duration_seconds_bucket{{service_name="{name}"}}'
        for quantile in QUANTILES:
            (found,) = waited_for(scraped.classic, f"histogram_quantile({quantile}, {selected})")
            exact = np.quantile(values, quantile, method="inverted_cdf")
            at = int(np.searchsorted(CLASSIC_NS, exact))
            lower = CLASSIC_NS[at - 1] if at else 0
            assert lower / 1e9 <= float(found["value"][1]) <= CLASSIC_NS[at] / 1e9, (name, quantile)
        buckets = {float(each["metric"]["le"]): float(each["value"][1]) for each in query(scraped.classic, selected)}
        assert buckets == {
            **{upper / 1e9: np.count_nonzero(values <= upper) for upper in CLASSIC_NS},
            float("inf"): len(values),
        }


def test_exemplars_have_the_longest_pause_and_its_cause(scraped: Scraped) -> None:
    for prometheus in (scraped.native, scraped.classic):
        waited_for(prometheus, "up == 1")
        waited_for(prometheus, "gotrace_events_lost_total")
        now = time.time()
        name = {"query": "{__name__=~'gotrace_stw.*',service_name='wide'}", "start": f"{now - 600}", "end": f"{now + 600}"}
        found = [each for series in ask(prometheus, "query_exemplars", **name) for each in series["exemplars"]]
        assert {each["labels"]["cause"] for each in found} == {"cpu quota"}
        assert {float(each["value"]) for each in found} == {int(scraped.values["wide"].max()) / 1e9}


def test_names_stay_in_their_place(scraped: Scraped) -> None:
    for prometheus in (scraped.native, scraped.classic):
        waited_for(prometheus, "gotrace_events_lost_total")
        names = ask(prometheus, "label/__name__/values")
        assert all(re.match(r"gotrace_|scrape_|up$", name) for name in names), names
        services = set(ask(prometheus, "label/service_name/values"))
        assert services == {"narrow", "wide", "empty", label_value(HOSTILE)}


def test_a_process_that_began_anew_is_a_reset(scraped: Scraped) -> None:
    resource = Resource.of({"service.name": HOSTILE})
    waited_for(scraped.classic, "gotrace_events_lost_total == 5")
    before = float(query(scraped.classic, "gotrace_events_lost_created")[0]["value"][1])
    scraped.registry.drop(resource)
    scraped.registry.number(LOST, resource).add(2)
    waited_for(scraped.classic, "gotrace_events_lost_total == 2")
    assert query(scraped.classic, "resets(gotrace_events_lost_total[5m])")[0]["value"][1] == "1"
    assert float(query(scraped.classic, "gotrace_events_lost_created")[0]["value"][1]) > before
