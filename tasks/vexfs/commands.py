"""The VexFS tasks: from an empty machine to a sealed, compressed, checksummed image.

vm:           compilers ── toolchain ────────────┐
                               │                 │
         build-cloudimg ───────┤                 │
         ssh-key ── seed-iso ──┴ boot ── savevm ─┴─ compile-vexfs ── seal ──┐
native:                                                                     ├ compress ── checksum
              compilers ── toolchain ── compile-vexfs ─────┬── seal ────────┘    │        │
         build-cloudimg ───────┴── packages ── fill ───────┘                     │      image
                                                                        shell ── checkpoint
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from invoke.collection import Collection
from invoke.tasks import call, task

from tasks.core.options import words_of
from tasks.core.stage import Facts, Stage, Step
from tasks.qemu import machine
from tasks.vexfs import (
    artifact,
    bases,
    building,
    compilers,
    compiling,
    engines,
    foreign,
    inputs,
    manifest,
    natively,
    seed,
    shell,
)
from tasks.vexfs.options import OPTIONS

QEMU = "qemu-system-x86_64"
GIB = 1 << 30
# What decides about the engine.
GATE = ("engine", "accel")
# What says how the source is compiled; it counts by what is found there.
RECIPE = ("source", "module_command", "module_file", "tool_command", "tool_file")
# What a restored machine takes; what it is like comes from its snapshot.
MACHINE = ("memory", "cpus")

stage = functools.partial(task, klass=Stage, options=OPTIONS)


@stage(
    name="build-cloudimg",
    check=inputs.base_problems,
    reads=inputs.adopted_files,
    depends=inputs.adopted_release,
    tools=("qemu-img",),
    requires=("sfdisk", "resize2fs"),
    room_bytes=5 * GIB,
)
def adopt_natively(
    step: Step, base: str, image_mirror: str, image_release: str, offline: bool, disk_size: int
) -> Facts:
    """Fetch a base that vmbake did not make, and look into it natively."""
    servers = bases.Servers(
        mirror="", image_mirror=image_mirror, image_release=image_release, offline=offline
    )
    made = bases.make(step, base, (), servers, disk_size * GIB)
    return {**made, **foreign.adopt(step, step.out / bases.DISK)}


@stage(
    instead=inputs.if_foreign_and_native(adopt_natively),
    check=inputs.base_problems,
    reads=inputs.base_files,
    depends=inputs.base_packages,
    also=GATE,
    indirect=("variant",),
    tools=("mmdebstrap", "qemu-img"),
    room_bytes=5 * GIB,
    cost=inputs.base_cost,
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
    packages = tuple(step.inputs["packages"].split())
    return bases.make(step, base, packages, servers, disk_size * GIB)


@stage(
    name="compilers",
    instead=inputs.unless_bootstrapped,
    tools=("mmdebstrap",),
    requires=("mksquashfs",),
    room_bytes=2 * GIB,
    cost=inputs.compilers_cost,
)
def unpack_compilers(step: Step, base: str, toolchain: str, mirror: str, offline: bool) -> Facts:
    """Unpack compilers and the archive's newest kernel headers."""
    return compilers.unpack(step, base, tuple(toolchain.split()), mirror, offline=offline)


@stage(
    name="toolchain",
    pre=[build_cloudimg],
    reads=inputs.native_toolchain_files,
    depends=inputs.engine_native,
    room_bytes=4 * GIB,
    cost=inputs.compilers_cost,
)
def toolchain_natively(step: Step, base: str, toolchain: str, offline: bool) -> Facts:
    """Install compilers and kernel headers over a base that isn't ours, and pack all of it."""
    packages = tuple(toolchain.split())
    return foreign.install_compilers(step, step.result(build_cloudimg), packages, offline=offline)


@stage(
    pre=[build_cloudimg, unpack_compilers],
    instead=inputs.if_foreign_and_native(toolchain_natively),
    reads=inputs.toolchain_templates,
    also=("engine",),
    indirect=("engine",),
    tools=("mmdebstrap", QEMU),
    room_bytes=4 * GIB,
    cost=inputs.toolchain_cost,
)
def toolchain(
    step: Step,
    base: str,
    toolchain: str,
    mirror: str,
    offline: bool,
    accel: str,
    memory: int,
    cpus: int,
    ssh_port: int,
    keep_vm: bool,
) -> Facts:
    """Make the disk with compilers and the base's kernel headers."""
    under, packages = step.result(build_cloudimg), tuple(toolchain.split())
    if base not in bases.DEBIAN:
        chosen = inputs.choose_accel(step.site, accel)
        return compilers.install_in_guest(step, under, packages, chosen, memory, cpus)
    ready, kernel = step.result(unpack_compilers), under.facts["kernel"]
    if ready.facts["kernel"] == kernel:
        return compilers.take_over(step, ready)
    step.tell(f"the base has kernel {kernel}, the archive's is {ready.facts['kernel']}")
    headers = under.directory / bases.HEADERS
    return compilers.unpack(step, base, packages, mirror, offline=offline, headers=headers)


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


def tell_engine(step: Step) -> None:
    """Say which engine is at work, and why that one."""
    step.tell(str(engines.choose(step.site, **step.params)))


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
    also=("engine",),
    indirect=("engine",),
    tools=(QEMU,),
    cost=inputs.guest_cost,
)
def boot(
    step: Step, accel: str, memory: int, cpus: int, ssh_port: int, keep_vm: bool
) -> Iterator[machine.Machine]:
    """Boot the build VM until cloud-init is done."""
    tell_engine(step)
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
    pre=[build_cloudimg],
    instead=inputs.unless_packages(build_cloudimg),
    check=inputs.native_problems,
    reads=inputs.native_script("apt.sh", "packages.sh"),
    depends=inputs.own_packages,
    also=("base",),
    indirect=("variant", "base"),
    room_bytes=2 * GIB,
)
def packages(step: Step, variant: str, offline: bool) -> Facts:
    """Install the variant's packages natively."""
    wanted = inputs.packages(variant)
    return natively.install_packages(step, step.result(build_cloudimg), wanted, offline=offline)


@stage(
    pre=[packages],
    instead=engines.either(vm=[seed_iso, savevm]),
    reads=inputs.fill_files,
    also=GATE,
    indirect=GATE,
)
def fill(step: Step, variant: str, version: str) -> Facts:
    """Apply the variant's cloud-init data natively."""
    tell_engine(step)
    files = seed.render(variant=variant, version=version, keys=None, bootstrapped=True)
    (under,) = step.stands_on.values()
    return natively.fill(step, natively.disk_of(under), files)


@stage(
    name="compile-vexfs",
    pre=[build_cloudimg, toolchain],
    check=inputs.source_problems,
    reads=inputs.native_compile_files,
    depends=inputs.native_recipe,
    also=(*RECIPE, *GATE),
    indirect=(*RECIPE, *GATE),
    cost=inputs.native_compile_cost,
)
def compile_natively(step: Step, version: str) -> Facts:
    """Compile the module and vexctl in the toolchain's root."""
    tell_engine(step)
    kernel = str(step.result(build_cloudimg).facts["kernel"])
    return compiling.compile_natively(step, kernel, step.result(toolchain))


@stage(
    pre=[build_cloudimg, toolchain, ssh_key, seed_iso, savevm],
    instead=engines.either(native=[compile_natively]),
    check=inputs.source_problems,
    reads=inputs.compile_files,
    depends=inputs.recipe,
    also=(*RECIPE, *GATE, *MACHINE),
    indirect=(*RECIPE, *GATE, *MACHINE),
    cost=inputs.guest_cost,
)
def compile_vexfs(step: Step, version: str, ssh_port: int, keep_vm: bool) -> Facts:
    """Compile the module and vexctl in a copy of it."""
    tell_engine(step)
    with building.restored(step, parts_of(step), step.result(savevm)) as guest:
        return compiling.compile_in(step, guest, step.result(toolchain))


@stage(
    name="seal",
    pre=[build_cloudimg, fill, compile_natively],
    reads=inputs.native_seal_scripts,
    depends=inputs.engine_native,
)
def seal_natively(step: Step) -> Facts:
    """Install the results in the image's root and remove every trace of the build."""
    kernel = str(step.result(build_cloudimg).facts["kernel"])
    under = step.result(fill).path(building.MACHINE_DISK)
    return natively.seal(step, under, step.result(compile_natively), kernel)


@stage(
    pre=[build_cloudimg, ssh_key, seed_iso, savevm, compile_vexfs],
    instead=engines.either(native=[seal_natively]),
    reads=inputs.seal_scripts,
    depends=inputs.engine_vm,
    also=(*GATE, *MACHINE),
    indirect=(*GATE, *MACHINE),
    cost=inputs.guest_cost,
)
def seal(step: Step, ssh_port: int, keep_vm: bool) -> Facts:
    """Install the results and remove every trace of the build."""
    with building.restored(step, parts_of(step), step.result(savevm)) as guest:
        facts = building.seal(step, guest, step.result(compile_vexfs))
    building.keep_disk(step, step.result(build_cloudimg))
    return facts


@stage(
    pre=[build_cloudimg, seal],
    tools=("qemu-img",),
    room_bytes=2 * GIB,
    cost=inputs.compress_cost,
)
def compress(step: Step, compression: str) -> Facts:
    """Write the image and its compressed form."""
    return artifact.finish(step, step.result(seal).path(building.MACHINE_DISK), compression)


@stage(pre=[compress])
def checksum(step: Step, variant: str, version: str, compression: str) -> None:
    """Write the SHA256 files."""
    names = artifact.names(variant, version, compression)
    artifact.write_checksums(step, step.result(compress), compression, names)


@stage(
    pre=[
        build_cloudimg,
        fill,
        unpack_compilers,
        toolchain,
        compile_vexfs,
        seal,
        compress,
        checksum,
    ],
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
    pre=[image],
    instead=lambda *_, variants, **__: [call(image, variant=each) for each in words_of(variants)],
)
def images(step: Step, variants: str) -> None:
    """Bake the images of several variants in one run."""


@stage(
    pre=[compress],
    reads=inputs.session_templates,
    depends=inputs.accelerator,
    tools=(QEMU, "qemu-img"),
    room_bytes=2 * GIB,
    cost=inputs.guest_cost,
)
def checkpoint(step: Step, accel: str, memory: int, cpus: int) -> Facts:
    """Boot the finished image once, and freeze it."""
    size = shell.Size(accel=inputs.choose_accel(step.site, accel), memory_mb=memory, cpus=cpus)
    return shell.freeze(step, step.result(compress).path(artifact.IMAGE), size)


@stage(
    name="shell",
    pre=[compress, checkpoint],
    kind="action",
    requires=("ssh", "ssh-keygen"),
    cost=inputs.guest_cost,
)
def session(step: Step, accel: str, memory: int, cpus: int, command: str) -> None:
    """Open a session in a running copy of the image."""
    size = shell.Size(accel=inputs.choose_accel(step.site, accel), memory_mb=memory, cpus=cpus)
    shell.session(step, step.result(checkpoint).directory, size, command)


namespace = Collection(
    build_cloudimg,
    unpack_compilers,
    toolchain,
    ssh_key,
    seed_iso,
    boot,
    savevm,
    packages,
    fill,
    compile_vexfs,
    seal,
    compress,
    checksum,
    image,
    images,
    checkpoint,
    session,
)
