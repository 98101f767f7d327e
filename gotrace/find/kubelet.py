"""The pods of this node: who a container is, by its id, as the kubelet says, or else the API server.

Both give the same document, a PodList. Of the kubelet only /pods is asked: since Kubernetes 1.36 that is the right
nodes/pods of its own (KEP-2862); before, it is nodes/proxy, by which commands can be executed in every pod, and which an
agent should not have. So the API server is asked for the pods of this node where the kubelet refuses.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

from gotrace.find.names import Container, Names
from gotrace.find.places import Place
from gotrace.text import printable

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_PATIENCE_S = 5.0
_LARGEST = 64 << 20  # bytes of a PodList: 500 pods have some 5 MB
_HASH = "kubernetes.io/config.hash"  # a static pod's control group is named by it, whatever uid its mirror has
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
# From what the service's name is taken, first found: docs/non-normative/k8s-attributes.md of the semantic conventions.
_SERVICE_ANNOTATION = "resource.opentelemetry.io/service.name"
_SERVICE_LABELS = ("app.kubernetes.io/instance", "app.kubernetes.io/name")
_CRON_JOBS = re.compile(r"(.+)-\d{8}")  # getJobName of pkg/controller/cronjob: the minute it was scheduled for
_REFUSALS = {
    401: "the token was rejected",
    403: "the service account is not allowed to get pods",
    404: "not found",
}


def sources_of(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Where pods are to be asked for, in this order: by NODE_IP and NODE_NAME, which a manifest takes from the node."""
    found = []
    if address := environment.get("NODE_IP", ""):
        found.append(f"https://{_host(address)}:10250/pods")
    server, node = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("NODE_NAME", "")
    if server and node:
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        found.append(f"https://{_host(server)}:{port}/api/v1/pods?fieldSelector=spec.nodeName%3D{quote(node, safe='')}")
    return tuple(found)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


class Kubelet:
    """Keeps what it heard last. What goes wrong is no error: ``problem`` says it in a text, ``failures`` counts by kind.

    ``sources`` are URLs, http:// or https://, of which the first that answers is asked; ``account`` the folder of the
    service account's token and ca.crt, which are read each time, because they change.
    """

    def __init__(self, sources: Sequence[str], account: str = _ACCOUNT, patience_s: float = _PATIENCE_S) -> None:
        self._sources, self._account, self._patience_s = sources, account, patience_s
        self._containers: dict[str, Container] = {}
        self._pods: dict[str, Container] = {}
        self.asked_s = 0.0  # time.monotonic() of the last answer
        self.problem = "" if sources else "cannot list pods: NODE_IP and NODE_NAME are not set"
        self.failures: Counter[str] = Counter()

    def refresh(self) -> bool:
        """Ask again; False if nobody answered, in which case what was known before stays."""
        problems = []
        for source in self._sources:
            try:
                self._containers, self._pods = pods_of(self._asked(source))
                self.asked_s, self.problem = time.monotonic(), ""
                return True
            except _RefusedError as error:
                self.failures[error.kind] += 1
                problems.append(f"{urlsplit(source).netloc}: {error}")
        self.problem = "; ".join(problems) or self.problem
        return False

    def of(self, place: Place) -> Container | None:
        """The container, or at least the pod, of a place; None if neither is known."""
        return self._containers.get(place.container) or self._pods.get(place.pod)

    def naming(self, names: Names) -> Callable[[Place], Container]:
        """What is known of a container, for `gotrace.find.processes.Scanner`: of one that was started since, its files."""

        def of(place: Place) -> Container:
            told = self.of(place)
            if told is not None and told.name:
                return told
            read = names.of(place)
            return read if told is None else replace(told, name=read.name, image=read.image)

        return of

    def _asked(self, source: str) -> Any:
        # Four megabytes, and only where there is a kubelet.
        import http.client
        import ssl

        url = urlsplit(source)
        try:
            if url.scheme == "https":
                context = ssl.create_default_context(cafile=os.path.join(self._account, "ca.crt"))
                headers = {"Authorization": f"Bearer {_line(os.path.join(self._account, 'token'))}"}
                connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                    url.hostname or "", url.port, timeout=self._patience_s, context=context
                )
            else:
                headers = {}
                connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=self._patience_s)
            try:
                connection.request("GET", f"{url.path}?{url.query}" if url.query else url.path, headers=headers)
                answer = connection.getresponse()
                data = answer.read(_LARGEST + 1)
            finally:
                connection.close()
        except TimeoutError:
            raise _RefusedError("timeout", f"no response within {self._patience_s:g} s") from None
        except ssl.SSLError as error:
            raise _RefusedError("tls", f"TLS failed: {getattr(error, 'verify_message', '') or error.reason}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _RefusedError("connection", printable(str(error) or type(error).__name__)) from None
        if answer.status != http.HTTPStatus.OK:
            raise _RefusedError(
                str(answer.status), f"{answer.status}: {_REFUSALS.get(answer.status, printable(answer.reason))}"
            )
        if len(data) > _LARGEST:
            raise _RefusedError("answer", f"the response exceeds {_LARGEST >> 20} MiB")
        try:
            return json.loads(data)
        except ValueError:
            raise _RefusedError("answer", "the response is not JSON") from None


class _RefusedError(Exception):
    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def _line(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def pods_of(document: Any) -> tuple[dict[str, Container], dict[str, Container]]:
    """What a PodList says: containers by their ids, and pods by their uids. What does not have its form is left out."""
    containers: dict[str, Container] = {}
    pods: dict[str, Container] = {}
    for pod in _list(_map(document).get("items")):
        about, status = _map(_map(pod).get("metadata")), _map(_map(pod).get("status"))
        annotations = _texts(about.get("annotations"))
        for uid in filter(None, (_text(about.get("uid")), annotations.get(_HASH, ""))):
            pods[uid] = _container(about, annotations)
        for each in (each for kind in _STATUSES for each in map(_map, _list(status.get(kind)))):
            if identity := _text(each.get("containerID")).rpartition("://")[2]:
                containers[identity] = _container(about, annotations, _text(each.get("name")), _text(each.get("image")))
    return containers, pods


def _container(about: dict[str, Any], annotations: dict[str, str], called: str = "", image: str = "") -> Container:
    """A container of a pod that is described by ``about``, its metadata; without a name the pod itself."""
    name, labels = _text(about.get("name")), _texts(about.get("labels"))
    owners = list(_owners(about, labels))
    named = [annotations.get(_SERVICE_ANNOTATION, ""), *(labels.get(each, "") for each in _SERVICE_LABELS)]
    return Container(
        name=called,
        image=image,
        namespace=_text(about.get("namespace")),
        pod=name,
        owner="/".join(owners[0]) if owners else "",
        service=next(filter(None, [*named, *(each for _, each in owners), name, called]), ""),
        labels=labels,
        annotations=annotations,
    )


def _owners(about: dict[str, Any], labels: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(kind, name) of what controls a pod, the outermost first: who controls a ReplicaSet or a Job is in its name."""
    for owner in map(_map, _list(about.get("ownerReferences"))):
        kind, name = _text(owner.get("kind")), _text(owner.get("name"))
        if not owner.get("controller"):
            continue
        suffix = f"-{labels.get('pod-template-hash', '')}"
        if kind == "ReplicaSet" and len(suffix) > 1 and name.endswith(suffix):
            yield "Deployment", name.removesuffix(suffix)
        if kind == "Job" and (by := _CRON_JOBS.fullmatch(name)):
            yield "CronJob", by[1]
        yield kind, name


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> dict[str, str]:
    return {name: text for name, text in _map(value).items() if isinstance(text, str)}
