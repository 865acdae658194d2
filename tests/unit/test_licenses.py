"""What module and crates say of their licenses."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tasks.vexfs.licenses import crate_licenses, module_license
from tasks.vexfs.source import SAMPLE, files_of


def elf(modinfo: bytes) -> bytes:
    """A 64-bit ELF file with a null section, one of names, and .modinfo."""
    names = b"\0.shstrtab\0.modinfo\0"
    body = names + modinfo
    sections = [
        (0, 0, 0),
        (names.index(b".shstrtab"), 64, len(names)),
        (names.index(b".modinfo"), 64 + len(names), len(modinfo)),
    ]
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, 64 + len(body)),
        *(0, 64, 0, 0, 64, len(sections), 1),
    )
    table = b"".join(
        struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, offset, size, 0, 0, 1, 0)
        for name, offset, size in sections
    )
    return head + body + table


MODINFO = b"version=1.0.0\0mylicense=none\0license=Dual MIT/GPL\0license=second\0depends=\0"


def test_a_module_s_license(tmp_path: Path) -> None:
    module = tmp_path / "a.ko"
    module.write_bytes(elf(MODINFO))
    assert module_license(module) == "Dual MIT/GPL"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF\x02\x01",
        elf(MODINFO)[:100],
        elf(MODINFO)[:-40],
        elf(b"version=1\0"),
        b"\x7fELF\x01\x01" + elf(MODINFO)[6:],
        elf(MODINFO)[:62] + b"\xff\xff" + elf(MODINFO)[64:],
    ],
)
def test_what_says_nothing(tmp_path: Path, content: bytes) -> None:
    module = tmp_path / "a.ko"
    module.write_bytes(content)
    assert module_license(module) == ""


def test_the_sample_s_crate() -> None:
    assert crate_licenses(files_of(SAMPLE)) == {"vexctl": "GPL-2.0-only"}


def test_members_of_a_workspace_may_share_one(tmp_path: Path) -> None:
    manifests = {
        "Cargo.toml": '[workspace.package]\nlicense = "MIT"\n',
        "a/Cargo.toml": '[package]\nname = "a"\nlicense.workspace = true\n',
        "b/Cargo.toml": '[package]\nname = "b"\nlicense = "Apache-2.0"\n',
        "c/Cargo.toml": '[package]\nname = "c"\nlicense-file = "COPYING"\n',
        "d/Cargo.toml": "nonsense",
        "e/Cargo.toml": "package = 3\nworkspace = []\n",
    }
    for name, text in manifests.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert crate_licenses(files_of(tmp_path)) == {"a": "MIT", "b": "Apache-2.0"}
