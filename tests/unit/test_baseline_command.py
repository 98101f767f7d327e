"""`gotrace baseline`: what its options say is measured, and what they cannot mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gotrace.cli.main import main
from gotrace.errors import UsageError
from gotrace.lab.build import Build
from gotrace.lab.container import Container, tool_of

Run = Callable[..., tuple[int, str, str]]
URL = "http://127.0.0.1:1/"


@pytest.fixture
def dry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `gotrace baseline --dry-run` beside a fake podman and a fake load tool."""
    for name, text in (
        ("podman", """echo '[{"Id": "1"}]'"""),
        ("docker", "exit 1"),
        ("wrk", ":"),
        ("go", ":"),
        ("shop", ":"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["baseline", "--load", f"wrk -d10s {URL}", "--out", str(tmp_path / "out"), "--dry-run", *words])
        return (int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_what_would_be_done(dry: Run, tmp_path: Path) -> None:
    status, text, _ = dry("-n", "2", "--", "shop", "-port", "1")
    plan, _, of_the_host = text.partition("\n\ngotrace doctor:\n")
    assert (
        status == 0
        and "privileges" in of_the_host
        and plan.splitlines()
        == [
            "version shop: shop -port 1",
            "ready when: tcp:127.0.0.1:1",
            f"load: wrk -d10s {URL} (for 10.0 s)",
            "each: 2 runs after 5.00 s of warm-up",
            "order (seed 1): shop shop",
            "takes: about 36 s",
            f"writes: {tmp_path}/out/report.json, {tmp_path}/out/runs/",
        ]
    )
    assert "each: 10 runs after warm-up until steady" in dry("--preload", "auto", "--", "shop")[1]


def test_builds_take_their_names_from_flags(dry: Run, tmp_path: Path) -> None:
    status, text, _ = dry("--build", "", "--build=-gcflags='-N -l' -trimpath", "--", "./cmd/server", "-port", "1")
    assert status == 0 and text.splitlines()[:4] == [
        f"built: go build -o {tmp_path}/out/builds/0/server ./cmd/server",
        f"version default: {tmp_path}/out/builds/0/server -port 1",
        f"built: go build '-gcflags=-N -l' -trimpath -o {tmp_path}/out/builds/1/server ./cmd/server",
        f"version '-gcflags=-N -l' -trimpath: {tmp_path}/out/builds/1/server -port 1",
    ]


def test_containers(dry: Run) -> None:
    words = [
        "--container",
        "shop:1",
        "--container",
        "new=registry:5000/shop:2@sha256:1",
        "--memory",
        "7g",
        "--quota",
        "3.5",
    ]
    status, text, _ = dry(*words, "--container-option=--env=GOGC=50", "--cpus", "0", "--", "-port", "1")
    how = "podman run --rm --pull=never --name=NAME --network=host --memory=7g --cpus=3.5 --cpuset-cpus=0 --env=GOGC=50"
    assert status == 0 and text.splitlines()[:2] == [
        f"version shop:1: {how} shop:1 -port 1",
        f"version new: {how} registry:5000/shop:2@sha256:1 -port 1",
    ]


@pytest.mark.parametrize("options", [("--network=none",), ("-p=80:80",), ("--publish=80:80",)])
def test_a_network_of_its_own(options: tuple[str, ...]) -> None:
    assert "--network=host" not in Container("a", ("podman",), options=options).command("n", ())


@pytest.mark.parametrize(
    ("words", "what"), [(("--pid", "1"), "an already running process"), (("--container", "a"), "a container")]
)
def test_starts_that_cannot_be_traced(words: tuple[str, ...], what: str, dry: Run) -> None:
    status, _, errors = dry(*words, "--coldstart")
    assert status == 2 and f"the start of {what} cannot be traced" in errors and "omit --coldstart" in errors


def test_what_is_traced_too(dry: Run) -> None:
    status, text, _ = dry("--events", "--coldstart", "--", "true")
    assert status == 0 and "also traced: thread and P events, starts" in text.splitlines()


def test_a_planned_quota() -> None:
    found = [Container("a", ("podman",), quota=quota, options=options).has_quota for quota, options in CASES]
    assert found == [True, False, True, True]


CASES: list[tuple[float | None, tuple[str, ...]]] = [
    (1.0, ()),
    (None, ("--env=A",)),
    (None, ("--cpus=1",)),
    (None, ("--cpu-quota=1",)),
]


def test_the_tool_is_podman_or_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="neither podman nor docker"):
        tool_of(())
    for name in ("docker", "podman"):
        (tmp_path / name).touch(0o755)
        assert tool_of(()) == (name,)
    assert tool_of(("nerdctl", "-n", "x")) == ("nerdctl", "-n", "x")


def test_the_executable_is_called_as_go_calls_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names = [Build(package).file_name for package in (".", "./cmd/server", "example.org/x/api", "main.go")]
    assert names == [tmp_path.name, "server", "api", "main"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say what to measure"),
        (("--build", ""), "say what to measure"),
        (("--pid", "1", "--", "shop"), "there is also a command after `--`"),
        (("--ab", "A=shop", "--", "shop"), "there is also a command after `--`"),
        (("--pid", "1", "--ab", "A=shop"), "--pid and --ab are mutually exclusive"),
        (("--build", "", "--container", "a", "--", "."), "--build and --container are mutually exclusive"),
        (("--pid", "1", "--cpus", "0"), "--pid and --cpus are mutually exclusive"),
        (("--memory", "7g", "--", "shop"), "--memory has no effect without --container"),
        (("--go", "go", "--", "shop"), "--go has no effect without --build"),
        (("--build", "", "--build", "", "--", "."), "two versions have the same name"),
        (("--build", "-gcflags='", "--", "."), "cannot read --build"),
        (("--build", "-o /etc/passwd", "--", "."), "changes where to build"),
        (("--build", "", "--go", "/nowhere/go", "--", "."), "there is no command '/nowhere/go'"),
        (("--container", "a", "--memory", "much"), "cannot read the memory limit 'much'"),
        (("--container", "a", "--quota", "0"), "Invalid value for '--quota'"),
        (("--container", "=a"), "cannot read --container"),
        (("--container", "--privileged"), "'--privileged' is not an image"),
        (("--container", "a", "--container-option", "--rm"), "'--rm' is not allowed as a container option here"),
        (("--container", "a", "--container-tool", "docker"), "docker image failed: status 1"),
        (("--pprof", "localhost:6060", "--", "shop"), "cannot read --pprof"),
        (("--preload", "soon", "--", "shop"), "invalid duration 'soon'"),
    ],
)
def test_mistakes(words: tuple[str, ...], message: str, dry: Run) -> None:
    status, _, err = dry(*words)
    assert status == 2 and message in err and "hint:" in err, err
