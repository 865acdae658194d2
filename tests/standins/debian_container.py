"""A container image of Debian as the registries have it, made by mmdebstrap: none is asked here."""

from __future__ import annotations

import platform
import subprocess
import tempfile
from pathlib import Path

from tasks.core.process import Runner
from tasks.guest import bootstrap
from tests.standins.vdsm.debian import CACHE, made_once

REPOSITORY = "vmbake-standin/release"
# pip brings certificates of its own, and this machine may reach the network by others.
PIP_SETTINGS = "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


def release() -> str:
    """This machine's, so that tools have the versions that they have here; or an older one."""
    here = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    return here if here in bootstrap.RELEASES else bootstrap.RELEASES[0]


def import_image(cache: Path = CACHE) -> str:
    """The reference of the image, which is put into the engine of DOCKER_HOST."""
    name = release()
    tar = cache / f"release-{name}.tar"

    def make(aside: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            settings = Path(folder) / "pip.conf"
            settings.write_text(PIP_SETTINGS)
            log = cache / "release.log"
            log.unlink(missing_ok=True)
            Runner(log).run(mmdebstrap_argv(name, settings, aside))

    made_once(tar, make)
    reference = f"{REPOSITORY}:{name}"
    subprocess.run(["docker", "import", tar, reference], check=True, stdout=subprocess.DEVNULL)
    return reference


def mmdebstrap_argv(name: str, pip_settings: Path, target: Path) -> tuple[str, ...]:
    """The command line; packages are installed as in the image that is stood in for."""
    mode = bootstrap.require_mode()
    return (
        *(bootstrap.PRIVATE if mode == "root" else ()),
        *("mmdebstrap", f"--mode={mode}", "--variant=required", "--format=tar"),
        "--include=apt,ca-certificates,python3",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Retries "3"',
        f"--customize-hook=upload /{CERTIFICATES} /{CERTIFICATES}",
        f"--customize-hook=upload {pip_settings} /etc/pip.conf",
        *(name, str(target)),
    )
