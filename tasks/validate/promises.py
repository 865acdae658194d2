"""Checks of what an image's own data promise: the manifest's packages, the variant's files.

Both are what the image was built from; there is no second list of what should be in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.guest import cloudconfig
from tasks.validate.catalogue import Spec
from tasks.validate.facts import from_manifest
from tasks.validate.subject import Subject

CLOUD_INIT = Path(__file__).parents[2] / "cloud-init"
# The build's own, which are gone with it.
OF_THE_BUILD = "/run/"
SSHD, SYSCTL = "/etc/ssh/sshd_config.d/", "/etc/sysctl.d/"
PACKAGES = (
    "dpkg-query -W -f '${db:Status-Abbrev}${binary:Package} ${Version}\\n'"
    " | sed -n 's/^ii //p' | LC_ALL=C sort"
)


def promised(subject: Subject, folder: Path = CLOUD_INIT) -> list[Spec]:
    """The checks that an image with a manifest adds to the catalogue's.

    Raises:
        BadInput: a template of the variant is not usable.
    """
    if subject.manifest is None:
        return []
    specs = [packages(subject.manifest)]
    if (folder / subject.variant).is_dir() and subject.variant:
        files = contents(subject, folder)
        specs += [file_spec(path, *files[path]) for path in sorted(files)]
        specs += sshd_specs(files, subject.variant)
        specs += sysctl_specs(files, subject.variant)
    return specs


def packages(manifest: Mapping[str, Any]) -> Spec:
    """All packages with their versions."""
    listed = sorted(f"{name} {version}" for name, version in manifest["packages"].items())
    return Spec(
        group="system",
        name="packages equal the manifest",
        literal=True,
        command=PACKAGES,
        needs=("dpkg-query",),
        expected=f"the {len(listed)} packages of the manifest, in these versions",
        equals="\n".join(listed),
    )


def contents(subject: Subject, folder: Path) -> dict[str, tuple[str, str]]:
    """Path to mode and content of each file that the variant brings."""
    values = {"variant": subject.variant, "version": subject.version}
    files = cloudconfig.render_files(folder, subject.variant, values)
    module = from_manifest(subject.manifest).get("MODULE", "")
    return {
        path: (entry["permissions"].lstrip("0"), for_module(entry["content"], path, module))
        for path, entry in files.items()
        if not path.startswith(OF_THE_BUILD)
    }


def for_module(content: str, path: str, module: str) -> str:
    """The content as scripts/guest/install.sh leaves it if the module has another name."""
    if module in ("", "vexfs"):
        return content
    if path == "/etc/modules-load.d/vexfs.conf":
        return f"{module}\n"
    if path == "/etc/vexfs/vexfs.conf":
        return re.sub(r"^MODULE=.*", f"MODULE={module}", content, flags=re.MULTILINE)
    return content


def file_spec(path: str, mode: str, content: str) -> Spec:
    """One file, as it was rendered for the build."""
    return Spec(
        group="configuration",
        name=path,
        literal=True,
        command=f"stat -c %a {path} && cat {path}",
        expected=f"mode {mode}, and the content that the variant's templates give",
        equals=f"{mode}\n{content}",
    )


def sshd_specs(files: Mapping[str, tuple[str, str]], variant: str) -> Iterator[Spec]:
    """What sshd makes of its settings: an earlier file may win over the variant's."""
    lines = tuple(line for path in sorted(files) if path.startswith(SSHD)
                  for line in settings(files[path][1]))  # fmt: skip
    if lines:
        yield Spec(
            group=group_of(variant),
            name="sshd's effective settings",
            literal=True,
            command="sshd -T",
            needs=("sshd",),
            expected="; ".join(lines),
            lines=lines,
        )


def sysctl_specs(files: Mapping[str, tuple[str, str]], variant: str) -> Iterator[Spec]:
    """What the kernel makes of the settings."""
    lines = tuple(line for path in sorted(files) if path.startswith(SYSCTL)
                  for line in settings(files[path][1]))  # fmt: skip
    if lines:
        names = " ".join(line.partition("=")[0].strip() for line in lines)
        yield Spec(
            group=group_of(variant),
            name="kernel settings",
            literal=True,
            command=f"sysctl {names}",
            needs=("sysctl",),
            expected="; ".join(lines),
            lines=lines,
        )


def group_of(variant: str) -> str:
    """Where settings belong: what production sets, it sets to be hard."""
    return "hardening" if variant == "production" else "configuration"


def settings(content: str) -> list[str]:
    """The lines of a file of settings, without comments."""
    lines = (line.partition("#")[0].strip() for line in content.splitlines())
    return [line for line in lines if line]
