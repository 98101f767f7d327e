"""Pods from a kubelet: a real server over TLS that speaks what kubelets do, and everything it may refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubelets import ID, INIT, UID, Server, account_in, document, pod, serving

from conftest import until
from gotrace.agent.pods import Pods
from gotrace.find.kubelet import Kubelet, pods_of, sources_of
from gotrace.find.names import Container, Names
from gotrace.find.places import Place


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return account_in(tmp_path_factory.mktemp("account"))


@pytest.fixture
def server(account: Path) -> Iterator[Server]:
    with serving(account) as server:
        yield server


def url(server: Server) -> str:
    return f"https://127.0.0.1:{server.server_port}/pods"


def test_containers_and_pods(server: Server, account: Path) -> None:
    kubelet = Kubelet([url(server)], str(account))
    assert kubelet.of(Place(container=ID)) is None
    assert kubelet.refresh() and (kubelet.problem, kubelet.failures) == ("", {})
    assert server.asked == [("/pods", "Bearer secret")]
    found = kubelet.of(Place("containerd", ID, UID))
    assert found is not None and found.labels["app"] == "web"
    assert (found.name, found.image, found.namespace, found.pod, found.owner, found.service) == (
        *("app", "docker.io/shop/api:1", "shop", "api-7d9f8c6b5-x2x4k", "Deployment/api", "api"),
    )
    init = kubelet.of(Place("containerd", INIT, UID))
    assert init is not None and init.name == "migrate"
    unseen = kubelet.of(Place("containerd", "0" * 64, UID))  # a container that was started since
    assert unseen is not None and (unseen.name, unseen.pod) == ("", "api-7d9f8c6b5-x2x4k")
    assert kubelet.of(Place("docker", "0" * 64)) is None


def test_a_container_that_was_started_since(server: Server, account: Path, tmp_path: Path) -> None:
    """Its pod is known from the kubelet, its name from the files of its runtime."""
    kubelet, place = Kubelet([url(server)], str(account)), Place("containerd", "0" * 64, UID)
    naming = kubelet.naming(Names(str(tmp_path)))
    bundle = tmp_path / f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{place.container}"
    bundle.mkdir(parents=True)
    names = {"container-name": "new", "image-name": "new:1", "sandbox-name": "a", "sandbox-namespace": "b"}
    said = {f"io.kubernetes.cri.{name}": value for name, value in names.items()}
    (bundle / "config.json").write_text(json.dumps({"annotations": said}))
    assert naming(place) == Container("new", "new:1", "b", "a")
    assert kubelet.refresh()
    found = naming(place)
    assert (found.name, found.image, found.namespace, found.service) == ("new", "new:1", "shop", "api")
    assert naming(Place("containerd", ID, UID)).name == "app" and naming(Place()).pod == ""


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, b"", "401", "401: the token was rejected"),
        (
            403,
            b"Forbidden (user=system:serviceaccount:x, verb=get)",
            "403",
            "the service account is not allowed to get pods",
        ),
        (404, b"", "404", "404: not found"),
        (500, b"", "500", "500: Internal Server Error"),
        (200, b"\xff<html>", "answer", "the response is not JSON"),
    ],
)
def test_refusals_are_told_and_counted(
    server: Server, account: Path, status: int, body: bytes, kind: str, said: str
) -> None:
    kubelet = Kubelet([url(server)], str(account))
    assert kubelet.refresh()
    server.status, server.body = status, body
    assert not kubelet.refresh() and not kubelet.refresh()
    assert said in kubelet.problem and kubelet.failures == {kind: 2}
    assert kubelet.of(Place(container=ID)) is not None  # what was known stays


def test_no_answer_no_server_and_no_trust(server: Server, account: Path, tmp_path: Path) -> None:
    server.waits = 1.0
    slow = Kubelet([url(server)], str(account), patience_s=0.2)
    assert not slow.refresh() and slow.failures == {"timeout": 1} and "no response within 0.2 s" in slow.problem
    server.waits = 0.0
    for kind, folder, source in (
        ("connection", account, "https://127.0.0.1:1/pods"),
        ("tls", account, f"https://localhost:{server.server_port}/pods"),
        ("connection", tmp_path, url(server)),  # no service account
    ):
        kubelet = Kubelet([source], str(folder))
        assert not kubelet.refresh() and kubelet.failures == {kind: 1}, kubelet.problem
    (tmp_path / "ca.crt").write_text((account / "ca.crt").read_text())
    (tmp_path / "token").write_text("other")
    assert not (kubelet := Kubelet([url(server)], str(tmp_path))).refresh() and kubelet.failures == {"401": 1}
    assert "NODE_IP" in Kubelet([]).problem and not Kubelet([]).refresh()


def test_who_else_may_be_asked(server: Server, account: Path) -> None:
    """The read-only port has no TLS and is shown no token."""
    with Server(None) as plain:
        kubelet = Kubelet([url(server), f"http://127.0.0.1:{plain.server_port}/pods"], str(account))
        server.status = 403
        assert kubelet.refresh() and kubelet.failures == {"403": 1} and kubelet.problem == ""
        assert plain.asked == [("/pods", "")]
        plain.shutdown()
    assert sources_of({}) == ()
    assert sources_of({"NODE_IP": "::1", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "NODE_NAME": "a/b"}) == (
        "https://[::1]:10250/pods",
        "https://10.0.0.1:443/api/v1/pods?fieldSelector=spec.nodeName%3Da%2Fb",
    )


def owner(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": name, "controller": True}]


@pytest.mark.parametrize(
    ("changed", "service", "by"),
    [
        ({"annotations": {"resource.opentelemetry.io/service.name": "a"}}, "a", "Deployment/api"),
        ({"labels": {"app.kubernetes.io/instance": "b", "app.kubernetes.io/name": "c"}}, "b", "ReplicaSet/api-7d9f8c6b5"),
        ({"labels": {"app.kubernetes.io/name": "c"}}, "c", "ReplicaSet/api-7d9f8c6b5"),
        ({"labels": {}}, "api-7d9f8c6b5", "ReplicaSet/api-7d9f8c6b5"),
        ({"ownerReferences": owner("StatefulSet", "db")}, "db", "StatefulSet/db"),
        ({"ownerReferences": owner("Job", "import-29384756")}, "import", "CronJob/import"),
        ({"ownerReferences": owner("Job", "import")}, "import", "Job/import"),
        ({"ownerReferences": [{"kind": "Thing", "name": "x"}]}, "alone", ""),
        ({"ownerReferences": []}, "alone", ""),
    ],
)
def test_a_services_name(changed: dict[str, Any], service: str, by: str) -> None:
    found = pods_of(document(pod("alone", **changed)))[0][ID]
    assert (found.service, found.owner) == (service, by)


def test_a_static_pod_goes_by_its_hash_too() -> None:
    """The mirror that the API server has is another one by its uid."""
    made = pod("etcd-node-1", annotations={"kubernetes.io/config.hash": "3e61c214bc3ed9ff81e21474dd6cba17"})
    _, pods = pods_of(document(made))
    assert pods.keys() == {UID, "3e61c214bc3ed9ff81e21474dd6cba17"}


def mutants(value: Any) -> Iterator[Any]:
    """It with each of its parts replaced by something of another form."""
    yield from (None, 1, "x", [1], {"a": 1}, [[]])
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        for instead in mutants(part):
            if isinstance(value, dict):
                yield {**value, key: instead}
            else:
                yield [*value[:key], instead, *value[key + 1 :]]


def test_whatever_is_said_is_no_error() -> None:
    for said in mutants(document(pod())):
        for each in (each for found in pods_of(said) for each in found.items()):
            assert isinstance(each[0], str) and isinstance(each[1], Container)


def test_it_is_asked_again_and_again(server: Server, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the agent; what was known stays known while nobody answers, and files are asked for the rest."""
    monkeypatch.setattr("gotrace.agent.pods._EVERY_S", (0.05, 0.05))
    pods = Pods(Kubelet([url(server)], str(account)), 0).start()
    try:
        found = pods.of(Place("containerd", ID, UID))
        assert (found.pod, found.service) == ("api-7d9f8c6b5-x2x4k", "api")
        server.body = json.dumps(document(pod("other", uid="1"))).encode()
        until(lambda: pods.of(Place("containerd", ID, UID)).pod == "other")
        server.status = 403
        until(lambda: pods.kubelet.failures["403"] > 1)
        assert pods.of(Place("containerd", ID, UID)).pod == "other"
        assert pods.of(Place()).pod == ""
    finally:
        pods.close()
    asked = len(server.asked)
    pods._thread.join(10)
    assert len(server.asked) <= asked + 1
