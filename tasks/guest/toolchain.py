"""A root file system that only compiles: unpacked, never configured, for use as a native chroot."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from tasks.core.errors import BadInput, CommandFailed
from tasks.core.events import Reporter
from tasks.core.process import Runner
from tasks.core.tools import require_tool
from tasks.guest.bootstrap import (
    Call,
    Mode,
    bootstrap,
    explain,
    in_namespace,
    require_mode,
    tree_remover,
)
from tasks.guest.partition import Extent, derive_ids, make_ext4
from tasks.guest.rootfs import MERGE_USR
from tasks.guest.scratch import scratch

# Nothing is essential to mmdebstrap's extract variant: even the shell has to be named.
COMPILE_PACKAGES = (
    *("base-files", "libc-bin", "bash", "dash", "coreutils", "findutils", "diffutils"),
    *("sed", "grep", "mawk", "tar", "gzip", "xz-utils", "zstd", "perl-base", "kmod"),
    *("gcc", "binutils", "make", "libc6-dev", "libelf1", "pkgconf"),
    *("cargo", "rustc", "ccache"),
)
# Room to unpack in; the file system is shrunk to what is in it.
IMAGE_BYTES = 4 << 30
WORK_BYTES = 3 << 30

# Run by mmdebstrap beside the root ($1), with the directory of the headers as $2: what the
# scripts of the packages would have done, as far as compiling needs it, and less.
FINISH = """\
set -eu
root=$1
# Not dpkg-deb -x: it would put a directory in the place of the link /lib.
for deb in "$2"/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$root" -f -
done

link() { [ -e "$root/usr/bin/$2" ] || [ -L "$root/usr/bin/$2" ] || ln -s "$1" "$root/usr/bin/$2"; }
link gcc cc
link mawk awk
link dash sh
link perl5 perl

# By these names compilers are called through their cache, if PATH begins with that folder.
mkdir -p "$root/usr/lib/ccache"
(
  cd "$root/usr/bin"
  for name in cc c++ gcc gcc-[0-9]* g++ g++-[0-9]* *-linux-gnu-gcc *-linux-gnu-gcc-[0-9]* \\
    clang clang-[0-9]*; do
    [ ! -e "$name" ] || ln -s ../../bin/ccache "../lib/ccache/$name"
  done
)

echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/src" "$root/build" "$root/root"
mkdir -p -m 1777 "$root/tmp" "$root/var/tmp"

# Link-time optimisation, sanitisers and documentation: a third of the size.
rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/info
rm -rf "$root"/usr/share/locale "$root"/usr/share/lintian "$root"/usr/share/gdb
rm -rf "$root"/var/cache/apt "$root"/var/lib/apt/lists
rm -f "$root"/usr/bin/*lto-dump* "$root"/usr/bin/rustdoc "$root"/usr/libexec/gcc/*/*/lto1
rm -f "$root"/usr/lib/gcc/*/*/lto1
rm -f "$root"/usr/lib/gcc/*/*/lib?san.a "$root"/usr/lib/*-linux-gnu/lib?san.so.*
rm -f "$root"/usr/lib/gcc/*/*/libhwasan.a "$root"/usr/lib/*-linux-gnu/libhwasan.so.*
"""


def build(
    release: str,
    headers: Path,
    out: Path,
    *,
    packages: tuple[str, ...] = (),
    mirror: str | None = None,
    runner: Runner,
    reporter: Reporter,
) -> Path:
    """Make out/toolchain.ext4: a raw ext4 image without partitions, and without free space.

    The compiler in it is the release's own, the headers are those in `headers`. It has no
    device nodes beyond what its user mounts, and no network or account.

    Args:
        release: `bookworm` or `trixie`.
        headers: a directory with the .deb files of a kernel's headers (DebianBase.headers).
        packages: on top of COMPILE_PACKAGES.

    Raises:
        BadInput: there are no headers in `headers`.
        CannotRun, DownloadFailed, VerificationFailed, NoRoom, CommandFailed: as debian.build.
    """
    debs = sorted(headers.glob("*.deb"))
    if not debs:
        raise BadInput(f"There are no .deb files with kernel headers in {headers}.")
    mode = require_mode()
    for tool in ("mke2fs", "resize2fs", "dpkg-deb"):
        require_tool(tool)
    out.mkdir(parents=True, exist_ok=True)
    wanted = (*COMPILE_PACKAGES, *needed_by(debs, runner), *packages)
    image = out / "toolchain.ext4"
    with scratch(WORK_BYTES, out, remove=tree_remover(mode, runner)) as work:
        call = toolchain_call(release, wanted, mirror, work, mode)
        stage(debs, work)
        bootstrap(call, work / "root", runner=runner, reporter=reporter)
        reporter.say("writing the toolchain's image")
        try:
            write_image(work, image, release, mode, runner)
        except CommandFailed as error:
            raise explain(error, error.tail) from error
    return image


def toolchain_call(
    release: str, packages: Iterable[str], mirror: str | None, work: Path, mode: Mode
) -> Call:
    """How mmdebstrap is to be called, with its files in `work`."""
    return Call(
        mode=mode,
        variant="extract",
        release=release,
        packages=tuple(dict.fromkeys(packages)),
        mirror=mirror,
        setup=(f'sh {work}/merge-usr "$1"',),
        extract=(f'sh {work}/finish "$1" {work}/headers',),
    )


def stage(debs: Iterable[Path], work: Path) -> None:
    """Put what mmdebstrap's hooks read where its unshared user can read it."""
    (work / "merge-usr").write_text(MERGE_USR)
    (work / "finish").write_text(FINISH)
    (work / "headers").mkdir(mode=0o755)
    for deb in debs:
        shutil.copyfile(deb, work / "headers" / deb.name)
    for path in [work / "merge-usr", work / "finish", *(work / "headers").iterdir()]:
        path.chmod(0o644)


def needed_by(debs: Iterable[Path], runner: Runner) -> list[str]:
    """The packages that these depend on, those among themselves left out.

    A kernel's headers name the compiler that the kernel was made with. They may name the kernel,
    too; nothing is compiled with that, and the archive may have a newer one only.
    """
    names: set[str] = set()
    needed: dict[str, None] = {}
    for deb in debs:
        fields = runner.output(["dpkg-deb", "-f", deb, "Package", "Depends"])
        names.update(re.findall(r"^Package: (\S+)", fields, re.MULTILINE))
        for depends in re.findall(r"^Depends: (.+)", fields, re.MULTILINE):
            needed.update(dict.fromkeys(first_alternatives(depends)))
    return [name for name in needed if name not in names and not name.startswith("linux-image-")]


def first_alternatives(depends: str) -> list[str]:
    """The package names in a Depends field, the first of alternatives, without versions."""
    return [re.split(r"[ (:|]", part.strip(), maxsplit=1)[0] for part in depends.split(",")]


def write_image(work: Path, image: Path, release: str, mode: Mode, runner: Runner) -> None:
    """Turn work/root into the image; under its name only when it is whole."""
    partial = image.with_name(f"{image.name}.partial")
    # The unshared user can't reach the output directory.
    raw = partial if mode == "root" else work / image.name
    with raw.open("wb") as stream:
        stream.truncate(IMAGE_BYTES)
    if mode == "unshare":
        raw.chmod(0o666)
    make_ext4(
        raw,
        Extent(start_bytes=0, size_bytes=IMAGE_BYTES),
        derive_ids(f"toolchain-{release}"),
        work / "root",
        runner=runner,
        epoch_s=0,
        journal=False,
        in_namespace=in_namespace(mode),
    )
    # Reading gigabytes of zeros, for its digest, takes longer than anything else here.
    runner.run(["resize2fs", "-M", raw])
    if raw != partial:
        runner.run(["cp", "--sparse=always", raw, partial])
    partial.chmod(0o600)
    partial.replace(image)
