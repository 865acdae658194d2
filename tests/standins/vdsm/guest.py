"""The stand-in's guest: a small real Linux, packed as a PAT, the form in which DSM is delivered.

Like DSM's, the PAT is a plain tar with a zipped boot disk and the content of the system disk.
"""

from __future__ import annotations

import copy
import io
import lzma
import shlex
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tasks.core.digest import digest_of, files_under, sha256_of
from tests.standins.vdsm.debian import CACHE, KEY_DIGITS, Recipe, made_once, unpacked

HERE = Path(__file__).parent
FILES = HERE / "guestfs"
WIZARD = HERE / "wizard.py"

# The smallest file that install.sh takes for a PAT, rounded up (contract, 1.3).
PAT_BYTES = 256 * 10**6
BOOT_DISK = "synology_kvmx64_virtualdsm.bin"
EPOCH_S = 1_700_000_000

BOOT_DISK_MIB = 20

# A busy host may keep the emulated timer from ticking while Linux checks it: no check. What is
# left out of the start costs an emulated machine tenths of seconds each, and nobody uses it.
CMDLINE = (
    "console=ttyS0,115200 quiet loglevel=4 panic=-1 no_timer_check nokaslr mitigations=off audit=0"
    " cryptomgr.notests 8250.nr_uarts=1"
    " initcall_blacklist=jent_mod_init,init_encrypted,load_system_certificate_list"
)


def recipe() -> Recipe:
    """What of Debian the guest is made of."""
    settings = {
        "INIT": (FILES / "init").read_text(),
        "CMDLINE": CMDLINE,
        "EPOCH_S": str(EPOCH_S),
        "BOOT_DISK_MIB": str(BOOT_DISK_MIB),
    }
    given = "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    return Recipe(
        name="guest",
        packages=(
            *("base-files", "busybox-static", "cpio", "dash", "fdisk", "findutils", "kmod"),
            *("linux-image-cloud-amd64", "mtools", "python3", "syslinux", "syslinux-common"),
        ),
        hook=given + (FILES / "stage").read_text(),
    )


def make_pat(folder: Path = CACHE, *, wizard: Path = WIZARD) -> Path:
    """The PAT file in `folder`, which is also the cache; the same inputs give the same bytes.

    Args:
        wizard: the program that serves DSM's pages.

    Raises:
        CannotRun, MissingTool, CommandFailed: as debian.unpacked.
    """
    sources = [*files_under([FILES, Path(__file__)]), wizard]
    key = digest_of([recipe().key, [sha256_of(path) for path in sources]])[:KEY_DIGITS]
    pat = folder / f"standin-{key}.pat"

    def make(aside: Path) -> None:
        with tarfile.open(unpacked(recipe(), folder)) as debian:
            write_pat(aside, debian, wizard)

    made_once(pat, make)
    return pat


def write_pat(pat: Path, debian: tarfile.TarFile, wizard: Path) -> None:
    """Write the tar, then zeros up to the size that is expected of a PAT: tar stops before them."""
    with tarfile.open(pat, "w", format=tarfile.GNU_FORMAT) as archive:
        add(archive, "VERSION", b'productversion="7.2.2"\nbuildnumber="72806"\n')
        add(archive, f"{BOOT_DISK}.zip", zipped(BOOT_DISK, content(debian, "staged/boot.img")))
        add(archive, "hda1.tgz", system_files(debian, wizard))
    with pat.open("r+b") as stream:
        stream.truncate(max(PAT_BYTES, pat.stat().st_size))


def system_files(debian: tarfile.TarFile, wizard: Path) -> bytes:
    """The root file system as an archive: compressed by xz whatever its name says, like DSM's."""
    own = {
        str(path.relative_to(FILES / "root")): path.read_bytes()
        for path in files_under([FILES / "root"])
    }
    own["usr/lib/standin/wizard.py"] = wizard.read_bytes()
    buffer = io.BytesIO()
    with (
        lzma.open(buffer, "wb", preset=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for member in below(debian, "staged/root"):
            if member.name not in own:
                archive.addfile(member, debian.extractfile(member) if member.isreg() else None)
        for folder in ("usr/lib/standin", "var/lib/standin"):
            archive.addfile(plain(folder, kind=tarfile.DIRTYPE, mode=0o755))
        for name, data in sorted(own.items()):
            add(archive, name, data, mode=0o755)
    return buffer.getvalue()


def below(archive: tarfile.TarFile, folder: str) -> Iterator[tarfile.TarInfo]:
    """The members below a folder, under their names in it, sorted, with a fixed time."""
    for member in sorted(archive.getmembers(), key=lambda one: one.name):
        # mmdebstrap's archives begin each name so.
        name = member.name.removeprefix("./")
        if name.startswith(f"{folder}/"):
            assert not member.islnk(), f"{name} is a hard link, which would need its new name"
            moved = copy.copy(member)
            moved.name, moved.mtime = name.removeprefix(f"{folder}/"), EPOCH_S
            yield moved


def content(archive: tarfile.TarFile, name: str) -> bytes:
    """A file's content."""
    stream = archive.extractfile(f"./{name}")
    assert stream is not None, f"{name} is no file"
    return stream.read()


def zipped(name: str, data: bytes) -> bytes:
    """A zip archive with one file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # Without a date it would be that of today.
        entry = zipfile.ZipInfo(name, date_time=(2023, 11, 14, 22, 13, 20))
        archive.writestr(entry, data, zipfile.ZIP_DEFLATED, compresslevel=1)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes, *, mode: int = 0o644) -> None:
    """Add a file of root's."""
    archive.addfile(plain(name, mode=mode, size=len(data)), io.BytesIO(data))


def plain(
    name: str, *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, size: int = 0
) -> tarfile.TarInfo:
    """The head of an entry that is the same today and tomorrow, here and there."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.mtime = kind, mode, size, EPOCH_S
    return entry
