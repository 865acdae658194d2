"""A disk that vmbake did not make is filled natively, or it is said why it can't be."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import BadInput, DownloadFailed, VmbakeError
from tests.e2e.test_engines import inside
from tests.e2e.test_minimal_image import ROOT, inv
from tests.standins import foreign_disk, tiny_root

pytestmark = pytest.mark.e2e

# What is only needed to compile, or to pack what compiles.
BUILD_ONLY = re.compile(
    r"(gcc|g\+\+|cpp|binutils)(-\d+)?|make|ccache|cargo|rustc|build-essential|dpkg-dev"
    r"|libc6-dev|linux-(headers|kbuild|compiler)-.*|squashfs-tools"
)
PACKAGES = {"logrotate", "rsyslog", "unattended-upgrades"}


@dataclass(frozen=True)
class Place:
    """A store of its own, which goes with the test: a path of the test is part of its results."""

    folder: Path

    def inv(self, *words: str, base: Path, status: int = 0) -> tuple[str, str]:
        settings = self.folder / "settings.json"
        settings.write_text(json.dumps({"vmbake": {"state": str(self.folder / "state")}}))
        names = {"VEXFS_VARIANT": "production", "VEXFS_ENGINE": "native"}
        names |= {"VEXFS_BASE": f"file:{base}", "INVOKE_RUNTIME_CONFIG": str(settings)}
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *words],
            cwd=ROOT,
            env=os.environ | names,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout, done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def ours() -> Path:
    """The base of which the foreign disks are made."""
    out, _ = inv("vexfs.build-cloudimg", "--engine", "native")
    return next(ROOT / line for line in out.split() if line.endswith("disk.qcow2"))


@pytest.fixture(scope="module")
def disk(place: Place, ours: Path) -> Path:
    made = place.folder / "disk.qcow2"
    foreign_disk.make(ours, made)
    return made


def names_in(found: Any) -> set[str]:
    """The packages of a root."""
    return {line.split()[0].partition(":")[0] for line in found["packages"]}


def test_a_disk_of_others_is_filled_and_nothing_that_compiles_stays(
    place: Place, disk: Path, tmp_path: Path
) -> None:
    out, err = place.inv("vexfs.seal", base=disk)
    assert "engine native: asked for" in err
    # Neither Debian's own compilers nor a guest.
    for stage in ("vexfs.compilers", "vexfs.boot", "vexfs.savevm"):
        assert f"{stage}: started" not in err
    sealed = next(ROOT / line for line in out.split() if line.endswith(".qcow2"))
    before, after = inside(disk, tmp_path / "disk"), inside(sealed, tmp_path / "sealed")
    added = names_in(after) - names_in(before)
    assert added >= PACKAGES
    assert [name for name in names_in(after) if BUILD_ONLY.fullmatch(name)] == []
    assert names_in(before) <= names_in(after)
    tree = after["tree"]
    assert "/usr/local/bin/vexctl" in tree
    (kernel,) = [path for path in before["tree"] if re.fullmatch(r"/usr/lib/modules/[^/]+", path)]
    assert f"{kernel}/extra/vexfs/vexfs.ko" in tree
    assert "vexfs.service enabled" in " ".join(" ".join(after["units"]).split())
    # Its own settings hold: documentation is installed where dpkg was not told otherwise.
    assert "/usr/share/doc/rsyslog/changelog.Debian.gz" in tree
    for gone in ("/usr/sbin/policy-rc.d", "/var/lib/cloud", "/etc/ssh/ssh_host_ed25519_key"):
        assert gone not in tree
    # Else Debian 12's systemd would ask at the console, and wait.
    assert tree["/etc/systemd/system/systemd-firstboot.service"]["target"] == "/dev/null"
    assert tree["/etc/resolv.conf"]["sha256"] == hashlib.sha256(b"").hexdigest()


UNREACHABLE = """
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d
echo 'deb http://127.0.0.1:9/debian trixie main' > /etc/apt/sources.list
"""


@pytest.mark.parametrize(
    ("script", "stage", "error", "said"),
    [
        (
            "rm /boot/vmlinuz-*",
            "vexfs.build-cloudimg",
            BadInput,
            "can't fill file:{}: there is no kernel with its modules in it",
        ),
        ("rm /usr/bin/cloud-init", "vexfs.fill", BadInput, "there is no cloud-init in it"),
        (
            UNREACHABLE,
            "vexfs.packages",
            DownloadFailed,
            "the package sources in the disk's /etc/apt",
        ),
    ],
    ids=["no kernel", "no cloud-init", "unreachable archive"],
)
def test_what_can_not_be_done_is_said_clearly(
    place: Place,
    ours: Path,
    tmp_path: Path,
    script: str,
    stage: str,
    error: type[VmbakeError],
    said: str,
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    base = tmp_path / "disk.qcow2"
    foreign_disk.changed(ours, base, script, share)
    _, err = place.inv(stage, base=base, status=error.exit_code)
    assert said.format(base) in " ".join(err.split())
    assert "Traceback" not in err


def test_a_disk_of_another_layout_is_refused_at_once(place: Place, tmp_path: Path) -> None:
    made = tmp_path / "disk.raw"
    with made.open("wb") as stream:
        stream.truncate(64 << 20)
    tiny_root.run("sfdisk", "--quiet", made, text="label: gpt\nstart=2048,type=lvm\n")
    _, err = place.inv("vexfs.image", base=made, status=BadInput.exit_code)
    assert "holds nothing known, not ext4" in " ".join(err.split())
    assert "--engine vm" in err
