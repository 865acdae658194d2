"""A root file system that only compiles: unpacked, never configured, for use as a native chroot."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from tasks.core.errors import BadInput, CommandFailed
from tasks.core.events import Reporter
from tasks.core.process import Runner
from tasks.core.tools import require_tool
from tasks.guest import headers as kernel_headers
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
    *("cargo", "rustc", "ccache"),
)
IMAGE = "toolchain.squashfs"
WORK_BYTES = 3 << 30
# Small enough to read quickly, and packed at the speed of copying.
SQUASHFS = (
    *("-quiet", "-no-progress", "-noappend", "-no-xattrs", "-all-root"),
    *("-mkfs-time", "0", "-all-time", "0", "-comp", "zstd", "-Xcompression-level", "1"),
    # mmdebstrap's device nodes.
    *("-wildcards", "-e", "dev/*"),
)

# Run by mmdebstrap beside the root ($1), with a directory of kernel headers as $2, which may be
# empty, and the packages as the rest. Unpacking is most of the work, so all cores share it, where
# mmdebstrap's own variant `extract` takes one package after the other. No two of the packages have
# a file in common.
UNPACK = rf"""
set -euo pipefail
{kernel_headers.FUNCTION}
root=$1 headers=$2
shift 2
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
echo "I: downloading packages with apt..." >&2
if ! [ "$(ls -A "$headers")" ]; then
  headers=$root/var/cache/apt/headers
  mkdir -p "$headers"
  headers_of {kernel_headers.PACKAGE} | (cd "$headers" && xargs apt-get download -qq >&2)
fi
# What the headers need, such as the compiler that the kernel was made with; of alternatives the
# first. They may name the kernel, too, but nothing is compiled with that.
for deb in "$headers"/*.deb; do dpkg-deb -f "$deb" Depends; done |
  tr ',' '\n' | sed -E 's/^ +//; s/[ (:|].*//' | grep -v '^linux-' |
  xargs apt-get --yes -qq --option=APT::Get::Download-Only=true install "$@" >&2

# Not dpkg-deb -x: it would put a directory in the place of the link /lib.
unpack() {{ dpkg-deb --fsys-tarfile "$2" | tar -x --keep-directory-symlink -C "$1" -f -; }}
export -f unpack
echo "I: extracting archives..." >&2
# The largest first, so that the cores end at the same time.
find "$root/var/cache/apt/archives" "$headers" -name '*.deb' -printf '%s %p\n' |
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
    headers: Path | None,
    out: Path,
    *,
    packages: tuple[str, ...] = (),
    mirror: str | None = None,
    runner: Runner,
    reporter: Reporter,
) -> str:
    """Make out/toolchain.squashfs, a read-only file system, and return its kernel's version.

    The compiler in it is the release's own. It has no device nodes beyond what its user mounts,
    and no network or account.

    Args:
        release: `bookworm` or `trixie`.
        headers: a directory with the .deb files of a kernel's headers (DebianBase.headers);
            None: those of the kernel that the archive has now.
        packages: on top of COMPILE_PACKAGES.

    Raises:
        BadInput: there are no headers in `headers`.
        CannotRun, DownloadFailed, VerificationFailed, NoRoom, CommandFailed: as debian.build.
    """
    debs = sorted(headers.glob("*.deb")) if headers else []
    if headers and not debs:
        raise BadInput(f"There are no .deb files with kernel headers in {headers}.")
    mode = require_mode()
    for tool in ("mksquashfs", "dpkg-deb"):
        require_tool(tool)
    out.mkdir(parents=True, exist_ok=True)
    with scratch(WORK_BYTES, out, remove=tree_remover(mode, runner)) as work:
        call = toolchain_call(release, (*COMPILE_PACKAGES, *packages), mirror, work, mode)
        stage(debs, work)
        bootstrap(call, work / "root", runner=runner, reporter=reporter)
        kernel = kernel_of(work / "root")
        reporter.say("writing the toolchain's image")
        try:
            write_image(work, out / IMAGE, mode, runner)
        except CommandFailed as error:
            raise explain(error, error.tail) from error
    return kernel


def kernel_of(root: Path) -> str:
    """The version of the kernel whose modules can be compiled in a root.

    Raises:
        ValueError: there is not just one.
    """
    kernels = list((root / "usr" / "lib" / "modules").iterdir())
    # A link, and in older releases to a place that is there only inside.
    (kernel,) = (path.name for path in kernels if (path / "build").is_symlink())
    return kernel


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
