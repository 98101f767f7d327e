"""The agent on Kubernetes: what is installed, and whether a manifest still keeps to the same rights.

One pod on each node, which may load programs and look at processes, and may ask for the names of its node's pods: nothing
else. Fields are those of Kubernetes' API reference, https://kubernetes.io/docs/reference/kubernetes-api/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gotrace.kernel.privileges import SERVE_CAPABILITIES

OPT_OUT = "gotrace.dev/enabled"  # an annotation of pods, with the value "false"
PORT = 9464
_NAME = "gotrace"
_LABELS = {"app.kubernetes.io/name": _NAME}
_CACHE = "/var/cache/gotrace"
_CAPABILITIES = [each.removeprefix("CAP_") for each in SERVE_CAPABILITIES]
_OLD_KERNELS = "SYS_ADMIN"  # before Linux 6.10
# (group, resource): verbs. nodes/pods is a right of its own since Kubernetes 1.36 (KEP-2862).
_RIGHTS = {("", "nodes/pods"): {"get"}, ("", "pods"): {"get", "list"}}
_SETTINGS = f"""\
schema: gotrace.agent/1
listen: 0.0.0.0:{PORT}
# Anyone who can reach the pod can read its metrics: restrict access with a NetworkPolicy, or set a certificate and a token.
anyone: true
exclude: ["annotation:{OPT_OUT}=false"]
"""


def documents(image: str, namespace: str, pod_monitor: bool = True, old_kernels: bool = False) -> list[dict[str, Any]]:
    """What to apply. ``old_kernels``: with CAP_SYS_ADMIN, for nodes with Linux before 6.10."""
    made = [
        _document("v1", "Namespace", {"name": namespace, "labels": _LABELS}),
        _document("v1", "ServiceAccount", _about(namespace)),
        _document(
            "rbac.authorization.k8s.io/v1",
            "ClusterRole",
            {"name": _NAME, "labels": _LABELS},
            rules=[
                {"apiGroups": [group], "resources": [resource], "verbs": sorted(verbs)}
                for (group, resource), verbs in _RIGHTS.items()
            ],
        ),
        _document(
            "rbac.authorization.k8s.io/v1",
            "ClusterRoleBinding",
            {"name": _NAME, "labels": _LABELS},
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": _NAME},
            subjects=[{"kind": "ServiceAccount", "name": _NAME, "namespace": namespace}],
        ),
        _document("v1", "ConfigMap", _about(namespace), data={"agent.yaml": _SETTINGS}),
        _document("apps/v1", "DaemonSet", _about(namespace), spec=_daemon_set(image, old_kernels)),
    ]
    if pod_monitor:
        spec = {"selector": {"matchLabels": _LABELS}, "podMetricsEndpoints": [{"port": "metrics", "interval": "30s"}]}
        made.append(_document("monitoring.coreos.com/v1", "PodMonitor", _about(namespace), spec=spec))
    return made


def _document(version: str, kind: str, metadata: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def _about(namespace: str) -> dict[str, Any]:
    return {"name": _NAME, "namespace": namespace, "labels": _LABELS}


def _daemon_set(image: str, old_kernels: bool) -> dict[str, Any]:
    container = {
        "image": image,
        "securityContext": {
            "runAsUser": 0,  # Kubernetes gives capabilities to no other user
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": old_kernels,  # must be so with SYS_ADMIN, says the API
            "capabilities": {"drop": ["ALL"], "add": [*_CAPABILITIES, *([_OLD_KERNELS] if old_kernels else [])]},
        },
        "env": [
            {"name": "GOTRACE_CACHE", "value": _CACHE},
            *(
                {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
                for name, path in (("NODE_NAME", "spec.nodeName"), ("NODE_IP", "status.hostIP"))
            ),
        ],
        "volumeMounts": [
            {"name": "cache", "mountPath": _CACHE},
            {"name": "settings", "mountPath": "/etc/gotrace", "readOnly": True},
        ],
    }
    prepare = {
        "name": "prepare",
        "command": ["gotrace", "serve", "--prepare"],
        # The compiler's memory, which the agent does not have to have.
        "resources": {"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"memory": "256Mi"}},
    }
    agent = {
        "name": _NAME,
        "command": ["gotrace", "serve", "-f", "/etc/gotrace/agent.yaml"],
        "ports": [{"name": "metrics", "containerPort": PORT}],
        "resources": {"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"memory": "64Mi"}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "metrics"}, "periodSeconds": 30, "timeoutSeconds": 5},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "metrics"}, "periodSeconds": 10, "timeoutSeconds": 5},
    }
    pod = {
        "serviceAccountName": _NAME,
        "hostPID": True,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        # The profiles of many runtimes keep bpf(2) and perf_event_open(2) to SYS_ADMIN.
        "securityContext": {"seccompProfile": {"type": "Unconfined"}},
        "initContainers": [container | prepare],
        "containers": [container | agent],
        "volumes": [
            {"name": "cache", "emptyDir": {"sizeLimit": "16Mi"}},
            {"name": "settings", "configMap": {"name": _NAME}},
        ],
    }
    return {
        "selector": {"matchLabels": _LABELS},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
        "template": {"metadata": {"labels": _LABELS}, "spec": pod},
    }


# They grant nothing by themselves.
_WITHOUT_RIGHTS = ("ConfigMap", "Namespace", "NetworkPolicy", "PodMonitor", "Service", "ServiceAccount", "ServiceMonitor")


def faults(found: Sequence[Any]) -> list[str]:
    """Which permissions the documents of a manifest grant beyond those of `documents`, or lack. One line each."""
    said = [line for each in found for line in _faults(each)]
    if not any(_map(each).get("kind") == "DaemonSet" for each in found):
        said.append("no DaemonSet found")
    return said


def _faults(document: Any) -> Iterator[str]:
    kind, name = (_map(document).get("kind"), _map(_map(document).get("metadata")).get("name"))
    where = f"{kind} {name}"
    if kind in ("ClusterRole", "Role"):
        if "aggregationRule" in document:
            yield f"{where}: it aggregates other roles"
        for rule in map(_map, _list(document.get("rules"))):
            yield from (f"{where}: {each}" for each in _beyond(rule))
    elif kind in ("ClusterRoleBinding", "RoleBinding"):
        role = _map(document.get("roleRef")).get("name")
        if role != _NAME:
            yield f"{where}: it binds the role {role}"
    elif kind == "DaemonSet":
        yield from (f"{where}: {each}" for each in _of_pod(_map(_path(document, "spec", "template", "spec"))))
    elif kind == "Secret":
        yield f"{where}: the agent needs no secrets"
    elif kind not in _WITHOUT_RIGHTS:
        yield f"{where}: it was not checked: the agent needs nothing of this kind"


def _beyond(rule: dict[str, Any]) -> Iterator[str]:
    if rule.get("nonResourceURLs"):
        yield f"it grants access to {' '.join(map(str, _list(rule['nonResourceURLs'])))}"
    for group in _list(rule.get("apiGroups")):
        for resource in _list(rule.get("resources")):
            more = set(map(str, _list(rule.get("verbs")))) - _RIGHTS.get((group, resource), set())
            if more:
                yield f"it grants {' '.join(sorted(more))} on {resource}"


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    if pod.get("hostPID") is not True:
        yield "hostPID is not true, so the node's processes are not visible"
    yield from (f"{each} is true" for each in ("hostNetwork", "hostIPC") if pod.get(each))
    for volume in map(_map, _list(pod.get("volumes"))):
        yield from (f"volume {volume.get('name')} is a {each}" for each in ("hostPath", "secret") if each in volume)
    agents = list(map(_map, _list(pod.get("containers"))))
    if not any("--prepare" in _list(_map(each).get("command")) for each in _list(pod.get("initContainers"))):
        yield "no init container runs `gotrace serve --prepare`, so compilation counts towards the agent's memory limit"
    for container in (*agents, *map(_map, _list(pod.get("initContainers")))):
        yield from (f"container {container.get('name')}: {each}" for each in _of_container(container))


def _of_container(container: dict[str, Any]) -> Iterator[str]:
    context = _map(container.get("securityContext"))
    if context.get("privileged"):
        yield "it is privileged"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "its root filesystem is not read-only"
    capabilities = _map(context.get("capabilities"))
    added = {str(each).removeprefix("CAP_") for each in _list(capabilities.get("add"))}
    if "ALL" not in _list(capabilities.get("drop")):
        yield "it does not drop ALL capabilities"
    if more := added - {*_CAPABILITIES, _OLD_KERNELS}:
        yield f"it has {' '.join(sorted(more))}, which the agent does not need"
    if fewer := set(_CAPABILITIES) - added:
        yield f"it lacks {' '.join(sorted(fewer))}"
    if context.get("allowPrivilegeEscalation") is not False and _OLD_KERNELS not in added:
        yield "allowPrivilegeEscalation is not false"
    if not _path(container, "resources", "limits", "memory"):
        yield "it has no memory limit"


def _path(value: Any, *keys: str) -> Any:
    for key in keys:
        value = _map(value).get(key)
    return value


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
