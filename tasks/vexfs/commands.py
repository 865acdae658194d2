"""The VexFS tasks: from an empty machine to a sealed, compressed, checksummed image.

build-cloudimg ── toolchain ────────────┐
      │                                 │
ssh-key ── seed-iso ── boot ── savevm ──┴─ compile-vexfs ── seal ── compress ── checksum ── image
                                                                       └── checkpoint ── shell
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from invoke.collection import Collection
from invoke.tasks import task

from tasks.core.stage import Facts, Stage, Step
from tasks.qemu import machine
from tasks.vexfs import (
    artifact,
    bases,
    building,
    compilers,
    compiling,
    inputs,
    manifest,
    seed,
    shell,
)
from tasks.vexfs.options import OPTIONS

QEMU = "qemu-system-x86_64"
GIB = 1 << 30

stage = functools.partial(task, klass=Stage, options=OPTIONS)


@stage(
    check=inputs.base_problems,
    reads=inputs.base_files,
    depends=inputs.base_packages,
    indirect=("variant",),
    tools=("mmdebstrap", "qemu-img"),
    room_bytes=5 * GIB,
)
def build_cloudimg(
    step: Step,
    base: str,
    variant: str,
    mirror: str,
    image_mirror: str,
    image_release: str,
    offline: bool,
    disk_size: int,
) -> Facts:
    """Make or fetch the base image, packages included."""
    servers = bases.Servers(
        mirror=mirror, image_mirror=image_mirror, image_release=image_release, offline=offline
    )
    return bases.make(step, base, variant, servers, disk_size * GIB)


@stage(
    pre=[build_cloudimg],
    reads=inputs.toolchain_templates,
    tools=("mmdebstrap", QEMU),
    room_bytes=4 * GIB,
)
def toolchain(
    step: Step,
    base: str,
    toolchain: str,
    mirror: str,
    accel: str,
    memory: int,
    cpus: int,
    ssh_port: int,
    keep_vm: bool,
) -> None:
    """Make the disk with compilers and kernel headers."""
    under, packages = step.result(build_cloudimg), tuple(toolchain.split())
    if base in bases.DEBIAN:
        compilers.bootstrap(step, under, packages, mirror)
    else:
        chosen = inputs.choose_accel(step.site, accel)
        compilers.install_in_guest(step, under, packages, chosen, memory, cpus)


@stage(requires=("ssh-keygen",))
def ssh_key(step: Step) -> None:
    """Make the one-off keys of the build VM."""
    seed.make_keys(step.out, step.runner)


@stage(pre=[ssh_key], reads=inputs.seed_templates)
def seed_iso(step: Step, variant: str, version: str, base: str) -> None:
    """Write the cloud-init seed of the build VM."""
    files = seed.render(
        variant=variant,
        version=version,
        keys=step.result(ssh_key).directory,
        bootstrapped=base in bases.DEBIAN,
        renamed=bases.names_of_packages(base),
    )
    seed.write(step.out, files)


def parts_of(step: Step) -> building.Parts:
    """What the build VM is put together from."""
    return building.Parts(
        base=step.result(build_cloudimg),
        keys=step.result(ssh_key).directory,
        seed=step.result(seed_iso).path("seed.iso"),
    )


@stage(
    pre=[build_cloudimg, ssh_key, seed_iso],
    kind="live",
    depends=inputs.accelerator,
    tools=(QEMU,),
)
def boot(
    step: Step, accel: str, memory: int, cpus: int, ssh_port: int, keep_vm: bool
) -> Iterator[machine.Machine]:
    """Boot the build VM until cloud-init is done."""
    chosen = inputs.choose_accel(step.site, accel)
    with building.first_boot(step, parts_of(step), chosen, memory, cpus) as vm:
        yield vm
        if step.is_goal and keep_vm:
            building.leave_running(step, vm, parts_of(step))


@stage(pre=[boot])
def savevm(step: Step) -> Facts:
    """Freeze the booted build VM in a snapshot."""
    return building.freeze(step, step.live(boot))


@stage(
    pre=[build_cloudimg, toolchain, ssh_key, seed_iso, savevm],
    check=inputs.source_problems,
    reads=inputs.compile_files,
    depends=inputs.recipe,
    indirect=("source", "module_command", "module_file", "tool_command", "tool_file"),
)
def compile_vexfs(
    step: Step,
    source: str,
    version: str,
    module_command: str,
    module_file: str,
    tool_command: str,
    tool_file: str,
    ssh_port: int,
    keep_vm: bool,
) -> Facts:
    """Compile the module and vexctl in a copy of it."""
    with building.restored(step, parts_of(step), step.result(savevm)) as guest:
        return compiling.compile_in(step, guest, step.result(toolchain))


@stage(
    pre=[build_cloudimg, ssh_key, seed_iso, savevm, compile_vexfs],
    reads=inputs.seal_scripts,
)
def seal(step: Step, ssh_port: int, keep_vm: bool) -> Facts:
    """Install the results and remove every trace of the build."""
    with building.restored(step, parts_of(step), step.result(savevm)) as guest:
        facts = building.seal(step, guest, step.result(compile_vexfs))
    building.keep_disk(step, step.result(build_cloudimg))
    return facts


@stage(pre=[build_cloudimg, seal], tools=("qemu-img",), room_bytes=2 * GIB)
def compress(step: Step, compression: str) -> Facts:
    """Write the image and its compressed form."""
    return artifact.finish(step, step.result(seal).path(building.MACHINE_DISK), compression)


@stage(pre=[compress])
def checksum(step: Step, variant: str, version: str, compression: str) -> None:
    """Write the SHA256 files."""
    names = artifact.names(variant, version, compression)
    artifact.write_checksums(step, step.result(compress), compression, names)


@stage(
    pre=[build_cloudimg, seed_iso, savevm, toolchain, compile_vexfs, seal, compress, checksum],
    default=True,
)
def image(step: Step, variant: str, version: str, base: str, compression: str) -> None:
    """Bake a VexFS image: compressed, checksummed, with manifest."""
    names = artifact.names(variant, version, compression)
    made = {name.removeprefix("vexfs."): result for name, result in step.stands_on.items()}
    text = manifest.compose(
        variant=variant,
        version=version,
        base=base,
        made=made,
        artifacts={
            artifact.IMAGE: names.image,
            artifact.compressed_name(compression): names.compressed,
        },
    )
    artifact.publish_all(step, made["compress"], made["checksum"], compression, names, text)


@stage(
    pre=[compress],
    reads=inputs.session_templates,
    depends=inputs.accelerator,
    tools=(QEMU, "qemu-img"),
    room_bytes=2 * GIB,
)
def checkpoint(step: Step, accel: str, memory: int, cpus: int) -> Facts:
    """Boot the finished image once, and freeze it."""
    size = shell.Size(accel=inputs.choose_accel(step.site, accel), memory_mb=memory, cpus=cpus)
    return shell.freeze(step, step.result(compress).path(artifact.IMAGE), size)


@stage(name="shell", pre=[compress, checkpoint], kind="action", requires=("ssh", "ssh-keygen"))
def session(step: Step, accel: str, memory: int, cpus: int, command: str) -> None:
    """Open a session in a running copy of the image."""
    size = shell.Size(accel=inputs.choose_accel(step.site, accel), memory_mb=memory, cpus=cpus)
    shell.session(step, step.result(checkpoint).directory, size, command)


namespace = Collection(
    build_cloudimg,
    toolchain,
    ssh_key,
    seed_iso,
    boot,
    savevm,
    compile_vexfs,
    seal,
    compress,
    checksum,
    image,
    checkpoint,
    session,
)
