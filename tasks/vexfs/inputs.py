"""What the VexFS stages depend on, and what can be wrong with it before anything runs.

Each function gets the parameters of its stage. This module is loaded for every `inv --list`, so
it imports modules, which load when they are used, and no names out of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.artifacts import compress
from tasks.core import capacity, errors, process
from tasks.guest import cloudconfig, native, ubuntu
from tasks.qemu import accel as accelerators
from tasks.qemu import cost as guests
from tasks.vexfs import artifact, bases, engines
from tasks.vexfs import source as trees
from tasks.vexfs.options import CLOUD_INIT, ROOT, SCRIPTS

if TYPE_CHECKING:
    from tasks.core.stage import Site, Stage


def base_files(base: str, **_: Any) -> list[Path]:
    """The local disk that a base is made of, if it is one."""
    path = bases.local_file(base, ROOT)
    return [path] if path else []


def base_packages(
    site: Site, base: str, variant: str, image_release: str, image_mirror: str, **params: Any
) -> dict[str, str]:
    """The packages in the base, all of a variant that it depends on; and its dated release.

    Raises:
        BadInput: the release or the mirror is not usable.
    """
    engine = engines.choose(site, **params)
    found = {"packages": " ".join(bases.packages_before(base, variant, engine.name))}
    return found | base_release(site, base, image_release, image_mirror)


def base_release(
    site: Site, base: str, image_release: str, image_mirror: str, **_: Any
) -> dict[str, str]:
    """The dated release of a base that is downloaded.

    Raises:
        BadInput: the release or the mirror is not usable.
    """
    if base in bases.DEBIAN or bases.local_file(base, site.root) is not None:
        return {}
    release = ubuntu.require_release(base, day=image_release, mirror=image_mirror)
    return {"release": f"{release.name} {release.sha256 or ''}".rstrip()}


def adopted_files(base: str, **_: Any) -> list[Path]:
    """The local disk that a base is made of, if it is one, and what looks into it natively."""
    return [*base_files(base), *native_script("adopt.sh", "look.sh")()]


def adopted_release(site: Site, **params: Any) -> dict[str, str]:
    """The dated release of a base that the native engine looks into."""
    return base_release(site, **params) | engine_native(site)


def if_foreign_and_native(*others: Stage) -> Callable[..., list[Stage] | None]:
    """A hook: what takes the place of a stage where a base is filled natively that isn't ours."""

    def instead(site: Site, base: str, **params: Any) -> list[Stage] | None:
        if base in bases.DEBIAN or engines.choose(site, **params).name != "native":
            return None
        return list(others)

    return instead


def base_problems(site: Site, base: str, **_: Any) -> Iterator[str]:
    """A local disk that isn't there."""
    path = bases.local_file(base, site.root)
    if path is not None and not path.is_file():
        yield f"The base {path} is not a file. --base file:PATH names a qcow2 or raw disk."


def unless_bootstrapped(site: Site, base: str, **_: Any) -> list[Stage] | None:
    """What takes the place of the stage that unpacks compilers: nothing, for a foreign base."""
    return None if base in bases.DEBIAN else []


def toolchain_templates(base: str, **_: Any) -> list[Path]:
    """What the seed of the toolchain's guest is rendered from, if there is such a guest."""
    return [] if base in bases.DEBIAN else seed_templates(cloudconfig.TOOLCHAIN)


def native_toolchain_files(**_: Any) -> list[Path]:
    """What makes the toolchain of a foreign base natively; its list of packages is a template's."""
    templates = [CLOUD_INIT / part for part in (cloudconfig.COMMON, cloudconfig.TOOLCHAIN)]
    return [*templates, *native_script("apt.sh", "toolchain.sh")()]


def seed_templates(variant: str, **_: Any) -> list[Path]:
    """What the seed of a variant is rendered from."""
    parts = [CLOUD_INIT / cloudconfig.COMMON, CLOUD_INIT / variant]
    return [*parts, CLOUD_INIT / "meta-data.yaml", CLOUD_INIT / "network-config.yaml"]


def accelerator(site: Site, accel: str, **_: Any) -> dict[str, str]:
    """What `auto` means on this machine."""
    chosen = choose_accel(site, accel)
    return {"accelerator": f"{chosen.name} {chosen.cpu}"}


def choose_accel(site: Site, wanted: Any) -> accelerators.Accel:
    """The accelerator, tried once per boot of the host; see tasks.qemu.accel."""
    return accelerators.choose(wanted, process.Runner(site.cache / "accel.log"), site.cache)


def packages(variant: str) -> tuple[str, ...]:
    """The packages that a variant consists of."""
    return cloudconfig.packages_of(CLOUD_INIT, variant)


def unless_packages(*others: Stage) -> Callable[..., list[Stage] | None]:
    """A hook: what takes the place of the stage that installs packages, if there are none."""
    return lambda site, variant, **_: None if packages(variant) else list(others)


def native_problems(site: Site, **_: Any) -> Iterator[errors.VmbakeError]:
    """What keeps this host from working on a base natively."""
    try:
        engines.require_native()
    except errors.VmbakeError as error:
        yield error


def own_packages(site: Site, variant: str, **_: Any) -> dict[str, str]:
    """The packages of a variant, which of all its data are what counts."""
    return {"packages": " ".join(packages(variant))}


def native_script(*names: str) -> Callable[..., list[Path]]:
    """A hook: scripts of scripts/native/ that a stage runs, beside those that open the disk."""
    every = ("with-disk.sh", "with-root.sh", "disk.sh", "in-root.sh", *names)
    return lambda **_: [native.SCRIPTS / name for name in every]


def fill_files(variant: str, **_: Any) -> list[Path]:
    """A variant's templates, and the script that has them applied natively."""
    return [*seed_templates(variant), *native_script("fill.sh")()]


def guest_cost(
    site: Site, accel: str, memory: int, cpus: int, ssh_port: int = 0, **_: Any
) -> capacity.Cost:
    """What a stage takes in which the build VM runs."""
    name = choose_accel(site, accel).name
    return guests.guest_cost(name, memory_mb=memory, cpus=cpus, port=ssh_port)


# Of a stage that works on all cores at once now and then, how many are busy on average. With two
# cores it is one, so that another stage works beside it: what one is waiting for, the archive, the
# disk, its own last thread, the other one uses.
#
# Compressing on two, measured: 3.2 s of processor time in 2.3 s. More cores are used little more:
# qemu-img has 4 threads at most, and digests and writes are the work of one.
NOW_AND_THEN = 0.25
# make starts a compiler for each core; linking, and what the cache knows already, is one's work.
COMPILING = 0.5
# apt and dpkg with the package lists of a release; mksquashfs, measured with 840 MB: 209 MiB.
PACKAGES_BYTES = 256 << 20
# An estimate: a compiler of the kernel's C for each core, and beside them one of Rust, which takes
# 140 MiB for the sample and more with crates.
C_BYTES, RUST_BYTES = 128 << 20, 512 << 20


def base_cost(site: Site, **_: Any) -> capacity.Cost:
    """What the base takes: packages are unpacked and set up one by one."""
    return capacity.Cost(memory_bytes=PACKAGES_BYTES)


def compilers_cost(site: Site, **_: Any) -> capacity.Cost:
    """What the compilers take: they are unpacked and packed again by all cores."""
    return capacity.Cost(share=NOW_AND_THEN, memory_bytes=PACKAGES_BYTES)


def toolchain_cost(site: Site, base: str, **params: Any) -> capacity.Cost:
    """What the toolchain takes, which is made with or without a guest."""
    return compilers_cost(site) if base in bases.DEBIAN else guest_cost(site, **params)


def native_compile_cost(site: Site, **_: Any) -> capacity.Cost:
    """What compiling takes without a guest."""
    memory = RUST_BYTES + C_BYTES * capacity.core_count()
    return capacity.Cost(share=COMPILING, memory_bytes=memory)


def compress_cost(site: Site, compression: str, **_: Any) -> capacity.Cost:
    """What compressing takes."""
    threads = capacity.core_count()
    memory = compress.memory_bytes(artifact.as_method(compression), threads)
    return capacity.Cost(share=NOW_AND_THEN, memory_bytes=memory)


def compile_files(source: str, **_: Any) -> list[Path]:
    """The source tree, and the scripts that wake a copy of the build VM and compile in it."""
    scripts = [SCRIPTS / name for name in ("wake.sh", "plug-in.sh", "compile.sh")]
    return [*trees.files_of(trees.tree_of(source, ROOT)), *scripts]


def native_compile_files(source: str, **_: Any) -> list[Path]:
    """The source tree, and the scripts that compile it natively."""
    scripts = [native.SCRIPTS / "with-toolchain.sh", SCRIPTS / "compile.sh"]
    return [*trees.files_of(trees.tree_of(source, ROOT)), *scripts]


def seal_scripts(**_: Any) -> list[Path]:
    """The scripts that wake a copy of the build VM, install, and seal."""
    names = ("wake.sh", "install.sh", "try.sh", "seal.sh", "freeze.sh")
    return [SCRIPTS / name for name in names]


def native_seal_scripts(**_: Any) -> list[Path]:
    """The scripts that install and seal natively."""
    return [SCRIPTS / "install.sh", SCRIPTS / "seal.sh", *native_script()()]


def engine_vm(site: Site, **_: Any) -> dict[str, str]:
    """What a guest made is not what this host makes."""
    return {"engine": "vm"}


def engine_native(site: Site, **_: Any) -> dict[str, str]:
    """What this host made is not what a guest makes."""
    return {"engine": "native"}


def session_templates(**_: Any) -> list[Path]:
    """What the seed of a session's machine is rendered from."""
    return [CLOUD_INIT / "meta-data.yaml"]


def recipe(site: Site, source: str, **params: Any) -> dict[str, str]:
    """How the source is compiled in a guest, whether recognised or given."""
    found = trees.recipe_of(trees.tree_of(source, site.root), trees.overrides(params))
    return {f"recipe {part}": getattr(found, part) for part in trees.PARTS} | engine_vm(site)


def native_recipe(site: Site, **params: Any) -> dict[str, str]:
    """How the source is compiled natively."""
    return recipe(site, **params) | engine_native(site)


def source_problems(site: Site, source: str, **params: Any) -> Iterator[str]:
    """What keeps the source from being compiled."""
    return trees.problems_of(trees.tree_of(source, site.root), trees.overrides(params))
