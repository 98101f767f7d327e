"""Control groups of both versions, from files made here: which one counts a process's memory, and what limits it."""

from __future__ import annotations

import pytest

from gotrace.errors import HostError, TargetError
from gotrace.kernel.cgroup import cpu_group, memory_group

V1 = "36 25 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
CPU = "37 25 0:33 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n"
V2 = "30 25 0:27 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture
def host(tmp_path):
    """host(mounts, /proc/7/cgroup, {folder: {file: text}}) -> the root of what stands for a machine."""

    def make(mounts, of_process, folders):
        for name, text in (("proc/self/mountinfo", mounts), ("proc/7/cgroup", of_process)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        for folder, files in folders.items():
            at = tmp_path / "sys/fs/cgroup" / folder
            at.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (at / name).write_text(text)
        return str(tmp_path)

    return make


def version2(limit, usage=1000, inactive=300):
    stat = f"anon 600\nfile 400\ninactive_file {inactive}\n"
    return {"memory.max": f"{limit}\n", "memory.current": f"{usage}\n", "memory.stat": stat}


def version1(limit):
    stat = "cache 1\ninactive_file 1\ntotal_cache 400\ntotal_inactive_file 300\n"
    return {"memory.limit_in_bytes": f"{limit}\n", "memory.usage_in_bytes": "1000\n", "memory.stat": stat}


@pytest.mark.parametrize(
    ("outer", "inner", "limited", "least", "of"),
    [
        ("max", "5000", True, 5000, "/a/b"),
        ("4000", "5000", True, 4000, "/a"),
        ("4000", "max", True, 4000, "/a"),
        ("5000", "5000", True, 5000, "/a/b"),
        ("max", "max", False, None, None),
    ],
)
def test_the_least_limit_counts(host, outer, inner, limited, least, of):
    top = {"memory.stat": "file 9\ninactive_file 9\n"}  # the root has no limit and no usage
    found = memory_group(7, host(V2.format(top="/"), "0::/a/b\n", {".": top, "a": version2(outer), "a/b": version2(inner)}))
    assert (found.version, found.path) == (2, "/a/b")
    assert (found.limited, found.limit_bytes, found.limited_by) == (limited, least, of)
    assert (found.usage_bytes, found.working_set_bytes, found.page_cache_bytes) == (1000, 700, 400)


@pytest.mark.parametrize(("limit", "limited"), [(9223372036854771712, False), (9223372036854710272, False), (5000, True)])
def test_version_1(host, limit, limited):
    """Of the kernel's pages of 4 and of 64 KiB; sums include the groups within."""
    mounts = CPU + V1.format(top="/") + V2.format(top="/")
    found = memory_group(7, host(mounts, "5:cpu:/\n4:memory:/a\n0::/\n", {"memory/a": version1(limit)}))
    assert (found.version, found.path, found.limited) == (1, "/a", limited)
    assert (found.usage_bytes, found.working_set_bytes, found.page_cache_bytes) == (1000, 700, 400)


def test_a_group_that_does_not_count_memory(host):
    """It is counted for the one around it."""
    found = memory_group(7, host(V2.format(top="/"), "0::/a/b/c\n", {"a": version2("max"), "a/b/c": {"pids.max": "max"}}))
    assert found.path == "/a" and found.usage_bytes == 1000


def test_the_root_of_version_2(host):
    """There is no limit on it; what it uses it does not say."""
    found = memory_group(7, host(V2.format(top="/"), "0::/\n", {".": {"memory.stat": "file 9\ninactive_file 9\n"}}))
    assert not found.limited and found.usage_bytes is None and found.working_set_bytes is None
    assert found.page_cache_bytes == 9


def test_within_a_container(host):
    """Where the mount shows a part of the groups only."""
    found = memory_group(7, host(V1.format(top="/docker/x"), "4:memory:/docker/x/y\n", {"memory/y": version1(5000)}))
    assert found.path == "/docker/x/y" and found.limit_bytes == 5000


@pytest.mark.parametrize(
    ("mounts", "of_process", "words"),
    [
        (CPU, "4:memory:/a\n", "no cgroups for memory are mounted"),
        (V1.format(top="/docker/x"), "4:memory:/docker/z\n", "is not visible from here"),
        (V2.format(top="/"), "0::/../other\n", "is not visible from here"),
        (V2.format(top="/"), "0::/a\n", "has no memory controller"),
        (V2.format(top="/"), "5:cpu:/\n", "no cgroup accounts for"),
    ],
)
def test_what_is_not_to_be_seen(host, mounts, of_process, words):
    with pytest.raises(HostError, match=words):
        memory_group(7, host(mounts, of_process, {"a": {}}))


def test_a_process_that_has_exited(host):
    with pytest.raises(TargetError, match="has exited"):
        memory_group(8, host(V2.format(top="/"), "0::/a\n", {}))


def cpu2(quota, throttled=0):
    stat = f"usage_usec 5\nnr_periods 40\nnr_throttled 7\nthrottled_usec {throttled}\n"
    return {"cpu.max": f"{quota} 100000\n", "cpu.stat": stat}


def test_the_least_quota_counts(host):
    """What every group with a quota was throttled for is added up."""
    groups = {"a": cpu2(150_000, 3), "a/b": cpu2(250_000, 4), "a/b/c": cpu2("max", 900)}
    found = cpu_group(7, host(V2.format(top="/"), "0::/a/b/c\n", groups))
    assert (found.path, found.quota_cpus, found.limited_by) == ("/a/b/c", 1.5, "/a")
    assert (found.throttled_ns, found.throttled_periods, found.periods) == (7000, 14, 80)


def test_quotas_of_version_1(host):
    stat = "nr_periods 40\nnr_throttled 7\nthrottled_time 123\n"
    group = {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000", "cpu.stat": stat}
    found = cpu_group(7, host(CPU + V2.format(top="/"), "5:cpu,cpuacct:/a\n0::/\n", {"cpu/a": group}))
    assert (found.version, found.quota_cpus, found.throttled_ns, found.periods) == (1, 0.5, 123, 40)
    without = {**group, "cpu.cfs_quota_us": "-1"}
    found = cpu_group(7, host(CPU, "5:cpu,cpuacct:/a\n", {"cpu/a": without}))
    assert (found.quota_cpus, found.limited_by, found.throttled_ns) == (None, None, 0)


def test_no_quota(host):
    found = cpu_group(7, host(V2.format(top="/"), "0::/a\n", {"a": {}}))
    assert (found.quota_cpus, found.limited_by, found.periods) == (None, None, 0)
