"""One recipe, two engines: the same image comes out of a guest and out of this host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.process import Runner
from tasks.guest import native
from tasks.qemu import disk
from tasks.vexfs import building
from tests.e2e.test_minimal_image import ROOT, inv
from tests.standins import allocation, trees

pytestmark = pytest.mark.e2e

# Run by the image's own Python, in the image.
LOOK = """
import hashlib, json, os, stat, subprocess
tree = {}
top = os.lstat("/").st_dev
for folder, names, files in os.walk("/"):
    names[:] = [name for name in names if os.lstat(os.path.join(folder, name)).st_dev == top]
    for name in [*names, *files]:
        path = os.path.join(folder, name)
        seen = os.lstat(path)
        what = {"mode": stat.filemode(seen.st_mode), "owner": [seen.st_uid, seen.st_gid]}
        what["xattrs"] = {
            key: os.getxattr(path, key, follow_symlinks=False).hex()
            for key in os.listxattr(path, follow_symlinks=False)
        }
        if stat.S_ISLNK(seen.st_mode):
            what["target"] = os.readlink(path)
        elif stat.S_ISREG(seen.st_mode):
            with open(path, "rb") as stream:
                what["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
        tree[path] = what
def said(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
found = {
    "tree": tree,
    "packages": said("dpkg-query", "-W", "-f", "${binary:Package} ${Version} ${Status}\\n"),
    "units": said("systemctl", "--root=/", "list-unit-files", "--no-legend"),
}
with open("/run/vmbake/found.json", "w") as out:
    json.dump(found, out)
"""


def inside(image: Path, folder: Path) -> Any:
    """Everything that a sealed disk has in its root file system."""
    share = folder / "share"
    share.mkdir(parents=True)
    (share / "look.py").write_text(LOOK)
    runner = Runner(folder / "log")
    overlay = folder / "disk.qcow2"
    disk.create_overlay(runner, overlay, backing=image, backing_format="qcow2")
    native.run_in_disk(
        overlay,
        native.Inside(script="python3 -I /run/vmbake/look.py", share=share, hostname="look"),
        folder,
        runner=runner,
        timeout_s=600,
        on_line=lambda line: None,
    )
    return json.loads((share / "found.json").read_text())


def sealed(engine: str, variant: str = "minimal") -> Path:
    out, _ = inv("vexfs.seal", "--engine", engine, "--variant", variant)
    return next(ROOT / line for line in out.split() if line.endswith(".qcow2"))


def test_both_engines_make_the_same_image(tmp_path: Path) -> None:
    guest, host = (inside(sealed(engine), tmp_path / engine) for engine in ("vm", "native"))
    assert guest["packages"] == host["packages"]
    assert guest["units"] == host["units"]
    assert "vexfs.service enabled" in " ".join(" ".join(host["units"]).split())
    assert len(guest["tree"]) > 5000
    compared = trees.compare(guest["tree"], host["tree"], trees.allowed("minimal"))
    assert compared.different == {}
    assert compared.unused == frozenset(), "nothing differs there any more"


def test_neither_engine_keeps_what_was_deleted(tmp_path: Path) -> None:
    for engine in ("vm", "native"):
        folder = tmp_path / engine
        folder.mkdir()
        kept = allocation.look(sealed(engine), folder)
        assert len(kept.deleted) < len(kept.stored) / 100, engine


def test_the_frozen_build_machine_can_be_had_by_loadvm_too(tmp_path: Path) -> None:
    """The classic snapshot, in its disk."""
    out, _ = inv("vexfs.savevm", "--engine", "vm")
    frozen = next(ROOT / line for line in out.split() if line.endswith(building.MACHINE_DISK))
    words: list[str | Path] = ["qemu-img", "info", "--output=json", "-f", "qcow2", frozen]
    (snapshot,) = json.loads(Runner(tmp_path / "log").output(words))["snapshots"]
    assert snapshot["name"] == building.TAG
    assert snapshot["vm-state-size"] > 100 << 20, "it has no RAM"


def test_packages_are_installed_natively_over_the_base_of_all_variants(tmp_path: Path) -> None:
    """What a guest would have got in its base: production has packages of its own."""
    found = inside(sealed("native", "production"), tmp_path / "production")
    names = {line.split()[0].partition(":")[0] for line in found["packages"]}
    assert {"logrotate", "rsyslog", "unattended-upgrades"} <= names
    assert all(line.endswith("install ok installed") for line in found["packages"])
    units = " ".join(" ".join(found["units"]).split())
    assert "rsyslog.service enabled" in units
    for gone in ("/usr/sbin/policy-rc.d", "/var/lib/cloud", "/etc/ssh/ssh_host_ed25519_key"):
        assert gone not in found["tree"]
    assert not [path for path in found["tree"] if path.startswith("/var/lib/apt/lists/")]
    _, err = inv("vexfs.seal", "--engine", "native", "--variant", "minimal")
    assert "vexfs.build-cloudimg: started" not in err
