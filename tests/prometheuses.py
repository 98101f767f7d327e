"""A real Prometheus that scrapes us, and what it answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from conftest import PATIENCE_S
from services import free_port

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None
    and (Path("/run/systemd/system").is_dir() or not os.environ.get("GOTRACE_REQUIRE_BPF")),
    reason="no Prometheus",
)


def started(folder: Path, target: int, *features: str) -> tuple[subprocess.Popen[bytes], str]:
    folder.mkdir()
    port = free_port()
    scrapes = [{"job_name": "gotrace", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}]
    config = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": scrapes}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    process = subprocess.Popen(
        ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        + [f"--web.listen-address=127.0.0.1:{port}", f"--enable-feature={','.join(('exemplar-storage', *features))}"],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb"),
    )
    return process, f"http://127.0.0.1:{port}/api/v1/"


def ask(prometheus: str, what: str, **arguments: str) -> Any:
    with urllib.request.urlopen(f"{prometheus}{what}?{urllib.parse.urlencode(arguments)}", timeout=PATIENCE_S) as answer:
        return json.load(answer)["data"]


def query(prometheus: str, text: str) -> list[dict[str, Any]]:
    return list(ask(prometheus, "query", query=text)["result"])


def waited_for(prometheus: str, text: str) -> list[dict[str, Any]]:
    """The first answer that is not empty."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if found := query(prometheus, text):
                return found
        except OSError:  # it does not listen yet
            pass
        time.sleep(0.1)
    raise AssertionError(f"no answer to {text}")
