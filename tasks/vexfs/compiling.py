"""Compiles the source in a copy of the build VM: a side branch of which only the results stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.core.digest import digest_of
from tasks.core.stage import Facts, Step
from tasks.core.store import Result
from tasks.guest import iso
from tasks.vexfs import compilers, guest_steps
from tasks.vexfs.building import Guest
from tasks.vexfs.source import SAMPLE, Recipe, files_of, overrides, recipe_of, tree_of


def compile_in(step: Step, guest: Guest, tools: Result) -> Facts:
    """Compile the source that the step's parameters name; leaves module and tool in `out`."""
    tree = tree_of(str(step.params["source"]), step.site.root)
    files = files_of(tree)
    recipe = recipe_of(tree, overrides(step.params))
    announce(step, tree, recipe)
    image = step.work / "source.iso"
    iso.write_tree(image, tree, files, "VEXFS_SOURCE")
    compilers.plug_in(guest.vm, tools)
    guest.vm.attach_disk(image, "source")
    version = str(step.params["version"])
    names = guest_steps.compile_source(
        guest.ssh,
        recipe,
        version=version,
        into=step.out,
        deadline=step.deadline,
    )
    for lock in (path for path in files if path.name == "Cargo.lock"):
        shutil.copyfile(lock, step.out / lock.name)
    digests = {str(path.relative_to(tree)): step.digests.of(path) for path in files}
    return {
        "module": {"file": names["module"], "sha256": step.digests.of(step.out / names["module"])},
        "tool": {"file": names["tool"], "sha256": step.digests.of(step.out / names["tool"])},
        "source": {"sha256": digest_of(digests), "files": len(files), "layout": recipe.layout},
    }


def announce(step: Step, tree: Path, recipe: Recipe) -> None:
    """Say what is compiled; the sample could be taken for the real thing."""
    if tree == SAMPLE:
        step.tell("compiling the sample file system that comes with vmbake; --source is for yours")
    else:
        step.tell(f"compiling {tree} (layout {recipe.layout})")
