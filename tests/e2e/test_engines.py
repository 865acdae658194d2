"""One recipe, two engines: the same image comes out of a guest and out of this host."""

from __future__ import annotations

import json
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from tasks.core.process import Runner
from tasks.guest import native
from tasks.qemu import disk
from tests.e2e.test_minimal_image import ROOT, inv

pytestmark = pytest.mark.e2e

DIFFERENCES = Path(__file__).with_name("differences.toml")
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


def allowed_to_differ(path: str) -> bool:
    """Whether a file may be another one in each build."""
    entries = tomllib.loads(DIFFERENCES.read_text())["difference"]
    return any(fnmatch(path, entry["path"]) for entry in entries)


def test_both_engines_make_the_same_image(tmp_path: Path) -> None:
    guest, host = (inside(sealed(engine), tmp_path / engine) for engine in ("vm", "native"))
    assert guest["packages"] == host["packages"]
    assert guest["units"] == host["units"]
    assert "vexfs.service enabled" in " ".join(" ".join(host["units"]).split())
    paths = guest["tree"].keys() | host["tree"].keys()
    assert len(paths) > 5000
    different = {
        path: (guest["tree"].get(path), host["tree"].get(path))
        for path in sorted(paths)
        if guest["tree"].get(path) != host["tree"].get(path) and not allowed_to_differ(path)
    }
    assert different == {}


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
