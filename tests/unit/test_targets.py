"""Builds for the tests: one list of releases, and one cached file per content, release, flavour and architecture."""

from __future__ import annotations

import runpy

import targets


def test_one_list_of_releases():
    fetched = runpy.run_path(str(targets.ROOT / "scripts" / "go-toolchain"))
    assert fetched["MATRIX"] == targets.RELEASES and fetched["DEFAULT"] == targets.NEWEST
    assert set(targets.MATRIX) <= set(targets.RELEASES)


def test_flavours_that_a_release_cannot_build():
    assert "pgo" not in targets.flavours_of("1.19.8", targets.HOST_ARCH)
    assert "pgo" in targets.flavours_of("1.21.13", targets.HOST_ARCH)
    foreign = {"amd64": "arm64", "arm64": "amd64"}[targets.HOST_ARCH]
    assert not {name for name in targets.flavours_of("1.27.3", foreign) if targets.FLAVOURS[name][1]}


def test_a_program_is_built_once(monkeypatch):
    first = targets.build("lifecycle")
    monkeypatch.setattr(targets.subprocess, "run", lambda *_, **__: 1 / 0)
    assert targets.build("lifecycle") == first


def test_the_callers_go_settings_do_not_leak(monkeypatch):
    for name in ("GOROOT", "GOWORK", "GOFLAGS", "GOEXPERIMENT", "CGO_CFLAGS"):
        monkeypatch.setenv(name, "/nowhere")
    assert "/nowhere" not in targets.environment(targets.NEWEST).values()
