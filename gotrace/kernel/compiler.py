"""From C text to BPF bytecode, through BCC, in a process that exits right afterwards.

The only module that imports ``bcc``. LLVM costs about 100 MB and 0.3 s, so compiling happens in a short-lived child
(`gotrace.kernel.child`) and the result, a plain `BpfObject`, is cached by what it was made from.

No kernel headers are needed: ``ebpf/include`` holds the few definitions BCC's own helpers ask for.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from typing import Any

from gotrace.errors import HostError, LoadError
from gotrace.kernel.bpf import MAP_TYPE_RINGBUF, BpfObject, MapSpec, has_sleepable_uprobes, map_relocations
from gotrace.kernel.privileges import kernel_version

# Where Debian, Ubuntu, and Fedora's family install python3-bpfcc for the system's Python.
BCC_FOLDERS = ("/usr/lib/python3/dist-packages", f"/usr/lib/python3.{sys.version_info[1]}/site-packages")


def ebpf_folder() -> str:
    """The folder with the probes' C text and the stand-in headers, in a checkout or installed."""
    return _ebpf_folders()[0]


def _ebpf_folders() -> list[str]:
    spec = importlib.util.find_spec("gotrace.ebpf")
    assert spec is not None and spec.submodule_search_locations
    return list(spec.submodule_search_locations)


def ebpf_text(name: str) -> str:
    """A file of the package `gotrace.ebpf`, to whose ``__path__`` folders of other probes may be added."""
    paths = [os.path.join(folder, name) for folder in _ebpf_folders()]
    with open(next((path for path in paths if os.path.exists(path)), paths[0])) as file:
        return file.read()


def import_bcc() -> Any:
    """The ``bcc`` package of the system's Python, usable from any interpreter: it is pure Python over libbcc."""
    try:
        if importlib.util.find_spec("bcc") is None:
            for folder in BCC_FOLDERS:
                spec = importlib.util.spec_from_file_location(
                    "bcc", f"{folder}/bcc/__init__.py", submodule_search_locations=[f"{folder}/bcc"]
                )
                if os.path.exists(f"{folder}/bcc/__init__.py") and spec and spec.loader:
                    module = importlib.util.module_from_spec(spec)
                    sys.modules["bcc"] = module
                    spec.loader.exec_module(module)
                    return module
        import bcc

        return bcc
    except (ImportError, OSError) as error:
        sys.modules.pop("bcc", None)
        raise HostError(f"cannot use BCC ({error})", "install it: apt-get install python3-bpfcc") from None


def host_cflags() -> tuple[str, ...]:
    """What the C text has to know about this kernel."""
    flags = []
    if has_sleepable_uprobes():
        flags.append("-DMAY_FAULT")
    if kernel_version() >= (5, 15):
        flags.append("-DTASK_REGISTERS")  # bpf_task_pt_regs: a thread's user registers, wherever it is in the kernel
    if kernel_version() >= (5, 18):
        flags.append("-DSWITCH_HAS_STATE")  # sched_switch has the state of the task that leaves as an argument
    return tuple(flags)


def compile_object(text: str, cflags: tuple[str, ...] = ()) -> BpfObject:
    """Compile ``text`` and return its programs and maps.

    Call it in a short-lived child only. Raises LoadError with the compiler's output in ``detail``, HostError
    without BCC or without the right to create maps (BCC creates them while it compiles).
    """
    folder = ebpf_folder()
    os.environ["BCC_KERNEL_SOURCE"] = folder
    bcc = import_bcc()
    output = _CapturedStderr()
    with output:
        try:
            own = [f"-I{folder}/include", "-Wall", "-Werror", "-Wno-unused-function", *host_cflags()]
            bpf = bcc.BPF(text=text, cflags=[*own, *cflags])
        except Exception as error:  # BCC raises bare Exception
            bpf, failure = None, error
    if bpf is None:
        if os.geteuid() != 0:
            raise HostError("compiling a BPF program needs root", "run as root (sudo)")
        raise LoadError(
            f"a BPF program did not compile ({str(failure).splitlines()[0]})",
            "run again with -v for the compiler's output, and report it with `uname -r` and BCC's version",
            detail=output.text,
        )
    lib = _declared(bcc.libbcc.lib)
    maps = []
    names_by_fd = {}
    for index in range(lib.bpf_num_tables(bpf.module)):
        name = lib.bpf_table_name(bpf.module, index).decode()
        kind = lib.bpf_table_type_id(bpf.module, index)
        is_ring = kind == MAP_TYPE_RINGBUF
        key_size = 0 if is_ring else lib.bpf_table_key_size_id(bpf.module, index)
        value_size = 0 if is_ring else lib.bpf_table_leaf_size_id(bpf.module, index)
        maps.append(MapSpec(name, kind, key_size, value_size, lib.bpf_table_max_entries_id(bpf.module, index)))
        names_by_fd[lib.bpf_table_fd_id(bpf.module, index)] = name
    programs = {}
    for index in range(lib.bpf_num_functions(bpf.module)):
        name = lib.bpf_function_name(bpf.module, index)
        code = bpf.dump_func(name)
        programs[name.decode()] = (code, map_relocations(code, names_by_fd))
    return BpfObject(tuple(maps), programs)


def _declared(lib: Any) -> Any:
    """``lib`` with the C signatures that BCC's Python has no use for, and so leaves at ctypes' defaults."""
    for name, result in (
        ("bpf_table_name", ctypes.c_char_p),
        ("bpf_table_fd_id", ctypes.c_int),
        ("bpf_table_type_id", ctypes.c_int),
        ("bpf_table_key_size_id", ctypes.c_size_t),
        ("bpf_table_leaf_size_id", ctypes.c_size_t),
        ("bpf_table_max_entries_id", ctypes.c_size_t),
    ):
        getattr(lib, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        getattr(lib, name).restype = result
    lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
    return lib


class _CapturedStderr:
    """Captures what native code writes to descriptor 2 (clang's diagnostics), as ``text``."""

    text = ""

    def __enter__(self) -> None:
        self._file = os.memfd_create("stderr")
        self._saved = os.dup(2)
        os.dup2(self._file, 2)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 2)
        os.lseek(self._file, 0, os.SEEK_SET)
        self.text = os.read(self._file, 1 << 20).decode(errors="replace")
        os.close(self._saved)
        os.close(self._file)
