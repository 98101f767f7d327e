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


def test_cgo_needs_a_compiler_for_the_architecture(monkeypatch):
    foreign = {"amd64": "arm64", "arm64": "amd64"}[targets.HOST_ARCH]
    for arch, compiler in ((foreign, targets.CROSS_CC[foreign]), (targets.HOST_ARCH, "gcc")):
        for there in (True, False):
            monkeypatch.setattr(
                targets.shutil, "which", lambda name, only=there and compiler: only if name == only else None
            )
            cgo = {name for name in targets.flavours_of("1.27.3", arch) if targets.FLAVOURS[name][1]}
            assert bool(cgo) == there


def test_what_runs_everywhere_can_be_built():
    for program, version, flavour, arch in targets.everywhere("arm64"):
        assert (targets.SOURCES / program).is_dir() and version in targets.RELEASES
        assert flavour in (*targets.FLAVOURS, targets.C) and arch == "arm64"


def test_a_program_is_built_once(monkeypatch):
    first = targets.build("lifecycle")
    monkeypatch.setattr(targets.subprocess, "run", lambda *_, **__: 1 / 0)
    assert targets.build("lifecycle") == first


def test_the_callers_go_settings_do_not_leak(monkeypatch):
    for name in ("GOROOT", "GOWORK", "GOFLAGS", "GOEXPERIMENT", "CGO_CFLAGS"):
        monkeypatch.setenv(name, "/nowhere")
    assert "/nowhere" not in targets.environment(targets.NEWEST).values()
