"""What a host allows, on made-up roots: a folder with the few files of /proc and /sys that are looked at."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gotrace.errors import HostError
from gotrace.kernel.host import Check, checks, lockdown, require_everybodys_processes, require_tracing
from gotrace.kernel.privileges import beyond_perfmon, capabilities, in_initial_namespace, refused

ROOT_CAPABILITIES = "000001ffffffffff"


def make_root(folder: Path, *, cap_eff: str = ROOT_CAPABILITIES, absent: tuple[str, ...] = (), **more: str) -> str:
    """A host on which everything is well, but for what is ``absent``; ``more`` overwrites files by their last name."""
    files = {
        "proc/self/status": f"Name:\tpython\nCapPrm:\t0000000000000000\nCapEff:\t{cap_eff}\n",
        "proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
        "proc/sys/net/core/bpf_jit_enable": "1\n",
        "sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
        "sys/bus/event_source/devices/uprobe/type": "9\n",
        "sys/kernel/tracing/events/enable": "0\n",
        "sys/kernel/btf/vmlinux": "",
        "usr/lib/python3/dist-packages/bcc/version.py": "__version__ = '0.26.0'\n",
    }
    for path, text in files.items():
        if path not in absent:
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(more.get(file.name, text))
    return str(folder)


def by_name(root: str) -> dict[str, Check]:
    found = checks(root)
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}


def test_a_host_where_all_is_well(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    require_tracing(root)
    found = by_name(root)
    # the ring buffer is asked of the real kernel
    assert {name for name, check in found.items() if check.ok is False} <= {"BPF ring buffer"}
    assert found["BCC"].value == "0.26.0"
    assert found["tracefs"].value == "mounted"
    assert found["BPF JIT"].value == "on"
    assert found["BPF for other users"].value == "denied"


def test_a_host_where_nothing_is_there(tmp_path: Path) -> None:
    """Every check has a word for what is missing, and every 'no' says what to do."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tpython\n")
    found = by_name(str(tmp_path))
    assert {"privileges", "uprobes", "BCC"} <= {name for name, check in found.items() if check.ok is False}
    for check in found.values():
        assert check.value and (check.fix or check.ok is not False), check


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[none] integrity confidentiality\n", "none"),
        ("none [integrity] confidentiality\n", "integrity"),
        ("none integrity [confidentiality]\n", "confidentiality"),
        ("", "none"),
    ],
)
def test_lockdown(text: str, value: str, tmp_path: Path) -> None:
    root = make_root(tmp_path, lockdown=text)
    assert lockdown(root) == value
    check = by_name(root)["kernel lockdown"]
    assert check.value == value and check.ok is (value != "confidentiality")
    if check.ok:
        require_tracing(root)
    else:
        with pytest.raises(HostError, match="lockdown"):
            require_tracing(root)


def test_a_kernel_without_lockdown(tmp_path: Path) -> None:
    root = make_root(tmp_path, absent=("sys/kernel/security/lockdown",))
    assert lockdown(root) == "none"
    require_tracing(root)


@pytest.mark.parametrize(
    ("cap_eff", "enough"),
    [
        (ROOT_CAPABILITIES, True),
        ("0000000000200000", True),  # CAP_SYS_ADMIN alone
        ("000000c000000000", True),  # CAP_BPF and CAP_PERFMON
        ("0000004000000000", False),  # CAP_PERFMON alone
        ("0000008000000000", False),
        ("00000000a80425fb", False),  # what Docker leaves to a container
        ("0000000000000000", False),
    ],
)
def test_capabilities(cap_eff: str, enough: bool, tmp_path: Path) -> None:
    root = make_root(tmp_path, cap_eff=cap_eff)
    assert capabilities(root) == int(cap_eff, 16)
    assert by_name(root)["privileges"].ok is enough
    if enough:
        require_tracing(root)
    else:
        with pytest.raises(HostError, match="needs root") as error:
            require_tracing(root)
        assert "sudo" in error.value.hint


def test_what_is_missing_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before links (6.10) uprobes are perf events, for which CAP_SYS_ADMIN is asked."""
    root = make_root(tmp_path, cap_eff="0000008000000000")
    with pytest.raises(HostError, match="needs root, or CAP_BPF and CAP_PERFMON; CAP_PERFMON is missing"):
        require_tracing(root)
    root = make_root(tmp_path, cap_eff="000000c000000000")
    with pytest.raises(HostError, match="CAP_SYS_PTRACE, which is missing"):
        require_everybodys_processes(root)
    root = make_root(tmp_path, cap_eff="000000c000080000")
    assert "CAP_DAC_READ_SEARCH" in require_everybodys_processes(root)
    root = make_root(tmp_path, cap_eff="000000c000080004")
    assert not require_everybodys_processes(root)
    uname = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6.8.0-48", "#1", uname.machine)))
    with pytest.raises(HostError, match=r"needs root, or CAP_SYS_ADMIN$"):
        require_tracing(root)


def test_root_of_a_user_namespace_is_not_root(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    (tmp_path / "proc/self/ns").mkdir()
    link = tmp_path / "proc/self/ns/user"
    link.symlink_to("user:[4026531837]")
    assert in_initial_namespace("user", root)
    require_tracing(root)
    link.unlink()
    link.symlink_to("user:[4026532281]")
    assert not in_initial_namespace("user", root)
    with pytest.raises(HostError, match="user namespace"):
        require_tracing(root)
    assert by_name(root)["privileges"].ok is False


@pytest.mark.parametrize(
    ("cap_eff", "user", "namespace", "hint"),
    [
        (ROOT_CAPABILITIES, 0, "4026531837", "allow it"),
        ("000001fffff7ffff", 0, "4026531837", "lacks CAP_SYS_PTRACE"),
        (
            "00000000a80425fb",
            0,
            "4026531837",
            "lacks CAP_BPF and CAP_PERFMON and CAP_SYS_PTRACE: add them to the container",
        ),
        (ROOT_CAPABILITIES, 0, "4026532281", "outside the rootless container"),
        ("00000000a80425fb", 0, "4026532281", "outside the rootless container"),
        ("0000000000000000", 1000, "4026531837", "run as root (sudo)"),
        ("0000008000080000", 1000, "4026531837", "run as root (sudo), or with CAP_PERFMON too"),
        (ROOT_CAPABILITIES, 1000, "4026531837", "allow it"),
    ],
)
def test_a_refusal_says_which_right_is_missing(
    cap_eff: str, user: int, namespace: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root is not told to become root."""
    root = make_root(tmp_path, cap_eff=cap_eff)
    (tmp_path / "proc/self/ns").mkdir()
    (tmp_path / "proc/self/ns/user").symlink_to(f"user:[{namespace}]")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    error = refused("permission denied", "allow it", root=root)
    assert error.message == "permission denied" and hint in error.hint
    assert user or "sudo" not in error.hint or namespace != "4026531837"


def test_root_that_may_not_inspect_every_process(tmp_path: Path) -> None:
    check = by_name(make_root(tmp_path, cap_eff="0000000000200000"))["privileges"]
    assert check.ok and "not CAP_SYS_PTRACE" in check.value
    assert by_name(make_root(tmp_path))["privileges"].value == "CAP_SYS_ADMIN"


def test_container(tmp_path: Path) -> None:
    root = make_root(tmp_path)
    assert by_name(root)["PID namespace"].value == "the machine's"  # and on kernels without namespaces
    (tmp_path / "proc/self/ns").mkdir()
    (tmp_path / "proc/self/ns/pid").symlink_to("pid:[4026532283]")
    check = by_name(root)["PID namespace"]
    assert "container" in check.value and check.ok is None


def test_no_uprobes(tmp_path: Path) -> None:
    root = make_root(tmp_path, absent=("sys/bus/event_source/devices/uprobe/type",))
    with pytest.raises(HostError, match="does not support uprobes"):
        require_tracing(root)
    assert by_name(root)["uprobes"].ok is False


def test_no_tracefs(tmp_path: Path) -> None:
    """Told, with how to mount it; pauses are traced without it."""
    root = make_root(tmp_path, absent=("sys/kernel/tracing/events/enable",))
    require_tracing(root)
    check = by_name(root)["tracefs"]
    assert check.ok is None and "mount -t tracefs" in check.fix


def test_tracefs_that_only_root_may_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not seen is not the same as not mounted."""
    root, real = make_root(tmp_path), os.stat

    def stat(path: str, *arguments: object, **options: object) -> os.stat_result:
        if str(path).endswith("tracing/events"):
            raise PermissionError
        return real(path, *arguments, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "stat", stat)
    check = by_name(root)["tracefs"]
    assert check.ok is None and check.fix == "" and "root" in check.value


def test_no_bcc(tmp_path: Path) -> None:
    """A compiled probe may be in the cache, so that tracing works without BCC: only `doctor` says no."""
    root = make_root(tmp_path, absent=("usr/lib/python3/dist-packages/bcc/version.py",))
    require_tracing(root)
    check = by_name(root)["BCC"]
    assert check.ok is False and "apt-get install python3-bpfcc" in check.fix


@pytest.mark.parametrize(("text", "value"), [("0\n", "off"), ("1\n", "on"), ("2\n", "on")])
def test_bpf_jit(text: str, value: str, tmp_path: Path) -> None:
    check = by_name(make_root(tmp_path, bpf_jit_enable=text))["BPF JIT"]
    assert check.value.startswith(value) and bool(check.fix) is (value == "off")


def test_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_root(tmp_path)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6.12.0", "#1", "riscv64")))
    with pytest.raises(HostError, match="riscv64"):
        require_tracing(root)
    found = by_name(root)
    assert found["machine"].ok is False and found["BPF ring buffer"].ok is False


def test_require_tracing_is_quick(tmp_path: Path) -> None:
    """It stands before every start of a trace: 2 ms at the most."""
    root = make_root(tmp_path)
    times = []
    for _ in range(20):
        begin = time.perf_counter_ns()
        require_tracing(root)
        times.append(time.perf_counter_ns() - begin)
    assert min(times) < 2_000_000


@pytest.mark.parametrize(
    ("level", "cap_eff", "said"),
    [
        ("2", "000000c000080004", False),
        ("3", "000000c000080004", True),
        ("3", "000000c000280004", False),
        ("-1", "0", False),
    ],
)
def test_debians_paranoia(level: str, cap_eff: str, said: bool, tmp_path: Path) -> None:
    """As tried with these capabilities on Debian's Linux 6.12."""
    root = make_root(tmp_path, cap_eff=cap_eff)
    assert not beyond_perfmon(root)
    (tmp_path / "proc/sys/kernel").mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc/sys/kernel/perf_event_paranoid").write_text(f"{level}\n")
    assert ("perf_event_paranoid is 3" in beyond_perfmon(root)) is said
