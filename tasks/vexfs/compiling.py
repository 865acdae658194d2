"""Compiles the source, in a copy of the build VM or natively: only the results stay."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tasks.core.digest import digest_of
from tasks.core.stage import Facts, Step
from tasks.core.store import Result
from tasks.guest import iso, native
from tasks.vexfs import compilers, guest_steps
from tasks.vexfs.building import Guest
from tasks.vexfs.compile_cache import CARGO_LOCK, CompileCache, keys_of
from tasks.vexfs.licenses import crate_licenses, module_license
from tasks.vexfs.source import SAMPLE, Recipe, files_of, overrides, recipe_of, tree_of

# Below the store's caches.
CACHE = "compile"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source that a step's parameters name."""

    tree: Path
    files: list[Path]
    recipe: Recipe
    version: str


def source_of(step: Step) -> Source:
    """The source to compile; says which it is."""
    tree = tree_of(str(step.params["source"]), step.site.root)
    recipe = recipe_of(tree, overrides(step.params))
    announce(step, tree, recipe)
    return Source(
        tree=tree, files=files_of(tree), recipe=recipe, version=str(step.params["version"])
    )


def compile_in(step: Step, guest: Guest, tools: Result) -> Facts:
    """Compile the source in a guest; leaves module and tool in `out`."""
    source = source_of(step)
    image = step.work / "source.iso"
    iso.write_tree(image, source.tree, source.files, "VEXFS_SOURCE")
    compilers.plug_in(guest.vm, tools)
    guest.vm.attach_disk(image, "source")
    cache = cache_of(step, source, tools)
    names, archives = guest_steps.compile_source(
        guest.ssh,
        source.recipe,
        version=source.version,
        into=step.out,
        cache=cache,
        work=step.work,
        deadline=step.deadline,
    )
    keep(step, cache, archives)
    return facts_of(step, source, names)


def compile_natively(step: Step, kernel: str, tools: Result) -> Facts:
    """Compile the source on this host, in the toolchain's root; leaves module and tool in `out`.

    Args:
        kernel: the version of the kernel in the image.
    """
    source = source_of(step)
    copy = step.work / "source"
    copy_files(source, copy)
    cache = cache_of(step, source, tools)
    step.say("compiling natively")
    lines: list[str] = []
    more_room = f"Free some space in {step.site.state}"
    with guest_steps.blaming_the_source(lines, more_room=more_room):
        results = native.run_with_toolchain(
            tools.path(compilers.NATIVE),
            copy,
            guest_steps.compile_script(
                source.recipe, source.version, cache.parts, kernel, step.cores
            ),
            step.work,
            cached=cache.archives(),
            runner=step.runner,
            timeout_s=step.deadline.left_s,
            on_line=lines.append,
        )
    names = guest_steps.compiled_in(lines)
    for name in names.values():
        shutil.copyfile(results / name, step.out / name)
    keep(step, cache, {part: results / name for part, name in guest_steps.cached_in(lines).items()})
    return facts_of(step, source, names)


def cache_of(step: Step, source: Source, tools: Result) -> CompileCache:
    """What may spare compiling; nothing, if all is to be made anew."""
    keys = {}
    # Else nothing is read either: vendored crates may be many files.
    if not step.params["no_cache"]:
        keys = keys_of(
            tools.digest,
            source.tree,
            source.files,
            root=step.site.root,
            recipe=source.recipe,
            version=source.version,
            digest=step.digests.of,
        )
    return CompileCache(folder=step.site.cache / CACHE, keys=keys)


def keep(step: Step, cache: CompileCache, archives: dict[str, Path]) -> None:
    """Have the cache take over what the compilers left for it, by part, if it can."""
    try:
        cache.keep(archives)
    except OSError as error:
        step.tell(f"the compile cache stays as it was: {error}")


def copy_files(source: Source, target: Path) -> None:
    """Copy the files that belong to a source; links stay links."""
    for path in source.files:
        copy = target / path.relative_to(source.tree)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy, follow_symlinks=False)


def facts_of(step: Step, source: Source, names: dict[str, str]) -> Facts:
    """What was compiled from what; lock files are kept for the bill of materials."""
    for lock in (path for path in source.files if path.name == CARGO_LOCK):
        shutil.copyfile(lock, step.out / lock.name)
    digests = {str(path.relative_to(source.tree)): step.digests.of(path) for path in source.files}
    return {
        "module": {
            "file": names["module"],
            "sha256": step.digests.of(step.out / names["module"]),
            "license": module_license(step.out / names["module"]),
        },
        "tool": {
            "file": names["tool"],
            "sha256": step.digests.of(step.out / names["tool"]),
            "licenses": crate_licenses(source.files),
        },
        "source": {
            "sha256": digest_of(digests),
            "files": len(source.files),
            "layout": source.recipe.layout,
        },
    }


def announce(step: Step, tree: Path, recipe: Recipe) -> None:
    """Say what is compiled; the sample could be taken for the real thing."""
    if tree == SAMPLE:
        step.tell("compiling the sample file system that comes with vmbake; --source is for yours")
    else:
        step.tell(f"compiling {tree} (layout {recipe.layout})")
