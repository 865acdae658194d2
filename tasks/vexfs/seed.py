"""The seed of the build VM: its keys, and the three files that cloud-init reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tasks.core.process import Runner
from tasks.guest import cloudconfig, iso
from tasks.vexfs.options import CLOUD_INIT

USER = "vmbake"
HOSTNAME = "vexfs"
USER_KEY = "user_key"
HOST_KEY = "host_key"


def make_keys(out: Path, runner: Runner) -> None:
    """Two new ed25519 key pairs: one for the build to get in, one for the guest to be known by."""
    for name in (USER_KEY, HOST_KEY):
        comment = f"{USER} {name.replace('_', ' ')}"
        runner.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", out / name])


def render(
    *,
    variant: str,
    version: str,
    keys: Path | None,
    bootstrapped: bool = False,
    more_packages: tuple[str, ...] = (),
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, bytes]:
    """The files of the seed by name.

    Args:
        keys: the folder that `make_keys` filled; None: no guest is booted, and there is no way in.
        bootstrapped: the base has the variant's packages already, and its root fills the disk.
        more_packages: what cloud-init installs beyond the variant's packages.
        renamed: other names for packages on this base.

    Raises:
        BadInput: a template is not usable.
    """
    values = {
        "variant": variant,
        "version": version,
        "hostname": HOSTNAME,
        "full_disk": "yes" if bootstrapped else "",
        "in_guest": "yes" if keys else "",
        "public_key": "",
        "host_key": "",
        "host_key_public": "",
    }
    if keys:
        values |= {
            "public_key": (keys / f"{USER_KEY}.pub").read_text().strip(),
            "host_key": (keys / HOST_KEY).read_text().strip(),
            "host_key_public": (keys / f"{HOST_KEY}.pub").read_text().strip(),
        }
    rendered = cloudconfig.render_variant(CLOUD_INIT, variant, values)
    config = dict(rendered.config)
    wanted = (*(() if bootstrapped else rendered.packages), *more_packages)
    if packages := sorted({renamed.get(name, name) for name in wanted}):
        config |= {"packages": packages, "package_update": True}
    user_data = cloudconfig.user_data(config)
    # A first boot is one of a new instance (cloud-init's rule), and other user-data make one.
    values["instance_id"] = f"vexfs-{variant}-{hashlib.sha256(user_data.encode()).hexdigest()[:16]}"
    files = {
        "user-data": user_data,
        "meta-data": cloudconfig.render_file(CLOUD_INIT / "meta-data.yaml", values),
        "network-config": cloudconfig.render_file(CLOUD_INIT / "network-config.yaml", values),
    }
    return {name: text.encode() for name, text in files.items()}


def write(out: Path, files: dict[str, bytes]) -> None:
    """The seed as `seed.iso`, and the same files beside it for whoever wants to read them."""
    iso.write_seed(out / "seed.iso", files)
    for name, content in files.items():
        path = out / name
        path.touch(mode=0o600)
        path.write_bytes(content)
