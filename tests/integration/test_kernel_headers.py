"""Nothing of the kernel's headers is used to compile a probe."""

from __future__ import annotations

import os

import pytest

import targets
from gotrace.kernel.child import Child
from gotrace.kernel.compiler import compile_object, ebpf_folder
from gotrace.probe import all_probes

pytestmark = [pytest.mark.bpf, pytest.mark.everywhere]


@pytest.mark.parametrize("name", all_probes())
def test_what_a_probe_is_compiled_from(name, tmp_path):
    """By the compiler's own list: our folder, and what BCC carries within itself."""
    probe, listed = all_probes()[name].PROBE, tmp_path / "dependencies"
    Child(compile_object, probe.source(), (*probe.cflags(), "-MD", "-MF", str(listed))).result()
    files = [word for word in listed.read_text().split()[1:] if word != "\\"]
    own = {os.path.join(folder, file) for folder, _, names in os.walk(ebpf_folder()) for file in names}
    if targets.EMULATED:  # there are none that could have been
        assert not os.path.exists(f"/lib/modules/{os.uname().release}/build")
        assert not os.path.exists("/sys/kernel/kheaders.tar.xz")
    assert any(file.endswith("goabi.h") for file in files)
    assert [f for f in files if not f.startswith("/virtual/") and os.path.join(ebpf_folder(), f) not in own] == []
