"""Reading BTF: made by hand, cut off, and the running kernel's."""

from __future__ import annotations

import os
import struct

import pytest

from gotrace.kernel import btf


class Maker:
    """A BTF blob, type by type."""

    def __init__(self):
        self.text = b"\0"
        self.types = b""

    def name(self, text):
        at = len(self.text)
        self.text += text.encode() + b"\0"
        return at if text else 0

    def add(self, kind, name, size_or_type, tail=b"", count=0, flag=0):
        self.types += struct.pack("<III", self.name(name), flag << 31 | kind << 24 | count, size_or_type) + tail

    def members(self, *members):
        return b"".join(struct.pack("<III", self.name(name), type_, bits) for name, type_, bits in members)

    def blob(self):
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.text)) + (
            self.types + self.text
        )


@pytest.fixture
def made():
    maker = Maker()
    maker.add(1, "int", 4, struct.pack("<I", 32))  # 1
    maker.add(4, "inner", 16, maker.members(("a", 1, 0), ("b", 1, 64)), 2)  # 2
    maker.add(8, "inner_t", 2)  # 3: a typedef
    maker.add(5, "", 8, maker.members(("x", 1, 0), ("y", 1, 0)), 2)  # 4: an anonymous union
    maker.add(13, "", 0, struct.pack("<II", 0, 1), 1)  # 5: a function type
    members = maker.members(("first", 1, 0), ("", 4, 64), ("deep", 3, 128), ("bits", 1, 3 << 24 | 256), ("last", 1, 288))
    maker.add(4, "outer", 48, members, 5, flag=1)  # 6
    maker.add(4, "declared", 0)  # 7: without members
    return btf.Btf(maker.blob())


def test_fields(made):
    assert made.offset("outer", btf.SIZE) == 48 and made.offset("unheard_of", btf.SIZE) is None
    assert [made.offset("outer", path) for path in ("first", "x", "y", "deep", "deep.b", "last")] == [0, 8, 8, 16, 24, 36]


@pytest.mark.parametrize("path", ["bits", "none", "first.a", "deep.none", ""])
def test_what_is_no_field(made, path):
    assert made.offset("outer", path) is None
    assert made.offset("unheard_of", path) is None


def test_what_is_no_btf():
    with pytest.raises(ValueError, match="no BTF"):
        btf.Btf(b"\x7fELF" + bytes(60))


def test_a_kernel_without_it(monkeypatch, tmp_path):
    monkeypatch.setenv("GOTRACE_CACHE", str(tmp_path))
    for data in (None, b"", b"\x9f\xeb\x01\0" + b"\xff" * 20):
        name = tmp_path / "vmlinux"
        if data is not None:
            name.write_bytes(data)
        monkeypatch.setattr(btf, "VMLINUX", str(name))
        assert btf.field_offsets((("task_struct", "pid"),)) == [None]


@pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="the kernel has no BTF")
def test_the_running_kernel(monkeypatch, tmp_path):
    monkeypatch.setenv("GOTRACE_CACHE", str(tmp_path))
    wanted = (
        ("task_struct", "pid"),
        ("task_struct", "tgid"),
        ("list_head", "next"),
        ("list_head", "prev"),
        ("hlist_head", "x"),
    )
    pid, tgid, following, previous, none = btf.field_offsets(wanted)
    assert pid and tgid == pid + 4
    assert (following, previous, none) == (0, 8, None)
    assert btf.field_offsets(wanted) == [pid, tgid, 0, 8, None]  # now from the cache
