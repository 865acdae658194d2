"""Debian base images: bootstrapped natively, bootable from BIOS and UEFI."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import BadInput, CannotRun, CommandFailed
from tasks.core.events import Reporter
from tasks.core.process import Runner
from tasks.core.tools import require_tool
from tasks.guest import headers
from tasks.guest.bootstrap import (
    RELEASES,
    Call,
    Mode,
    bootstrap,
    explain,
    in_namespace,
    require_mode,
    tree_remover,
)
from tasks.guest.partition import BootFiles, Layout, assemble, derive_ids, plan_layout
from tasks.guest.rootfs import (
    MERGE_USR,
    NO_CERTIFICATES_YET,
    SETUP_FILES,
    STAGING,
    Boot,
    pack,
    root_files,
)
from tasks.guest.scratch import scratch

# A small system that boots, gets its address and its user from cloud-init, and can be upgraded.
BASE_PACKAGES = (
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "udev",
    "dbus",
    "cloud-init",
    "cloud-guest-utils",
    "openssh-server",
    "sudo",
    "iproute2",
    "netbase",
    "ca-certificates",
    "e2fsprogs",
    "grub-cloud-amd64",
)
TOOLS = ("sfdisk", "mke2fs", "mformat", "mcopy", "qemu-img", "apt-get")
PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# A root with compilers, its disk and the downloaded packages.
WORK_BYTES = 5 << 30

# Run on the host, beside the root ($1): the headers that belong to the kernel just installed. Apt's
# state is all that it has in common with CUSTOMIZE, so that they run at the same time; what apt
# remembers of it (*.bin) is removed by mmdebstrap.
SAVE_HEADERS = f"""\
set -eu
{headers.FUNCTION}
out="$1/{STAGING}/out"
mkdir -p "$out/headers"
release=$(cd "$1/usr/lib/modules" && ls | sort -V | tail -n 1)
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
cd "$out/headers"
headers_of "linux-headers-$release" | xargs apt-get download
"""


@dataclass(frozen=True, kw_only=True)
class DebianSpec:
    """What the base image is.

    Args:
        release: `bookworm` (Debian 12) or `trixie` (Debian 13).
        packages: installed on top of BASE_PACKAGES.
        size_bytes: of the disk as its machine sees it.
        mirror: the archive's URL; None for those that mmdebstrap knows.
        offline: nothing may be downloaded.
        seed: the UUIDs of the disk and its parts are derived from it.
    """

    release: str
    packages: tuple[str, ...] = ()
    size_bytes: int = 10 << 30
    mirror: str | None = None
    offline: bool = False
    hostname: str = "debian"
    seed: str = "vmbake"


@dataclass(frozen=True, kw_only=True)
class DebianBase:
    """A base image and what belongs to it.

    Args:
        disk: qcow2.
        kernel, initrd: copies out of the image, for a direct boot.
        headers: a directory with the .deb files of the kernel's headers.
        packages: name to version of everything installed.
    """

    disk: Path
    kernel: Path
    initrd: Path
    headers: Path
    kernel_release: str
    root_uuid: str
    packages: dict[str, str]


def build(spec: DebianSpec, out: Path, *, runner: Runner, reporter: Reporter) -> DebianBase:
    """Bootstrap Debian and put it on a disk in the directory `out`.

    Raises:
        BadInput: the spec is not usable; all of it is checked before anything is run.
        CannotRun: this machine or user can't do it; or `offline`.
        DownloadFailed, VerificationFailed, NoRoom: what the archive or the disk did.
        MissingTool, CommandFailed, TimedOut: as Runner.run.
    """
    layout = check_spec(spec)
    mode = require_mode()
    for tool in TOOLS:
        require_tool(tool)
    out.mkdir(parents=True, exist_ok=True)
    with scratch(WORK_BYTES, out, remove=tree_remover(mode, runner)) as work:
        release = make_root(spec, work, mode, runner=runner, reporter=reporter)
        reporter.say("putting the disk together")
        try:
            make_disk(spec, layout, work, out, mode, runner)
        except CommandFailed as error:
            raise explain(error, error.tail) from error
        return collect(spec, release, work / "out", out)


def check_spec(spec: DebianSpec) -> Layout:
    """The layout of the disk.

    Raises:
        BadInput: an unknown release, a bad package or host name, an impossible size.
        CannotRun: offline.
    """
    if spec.release not in RELEASES:
        raise BadInput(f"{spec.release!r} is none of the releases {', '.join(RELEASES)}.")
    if bad := [name for name in spec.packages if not PACKAGE_NAME.fullmatch(name)]:
        raise BadInput(f"No Debian package is called {', '.join(map(repr, bad))}.")
    if not HOST_NAME.fullmatch(spec.hostname):
        raise BadInput(f"{spec.hostname!r} is no host name: letters, digits and hyphens make one.")
    layout = plan_layout(spec.size_bytes)
    if spec.offline:
        raise CannotRun(
            f"The Debian {spec.release} base is not in the store, and making it takes downloads, "
            "which --offline forbids.",
            hint="Run once without --offline, or name a local archive with --mirror.",
        )
    return layout


def base_call(spec: DebianSpec, work: Path, mode: Mode) -> Call:
    """How mmdebstrap is to be called, with its files in `work`."""
    return Call(
        mode=mode,
        variant="apt",
        release=spec.release,
        packages=(*BASE_PACKAGES, *spec.packages),
        mirror=spec.mirror,
        setup=(f'sh {work}/merge-usr "$1"', f"tar-in {work}/setup.tar /", NO_CERTIFICATES_YET),
        customize=(
            f"tar-in {work}/files.tar /",
            f'sh {work}/save-headers "$1" & chroot "$1" sh /{STAGING}/customize && wait "$!"',
            f'tar -C "$1/{STAGING}" -cf {work}/out.tar out',
        ),
    )


def make_root(
    spec: DebianSpec, work: Path, mode: Mode, *, runner: Runner, reporter: Reporter
) -> str:
    """Bootstrap into work/root, with what is needed outside of it in work/out."""
    boot = Boot(hostname=spec.hostname, ids=derive_ids(spec.seed))
    (work / "setup.tar").write_bytes(pack(SETUP_FILES))
    (work / "files.tar").write_bytes(pack(root_files(boot)))
    for name, script in (("merge-usr", MERGE_USR), ("save-headers", SAVE_HEADERS)):
        (work / name).write_text(script)
        (work / name).chmod(0o644)
    # The unshared user can't make a file here.
    packed = work / "out.tar"
    packed.touch()
    packed.chmod(0o666)
    bootstrap(base_call(spec, work, mode), work / "root", runner=runner, reporter=reporter)
    runner.run(["tar", "--no-same-owner", "-C", work, "-xf", packed])
    packed.unlink()
    return (work / "out" / "release").read_text().strip()


def make_disk(
    spec: DebianSpec, layout: Layout, work: Path, out: Path, mode: Mode, runner: Runner
) -> None:
    """Turn work/root into out/disk.qcow2."""
    staged = work / "out"
    raw = work / "disk.raw"
    assemble(
        raw,
        layout,
        derive_ids(spec.seed),
        work / "root",
        BootFiles(boot_img=staged / "boot.img", core_img=staged / "core.img", esp=staged / "esp"),
        runner=runner,
        # The kernel's own date: the same for the same packages.
        epoch_s=int((staged / "vmlinuz").stat().st_mtime),
        in_namespace=in_namespace(mode),
    )
    # Without -W, which writes in no certain order: same input, same bytes.
    runner.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, out / "disk.qcow2"])


def collect(spec: DebianSpec, release: str, staged: Path, out: Path) -> DebianBase:
    """Move what was staged to where it stays."""
    for name in ("vmlinuz", "initrd.img"):
        shutil.copyfile(staged / name, out / name)
    shutil.copytree(staged / "headers", out / "headers", dirs_exist_ok=True)
    return DebianBase(
        disk=out / "disk.qcow2",
        kernel=out / "vmlinuz",
        initrd=out / "initrd.img",
        headers=out / "headers",
        kernel_release=release,
        root_uuid=derive_ids(spec.seed).root_fs,
        packages=installed_packages((staged / "dpkg-status").read_text(encoding="utf-8")),
    )


def installed_packages(status: str) -> dict[str, str]:
    """Name to version of what dpkg's status file says is installed."""
    packages = {}
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if ": " in line and not line.startswith(" ")
        )
        if fields.get("Status", "").endswith(" installed"):
            packages[fields["Package"]] = fields["Version"]
    return packages
