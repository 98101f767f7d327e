"""A page for people who open the agent's address in a browser: which processes it traces, and how they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gotrace
from gotrace.text import bytes_text, duration_text

if TYPE_CHECKING:
    from gotrace.agent.agent import Agent

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }
body { color: #222; background: #fff }
table { border-collapse: collapse; width: 100% }
th, td { text-align: right; padding: .25em .6em; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }
th:nth-child(-n+4), td:nth-child(-n+4) { text-align: left; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 }
  th, td { border-color: #444 }
  a { color: #8bf }
}
"""
_HEADS = ("pid", "executable", "Go", "state", "GC cycles", "longest pause", "RSS", "live heap", "events lost")


def status_page(agent: Agent) -> str:
    """One HTML file without outside resources; every name is escaped."""
    import html  # late: its table of entities takes half a megabyte

    rows = []
    for each in agent.processes():
        traced = "cycles" in each
        numbers = (
            [
                f"{each['cycles']:,}",
                duration_text(each["longest_pause_ns"]) if each["longest_pause_ns"] else "-",
                bytes_text(each["rss_bytes"]) if each["rss_bytes"] else "-",
                bytes_text(each["heap_live_bytes"]) if each["heap_live_bytes"] else "-",
                f"{each['lost']:,}",
            ]
            if traced
            else ["-"] * 5
        )
        state = f"{each['state']}: {each['reason']}" if each["reason"] else each["state"]
        cells = [str(each["pid"]), each["exe"], each["go_version"], state, *numbers]
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{head}</th>" for head in _HEADS)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=10>"
        f"<title>gotrace</title><style>{_STYLE}</style><h1>gotrace {html.escape(gotrace.__version__)}</h1>"
        f"<p>{len(agent.probes.sessions)} of {len(rows)} Go processes traced. "
        "<a href=/metrics>Metrics</a>, <a href=/processes>processes as JSON</a></p>"
        f"<table><tr>{heads}</tr>{''.join(rows)}</table></html>\n"
    )
