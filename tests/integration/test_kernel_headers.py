"""What a probe is compiled with: nothing of the kernel's headers, and only what an old kernel knows."""

from __future__ import annotations

import os

import pytest

import targets
from gotrace.kernel import bpf
from gotrace.kernel.child import Child
from gotrace.kernel.compiler import compile_object, ebpf_folder
from gotrace.probe import STACKS, all_probes

pytestmark = pytest.mark.bpf


# In the emulated machine every probe that a test uses is compiled without them, for it has none: one tells what it lacks.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.everywhere] * (name == "gc")) for name in all_probes()]
)
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


OLD_KERNEL = ("-UMAY_FAULT", "-UTASK_REGISTERS", "-USWITCH_HAS_STATE")


@pytest.mark.parametrize("name", [name for name, module in all_probes().items() if STACKS in module.PROBE.parts])
def test_stacks_can_be_taken_on_a_kernel_that_knows_less(name):
    """What Linux 5.8 gets: the kernel's own walk. This one takes it, too."""
    probe = all_probes()[name].PROBE
    with bpf.load(Child(compile_object, probe.source(), (*probe.cflags(), *OLD_KERNEL)).result()) as loaded:
        assert set(loaded.programs) >= set(probe.hits)
