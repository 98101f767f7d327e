"""Where a process runs, from the text of /proc/PID/cgroup: lines captured on real hosts."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gotrace.find.places import Place, place_of

_ID = "49f9e8e5395d57c1083996c09e2e6f042d5fe1ec0310facab32f94912b35ce59"
_OTHER = "21572039dd8398ff8272b031fa5422a40165145ab37f2f8794e1e7f844fe8118"
_UID = "2942c55e-c9cb-428a-93f4-eaf89c1f3ce0"
_SLICE = f"kubepods-burstable-pod{_UID.replace('-', '_')}.slice"
_BURSTABLE = f"/kubepods.slice/kubepods-burstable.slice/{_SLICE}"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        # docker, both drivers; a container within one; from within a control group namespace
        (f"/docker/{_ID}", Place("docker", _ID)),
        (f"/system.slice/docker-{_ID}.scope", Place("docker", _ID, unit="")),
        (f"/../../../../system.slice/docker-{_ID}.scope", Place("docker", _ID)),
        (f"/system.slice/docker-{_ID}.scope/system.slice/containerd.service", Place("docker", _ID)),
        (f"/docker/{_OTHER}/docker/{_ID}", Place("docker", _ID)),
        (f"/actions_job/{_ID}", Place("unknown", _ID)),
        # podman, as root, by a user, in a service, with cgroupfs, and its monitor
        (f"/machine.slice/libpod-{_ID}.scope", Place("podman", _ID)),
        (f"/machine.slice/libpod-{_ID}.scope/container", Place("podman", _ID)),
        (f"/libpod_parent/libpod-{_ID}", Place("podman", _ID)),
        (
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{_ID}.scope/container",
            Place("podman", _ID, unit="user@1000.service", user="1000"),
        ),
        (f"/system.slice/myapp.service/libpod-payload-{_ID}", Place("podman", _ID, unit="myapp.service")),
        (f"/machine.slice/libpod-conmon-{_ID}.scope", Place(unit=f"libpod-conmon-{_ID}.scope")),
        # the kubelet's: systemd's driver and cgroupfs', each class, and what wrote what into the last part
        (f"{_BURSTABLE}/crio-{_ID}.scope", Place("cri-o", _ID, _UID, "burstable")),
        (f"{_BURSTABLE}/crio-{_ID}.scope/container", Place("cri-o", _ID, _UID, "burstable")),
        (f"{_BURSTABLE}/cri-containerd-{_ID}", Place("containerd", _ID, _UID, "burstable")),
        (f"{_BURSTABLE}/docker-{_ID}.scope", Place("docker", _ID, _UID, "burstable")),
        (
            f"/kubelet.slice/kubelet-kubepods.slice/kubelet-{_SLICE}/cri-containerd-{_ID}.scope",
            Place("containerd", _ID, _UID, "burstable"),
        ),
        (f"/system.slice/containerd.service/{_SLICE}:cri-containerd:{_ID}", Place("containerd", _ID, _UID, "burstable")),
        (
            f"/docker/{_OTHER}/kubelet.slice/kubelet-kubepods.slice/kubelet-{_SLICE}/cri-containerd-{_ID}.scope",
            Place("containerd", _ID, _UID, "burstable"),
        ),
        (f"/kubepods/burstable/pod{_UID}/{_ID}", Place("kubernetes", _ID, _UID, "burstable")),
        (f"/kubepods/besteffort/pod{_UID}/{_ID}/kube-proxy", Place("kubernetes", _ID, _UID, "besteffort")),
        (f"/kubepods/pod{_UID}/crio-{_ID}", Place("cri-o", _ID, _UID, "guaranteed")),
        (f"/kubepods/burstable/pod{_UID}", Place(pod=_UID, qos="burstable")),
        (  # of a static pod the uid is a hash
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3e61c214bc3ed9ff81e21474dd6cba17.slice"
            f"/cri-containerd-{_ID}.scope",
            Place("containerd", _ID, "3e61c214bc3ed9ff81e21474dd6cba17", "burstable"),
        ),
        # others
        ("/lxc/mysql-primary-db", Place("lxc", "mysql-primary-db")),
        ("/lxc.payload.first/system.slice/systemd-logind.service", Place("lxc", "first")),
        ("/lxc.payload/demo", Place("lxc", "demo")),
        ("/machine.slice/machine-de\\x2dbian.scope/payload/system.slice/ssh.service", Place("machine", "de-bian")),
        # units
        ("/system.slice/ssh.service", Place(unit="ssh.service")),
        ("/system.slice/system-postgresql.slice/postgresql@9.4-main.service", Place(unit="postgresql@9.4-main.service")),
        ("/system.slice/system-serial\\x2dgetty.slice", Place()),
        ("/user.slice/user-0.slice/session-3.scope", Place(unit="session-3.scope", user="0")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/api.service",
            Place(unit="api.service", user="1000"),
        ),
        ("/init.scope", Place(unit="init.scope")),
        ("/podruntime/kubelet", Place()),
        ("/", Place()),
        # what only looks like one
        (f"/system.slice/docker-{_ID}-.scope", Place(unit=f"docker-{_ID}-.scope")),
        (f"/system.slice/docker-{_ID[:12]}.scope", Place(unit=f"docker-{_ID[:12]}.scope")),
        ("/kubepods/burstable/podinfo", Place()),
    ],
)
def test_a_path(path: str, place: Place) -> None:
    assert place_of(f"0::{path}\n") == place
    assert place_of(f"4:memory:{path}\n2:cpu,cpuacct:{path}\n0::/\n") == place


def test_in_a_hybrid_the_line_that_says_most_counts() -> None:
    container = f"/kubepods/burstable/pod{_UID}/{_ID}"
    assert place_of(f"13:cpuset:{container}\n9:misc:/\n0::/reserved.slice/containerd.service\n").container == _ID
    unit = "8:memory:/init.scope\n2:cpu,cpuacct:/\n1:name=systemd:/system.slice/springboot.service\n0::/\n"
    assert place_of(unit).unit == "springboot.service"
    assert place_of("9:name=systemd:/\n0::/\n") == place_of("") == place_of("nonsense") == Place()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(["/", ":", "\n", "kubepods", "-pod", _UID, "docker-", _ID, ".scope", "lxc", "\\x2", "é"])))
def test_any_text_means_some_place(words: list[str]) -> None:
    place = place_of("".join(words))
    assert "/" not in place.container + place.unit + place.pod
