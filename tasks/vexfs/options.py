"""The options of the VexFS tasks. Their defaults are in invoke.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tasks.core.options import Option, Options, listed, within, words_of
from tasks.guest.cloudconfig import variants

ROOT = Path(__file__).parents[2]
CLOUD_INIT = ROOT / "cloud-init"
SCRIPTS = ROOT / "scripts" / "guest"
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}")
BASES = ("debian-13", "debian-12", "ubuntu-24.04", "ubuntu-22.04")
SMALLEST_MEMORY_MB = 512
MOST_CPUS = 64


def option(name: str, help: str, **words: Any) -> Option:  # noqa: A002 - the field's name
    """An option of this room: its key and variable follow from its name."""
    return Option(name=name, help=help, key=f"vexfs.{name}", env=f"VEXFS_{name.upper()}", **words)


def known_base(value: str) -> str:
    """What is wrong with the name of a base."""
    if value in BASES or value.startswith("file:"):
        return ""
    return f"a base is one of {', '.join(BASES)}, or file:PATH."


def known_variants(value: str) -> str:
    """What is wrong with a list of variants."""
    known, names = variants(CLOUD_INIT), words_of(value)
    wrong = [repr(name) for name in names if name not in known]
    if not names:
        return f"it names none of {', '.join(known)}."
    return f"{listed(wrong)} is none of {', '.join(known)}." if wrong else ""


def plain_version(value: str) -> str:
    """What is wrong with a version."""
    if VERSION.fullmatch(value):
        return ""
    return "it becomes part of file names: letters, digits and . + ~ _ - only, 64 at most."


OPTIONS = Options(
    [
        option("variant", "What the image is for", choices=variants(CLOUD_INIT)),
        option("variants", "Variants to bake, with commas between them", check=known_variants),
        option("version", "Version in names, image and manifest", check=plain_version),
        option("base", "Base image: debian-13, ubuntu-24.04, file:PATH, …", check=known_base),
        option("mirror", "Package mirror for Debian bases", matters=False),
        option("image_mirror", "Server of Ubuntu's cloud images", matters=False),
        option("image_release", "Dated directory of the Ubuntu release"),
        option("offline", "Use only what is cached", kind=bool, matters=False),
        option("disk_size", "Virtual disk size in GiB", kind=int, check=within(4, 2048)),
        option("source", "Source tree of the file system", matters=False),
        option("module_command", "Command that builds the module"),
        option("module_file", "The module it builds"),
        option("tool_command", "Command that builds vexctl"),
        option("tool_file", "The program it builds"),
        option("toolchain", "More packages to compile with"),
        option("engine", "What fills the image", choices=("auto", "vm", "native"), matters=False),
        option("accel", "How QEMU runs guests", choices=("auto", "kvm", "tcg"), matters=False),
        option(
            "memory", "Memory of the build VM in MiB", kind=int,
            check=within(SMALLEST_MEMORY_MB, 1 << 20),
        ),
        option("cpus", "Cores of the build VM", kind=int, check=within(1, MOST_CPUS)),
        option("ssh_port", "SSH port on 127.0.0.1, 0: a free one", kind=int,
               check=within(0, 65535), matters=False),
        option("keep_vm", "Leave a failed build VM running", kind=bool, matters=False),
        option("command", "What to run in the session, instead of a login shell", matters=False),
        option("compression", "Format of the compressed image", choices=("zstd", "gzip")),
    ]
)  # fmt: skip
