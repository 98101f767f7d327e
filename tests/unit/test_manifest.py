"""What `gotrace k8s` prints: by Kubernetes' own schemas, and no right more than the agent has been seen to need."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gotrace.agent import manifest
from gotrace.agent.settings import SCHEMA, Settings
from gotrace.kernel.privileges import SERVE_CAPABILITIES
from gotrace.lab.yaml_file import parse

SCHEMAS = json.loads((Path(__file__).parents[1] / "testdata/kubernetes/schemas.json").read_text())


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gotrace.cli", "k8s", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def named(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (each for each in documents if each["kind"] == kind)
    return found


@pytest.mark.parametrize("more", [(), ("--no-pod-monitor",), ("--old-kernels", "--namespace", "observability")])
def test_kubernetes_takes_it(more: tuple[str, ...], tmp_path: Path) -> None:
    """By the strict schemas of Kubernetes 1.37: a field that is misspelt is none of theirs. PodMonitor has none there."""
    done = run("--image", "registry.example:5000/gotrace@sha256:0", *more)
    assert (done.returncode, done.stderr) == (0, "")
    documents = list(yaml.safe_load_all(done.stdout))
    kinds = [each["kind"] for each in documents]
    assert ("PodMonitor" in kinds) is ("--no-pod-monitor" not in more)
    for each in documents:
        if each["kind"] != "PodMonitor":
            jsonschema.validate(each, {"$defs": SCHEMAS["$defs"], **SCHEMAS["kinds"][each["kind"]]})
    namespace = "observability" if "observability" in more else "gotrace"
    assert {each["metadata"].get("namespace", namespace) for each in documents} == {namespace}
    assert named(documents, "ClusterRoleBinding")["subjects"][0]["namespace"] == namespace
    path = tmp_path / "gotrace.yaml"
    path.write_text(done.stdout)
    assert run("--check", str(path)).returncode == 0
    settings = parse(named(documents, "ConfigMap")["data"]["agent.yaml"].encode(), "agent.yaml", Settings, SCHEMA)
    assert settings.selection().exclude and settings.address() == ("0.0.0.0", manifest.PORT)


def test_the_schemas_find_what_is_misspelt() -> None:
    document = named(manifest.documents("x", "y"), "DaemonSet")
    document["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(jsonschema.ValidationError, match="hostPid"):
        jsonschema.validate(document, {"$defs": SCHEMAS["$defs"], **SCHEMAS["kinds"]["DaemonSet"]})


def pod_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = named(documents, "DaemonSet")["spec"]["template"]["spec"]
    return pod


def test_its_rights_are_the_published_ones() -> None:
    documents = manifest.documents("x", "y")
    pod = pod_of(documents)
    for each in (*pod["containers"], *pod["initContainers"]):
        context = each["securityContext"]
        assert {f"CAP_{name}" for name in context["capabilities"]["add"]} == set(SERVE_CAPABILITIES)
        assert "privileged" not in context
    assert named(documents, "ClusterRole")["rules"] == [
        {"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
    ]


def agent(documents: list[dict[str, Any]]) -> dict[str, Any]:
    container: dict[str, Any] = pod_of(documents)["containers"][0]
    return container


def rule(*resources: str, verbs: tuple[str, ...] = ("get",), group: str = "") -> dict[str, Any]:
    return {"apiGroups": [group], "resources": [*resources], "verbs": [*verbs]}


CHANGES: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "it grants get on nodes/proxy": lambda all_: named(all_, "ClusterRole")["rules"].append(rule("nodes/proxy")),
    "it grants get on secrets": lambda all_: named(all_, "ClusterRole")["rules"].append(rule("pods", "secrets")),
    "it grants delete on pods": lambda all_: named(all_, "ClusterRole")["rules"].append(rule("pods", verbs=("delete",))),
    "it grants * on *": lambda all_: named(all_, "ClusterRole")["rules"].append(rule("*", verbs=("*",), group="*")),
    "it binds the role other": lambda all_: named(all_, "ClusterRoleBinding")["roleRef"].update(name="other"),
    "it is privileged": lambda all_: agent(all_)["securityContext"].update(privileged=True),
    "it has NET_ADMIN": lambda all_: agent(all_)["securityContext"]["capabilities"]["add"].append("NET_ADMIN"),
    "it lacks BPF": lambda all_: agent(all_)["securityContext"]["capabilities"]["add"].remove("BPF"),
    "it does not drop ALL": lambda all_: agent(all_)["securityContext"]["capabilities"].pop("drop"),
    "not read-only": lambda all_: agent(all_)["securityContext"].pop("readOnlyRootFilesystem"),
    "allowPrivilegeEscalation": lambda all_: agent(all_)["securityContext"].pop("allowPrivilegeEscalation"),
    "no memory limit": lambda all_: agent(all_).pop("resources"),
    "hostPID is not true": lambda all_: pod_of(all_).pop("hostPID"),
    "hostNetwork is true": lambda all_: pod_of(all_).update(hostNetwork=True),
    "volume x is a hostPath": lambda all_: pod_of(all_)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "no init container": lambda all_: pod_of(all_).pop("initContainers"),
    "no DaemonSet found": lambda all_: all_.remove(named(all_, "DaemonSet")),
    "Pod x: it was not checked": lambda all_: all_.append({"kind": "Pod", "metadata": {"name": "x"}}),
    "the agent needs no secrets": lambda all_: all_.append({"kind": "Secret", "metadata": {"name": "x"}}),
}


@pytest.mark.parametrize("said", CHANGES)
def test_each_right_too_many_is_told(said: str) -> None:
    documents = json.loads(json.dumps(manifest.documents("x", "y")))
    CHANGES[said](documents)
    assert len(found := manifest.faults(documents)) == 1 and said in found[0]


@pytest.mark.parametrize(
    "text", ["", "a", "[]", "kind: DaemonSet", "kind: ClusterRole\nrules: 5", "kind: [x]", "a: 1\n---\n- 5"]
)
def test_what_is_no_manifest(text: str, tmp_path: Path) -> None:
    assert manifest.faults([each for each in yaml.safe_load_all(text) if each is not None])


def test_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a: [")
    for arguments in ((), ("--image", "a b"), ("--check", "/nowhere"), ("--check", str(tmp_path / "x"))):
        done = run(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 2), arguments
