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
from tasks.guest.rootfs import MERGE_USR
from tasks.guest.scratch import scratch

# Nothing is essential to mmdebstrap's extract variant: even the shell has to be named.
COMPILE_PACKAGES = (
    *("base-files", "libc-bin", "bash", "dash", "coreutils", "findutils", "diffutils"),
    *("sed", "grep", "mawk", "tar", "gzip", "xz-utils", "zstd", "perl-base", "kmod"),
    *("gcc", "binutils", "make", "libc6-dev", "libelf1", "pkgconf"),
    *("cargo", "rustc"),
)
IMAGE = "toolchain.squashfs"
WORK_BYTES = 3 << 30
# Small enough to read quickly, and packed at the speed of copying.
SQUASHFS = (
    *("-quiet", "-no-progress", "-noappend", "-no-xattrs", "-all-root"),
    *("-mkfs-time", "0", "-all-time", "0", "-comp", "zstd", "-Xcompression-level", "1"),
)

# Run by mmdebstrap beside the root ($1), with the directory of the headers as $2 and the packages
# as the rest. Unpacking is most of the work, so all cores share it; mmdebstrap's own variant
# `extract` takes one package after the other. No two packages have a file in common.
UNPACK = """\
set -euo pipefail
root=$1 headers=$2
shift 2
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
echo "I: downloading packages with apt..." >&2
apt-get --yes -qq --option=APT::Get::Download-Only=true install "$@" >&2

# Not dpkg-deb -x: it would put a directory in the place of the link /lib.
unpack() { dpkg-deb --fsys-tarfile "$2" | tar -x --keep-directory-symlink -C "$1" -f -; }
export -f unpack
echo "I: extracting archives..." >&2
# The largest first, so that the cores end at the same time.
find "$root/var/cache/apt/archives" "$headers" -name '*.deb' -printf '%s %p\\n' |
  sort -rn | cut -d' ' -f2- |
  xargs -r -n 1 -P "$(nproc)" bash -c 'set -euo pipefail; unpack "$0" "$1"' "$root"
"""
# Run after it in the same way: what the scripts of the packages would have done, as far as
# compiling needs it, and less.
FINISH = """\
set -eu
root=$1

link() { [ -e "$root/usr/bin/$2" ] || [ -L "$root/usr/bin/$2" ] || ln -s "$1" "$root/usr/bin/$2"; }
link gcc cc
link mawk awk
link dash sh
link perl5 perl

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
    """Make out/toolchain.squashfs: a read-only file system without partitions.

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
    for tool in ("mksquashfs", "dpkg-deb"):
        require_tool(tool)
    out.mkdir(parents=True, exist_ok=True)
    wanted = (*COMPILE_PACKAGES, *needed_by(debs, runner), *packages)
    image = out / IMAGE
    with scratch(WORK_BYTES, out, remove=tree_remover(mode, runner)) as work:
        call = toolchain_call(release, wanted, mirror, work, mode)
        stage(debs, work)
        bootstrap(call, work / "root", runner=runner, reporter=reporter)
        reporter.say("writing the toolchain's image")
        try:
            write_image(work, image, mode, runner)
        except CommandFailed as error:
            raise explain(error, error.tail) from error
    return image


def toolchain_call(
    release: str, packages: Iterable[str], mirror: str | None, work: Path, mode: Mode
) -> Call:
    """How mmdebstrap is to be called, with its files in `work`."""
    wanted = " ".join(dict.fromkeys(packages))
    return Call(
        mode=mode,
        variant="custom",
        release=release,
        packages=(),
        mirror=mirror,
        setup=(f'sh {work}/merge-usr "$1"',),
        customize=(
            f'bash {work}/unpack "$1" {work}/headers {wanted}',
            f'sh {work}/finish "$1"',
        ),
    )


def stage(debs: Iterable[Path], work: Path) -> None:
    """Put what mmdebstrap's hooks read where its unshared user can read it."""
    scripts = {"merge-usr": MERGE_USR, "unpack": UNPACK, "finish": FINISH}
    for name, text in scripts.items():
        (work / name).write_text(text)
    (work / "headers").mkdir(mode=0o755)
    for deb in debs:
        shutil.copyfile(deb, work / "headers" / deb.name)
    for path in [*(work / name for name in scripts), *(work / "headers").iterdir()]:
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


def write_image(work: Path, image: Path, mode: Mode, runner: Runner) -> None:
    """Turn work/root into the image; under its name only when it is whole."""
    partial = image.with_name(f"{image.name}.partial")
    # The unshared user can't reach the output directory.
    written = partial if mode == "root" else work / image.name
    written.touch()
    if mode == "unshare":
        written.chmod(0o666)
    runner.run([*in_namespace(mode), "mksquashfs", work / "root", written, *SQUASHFS])
    if written != partial:
        runner.run(["cp", written, partial])
    partial.chmod(0o600)
    partial.replace(image)
