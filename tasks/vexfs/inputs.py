"""What the VexFS stages depend on, and what can be wrong with it before anything runs.

Each function gets the parameters of its stage. This module is loaded for every `inv --list`, so
it imports modules, which load when they are used, and no names out of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core import process
from tasks.guest import cloudconfig, ubuntu
from tasks.qemu import accel as accelerators
from tasks.vexfs import bases
from tasks.vexfs import source as trees
from tasks.vexfs.options import CLOUD_INIT, ROOT, SCRIPTS

if TYPE_CHECKING:
    from tasks.core.stage import Site


def base_files(base: str, **_: Any) -> list[Path]:
    """The local disk that a base is made of, if it is one."""
    path = bases.local_file(base, ROOT)
    return [path] if path else []


def base_packages(
    site: Site, base: str, variant: str, image_release: str, image_mirror: str, **_: Any
) -> dict[str, str]:
    """The packages in the base, all of a variant that it depends on; and its dated release.

    Raises:
        BadInput: the release or the mirror is not usable.
    """
    found = {"packages": " ".join(bases.packages_before(base, variant))}
    if base not in bases.DEBIAN and bases.local_file(base, site.root) is None:
        release = ubuntu.require_release(base, day=image_release, mirror=image_mirror)
        found["release"] = f"{release.name} {release.sha256 or ''}".rstrip()
    return found


def base_problems(site: Site, base: str, **_: Any) -> Iterator[str]:
    """A local disk that isn't there."""
    path = bases.local_file(base, site.root)
    if path is not None and not path.is_file():
        yield f"The base {path} is not a file. --base file:PATH names a qcow2 or raw disk."


def toolchain_templates(base: str, **_: Any) -> list[Path]:
    """What the seed of the toolchain's guest is rendered from, if there is such a guest."""
    return [] if base in bases.DEBIAN else seed_templates(cloudconfig.TOOLCHAIN)


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


def compile_files(source: str, **_: Any) -> list[Path]:
    """The source tree, and the scripts that wake a copy of the build VM and compile in it."""
    scripts = [SCRIPTS / "wake.sh", SCRIPTS / "compile.sh"]
    return [*trees.files_of(trees.tree_of(source, ROOT)), *scripts]


def seal_scripts(**_: Any) -> list[Path]:
    """The scripts that wake a copy of the build VM, install, and seal."""
    return [SCRIPTS / name for name in ("wake.sh", "install.sh", "seal.sh")]


def session_templates(**_: Any) -> list[Path]:
    """What the seed of a session's machine is rendered from."""
    return [CLOUD_INIT / "meta-data.yaml"]


def recipe(site: Site, source: str, **params: Any) -> dict[str, str]:
    """How the source is compiled, whether recognised or given."""
    found = trees.recipe_of(trees.tree_of(source, site.root), trees.overrides(params))
    return {f"recipe {part}": getattr(found, part) for part in trees.PARTS}


def source_problems(site: Site, source: str, **params: Any) -> Iterator[str]:
    """What keeps the source from being compiled."""
    return trees.problems_of(trees.tree_of(source, site.root), trees.overrides(params))
