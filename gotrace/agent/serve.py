"""`gotrace serve`: the agent, what answers requests, and what sends metrics, until a signal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import gotrace
from gotrace import cache
from gotrace.agent import spool_pages
from gotrace.agent.agent import Agent
from gotrace.agent.http import Response, Route, Server
from gotrace.agent.http import check as check_listening
from gotrace.agent.metrics_page import MetricsPage
from gotrace.agent.pods import Pods
from gotrace.agent.push import Destination, Push
from gotrace.agent.requests import Request
from gotrace.agent.spool import Spool
from gotrace.agent.spool import check as check_spool
from gotrace.agent.status_page import status_page
from gotrace.errors import GotraceError, HostError
from gotrace.find.kubelet import Kubelet, sources_of
from gotrace.find.processes import Scanner
from gotrace.kernel.aside import aside
from gotrace.kernel.host import require_everybodys_processes
from gotrace.lab.gate_answers import MOST_BODY
from gotrace.probe import probe_module
from gotrace.run.target import Say, StopRequest
from gotrace.shared import SharedProbes
from gotrace.text import printable

if TYPE_CHECKING:
    from gotrace.agent.settings import Settings

STEMS = ("gc",)
RING_BYTES = 1 << 20  # 14 563 events: at 3 000 a second nothing is lost in 4.8 s
# What sockets, files and loaded probes were made by.
_FIXED = ("listen", "otlp", "spool", "token_file", "tls_certificate", "tls_key", "anyone")
_EXPLAINING = (*STEMS, "tail"), RING_BYTES << 2  # a stop makes some 50


def prepare() -> None:
    """Compile what `serve` loads, and keep it: a compiler takes more memory than the agent may. Raises GotraceError."""
    for stems, size in ((STEMS, RING_BYTES), _EXPLAINING):
        with SharedProbes.opened([probe_module(stem) for stem in stems], size, attaches=False) as probes:
            if not all(map(cache.get, probes.keys)):
                raise HostError(
                    f"the compiled probes were not kept: the cache {printable(cache.folder())} cannot be used",
                    "set GOTRACE_CACHE to a directory that you own and only you can write to",
                )


def check(settings: Settings) -> None:
    """Raises what `serve` would for these settings, and leaves everything as it is."""
    settings.selection(), settings.explain_above_ns()
    Destination.of(os.environ, settings.otlp)
    check_listening(settings.address(), settings.security())
    if settings.spool:
        check_spool(settings.spool)


def serve(settings: Settings, say: Say, reread: Callable[[], Settings] | None = None) -> None:
    """Until Ctrl-C or SIGTERM; ``reread`` gives the settings at a SIGHUP where a file has them. Both raise GotraceError."""
    stop = StopRequest()
    destination = Destination.of(os.environ, settings.otlp)
    selection, address, above_ns = settings.selection(), settings.address(), settings.explain_above_ns()
    with contextlib.ExitStack() as stack:
        stack.enter_context(stop.installed())
        hangups: list[int] = []
        if not os.isatty(2):  # there is no terminal to hang up: somebody wants the settings to be read again
            signal.signal(signal.SIGHUP, lambda number, _: hangups.append(number))
        unseen = require_everybodys_processes()
        stems, ring_bytes = _EXPLAINING if above_ns else (STEMS, RING_BYTES)
        probes = stack.enter_context(SharedProbes.opened([probe_module(stem) for stem in stems], ring_bytes, aside))
        spool = Spool(settings.spool, settings.for_spool()[0]) if settings.spool else None
        explanations = None
        if above_ns:
            from gotrace.agent.explanations import Explanations

            explanations = Explanations(settings.spool, settings.for_spool()[1], above_ns, settings.explanations, say)
        naming = kubelet = None
        if sources := sources_of():
            kubelet = Kubelet(sources)
            pods = Pods(kubelet, selection.min_age_s).start()
            stack.callback(pods.close)
            naming = pods.of
        agent = Agent(
            probes, Scanner(naming), selection, say, settings.bounds(), spool, kubelet=kubelet, explanations=explanations
        )
        routes = {
            "/metrics": MetricsPage(agent.registry).route,
            "/processes": Route({"GET": lambda request: _processes(agent, request)}),
            "/gate": Route(dict.fromkeys(("GET", "POST"), lambda request: _gate(agent, request)), MOST_BODY),
            **(spool_pages.routes(settings.spool) if settings.spool else {}),
            "/": _route(lambda: status_page(agent).encode(), "text/html; charset=utf-8"),
        }
        server = stack.enter_context(
            Server(
                address,
                routes,
                ready=lambda: "" if agent.ready else "the first scan of processes has not finished\n",
                security=settings.security(),
                failed=lambda error: say(f"HTTP: {printable(str(error))}."),
            )
        )
        if destination is not None:
            agent.push = Push(agent.registry, destination, gotrace.__version__).start()
            stack.callback(_close, agent.push, say)
        stack.callback(agent.close)
        host, port = server.address
        if unseen:
            say(unseen)
        say(f"Serving http{'s' if settings.tls_certificate else ''}://{host}:{port}/metrics… Ctrl-C to end.")
        while not stop.signal:
            agent.step()
            if hangups:
                hangups.clear()
                if reread is None:
                    say("SIGHUP ignored: there is no settings file (-f FILE).")
                else:
                    settings = _reload(agent, settings, reread, say)


def _reload(agent: Agent, settings: Settings, reread: Callable[[], Settings], say: Say) -> Settings:
    """The settings that hold from now on: of those that were read again, what can change while the agent runs."""
    try:
        wanted = reread()
        selection, explains = wanted.selection(), wanted.explain_above_ns() > 0
    except GotraceError as error:
        agent.note_settings(False)
        say(f"Settings not reloaded, the current ones stay in effect: {error.message}.")
        return settings
    fixed = [key for key in _FIXED if getattr(wanted, key) != getattr(settings, key)]
    if explains is (agent.explanations is None):
        fixed.append("explain_above")
    for key in fixed:
        setattr(wanted, key, getattr(settings, key))
    minutes, recordings = wanted.for_spool()
    agent.change(selection, wanted.bounds())
    if agent.spool is not None:
        agent.spool.most_bytes = minutes
    if agent.explanations is not None:
        agent.explanations.change(recordings, wanted.explain_above_ns(), wanted.explanations)
    agent.note_settings(True)
    say("Settings reloaded" + (f"; restart to change {', '.join(fixed)}." if fixed else "."))
    return wanted


def _close(push: Push, say: Say) -> None:
    push.close()
    if push.problem:
        say(f"The last metrics did not reach the collector at {push.collector}: {push.problem}.")


def _route(page: Callable[[], bytes], content_type: str) -> Route:
    return Route({"GET": lambda request: Response(200, page(), content_type)})


def _gate(agent: Agent, request: Request) -> Response:
    from gotrace.agent.gate import answer  # statistics, which take memory, where somebody asks for them

    return answer(agent.traced(), request)


def _processes(agent: Agent, request: Request) -> Response:
    """Rows of all, or with ``?pid=12`` everything about one."""
    if not request.query:
        return Response(200, json.dumps(agent.processes(), indent=1).encode(), "application/json")
    key, _, pid = request.query.partition("=")
    if key != "pid" or not (pid.isascii() and pid.isdecimal() and len(pid) < 11):
        return Response(400, b"expected ?pid=NUMBER\n")
    found = agent.process(int(pid))
    if found is None:
        return Response(404, b"this process is not traced\n")
    return Response(200, json.dumps(found, indent=1).encode(), "application/json")
