"""The seed of the build VM: its text against golden files, and the ISO that carries it.

After a wanted change, write the golden files anew: UPDATE_GOLDEN=1 pytest tests/unit/test_seed.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from pycdlib import pycdlib

from tasks.core.process import Runner
from tasks.guest import cloudconfig
from tasks.guest.iso import write_seed
from tasks.vexfs import bases, seed
from tasks.vexfs.options import CLOUD_INIT

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
VARIANTS = ("minimal", "development", "production")
NAMES = {"user-data", "meta-data", "network-config"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "user_key.pub").write_text("ssh-ed25519 AAAAuser vmbake user key\n")
    (folder / "host_key").write_text("THE HOST KEY OF THE TESTS\nits second line\n")
    (folder / "host_key.pub").write_text("ssh-ed25519 AAAAhost vmbake host key\n")
    (folder / "user_key").write_text("SECRET\n")
    return folder


def render(keys: Path, variant: str, base: str = "debian-13", **words: Any) -> dict[str, bytes]:
    wanted: dict[str, Any] = {"version": "1.0.0", "bootstrapped": base in bases.DEBIAN} | words
    return seed.render(variant=variant, keys=keys, **wanted)


@pytest.mark.parametrize("variant", VARIANTS)
def test_user_data_is_as_it_was(keys: Path, variant: str) -> None:
    text = render(keys, variant)["user-data"].decode()
    golden = GOLDEN / f"user-data-{variant}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_meta_data_and_network_are_what_cloud_init_reads(keys: Path) -> None:
    files = render(keys, "minimal")
    assert set(files) == NAMES
    meta = yaml.safe_load(files["meta-data"])
    assert meta["instance-id"].startswith("vexfs-minimal-")
    assert meta["local-hostname"] == "vexfs"
    assert yaml.safe_load(files["network-config"])["version"] == 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_a_guest_there_is_no_way_in_and_nothing_else_differs(
    keys: Path, variant: str
) -> None:
    text = seed.render(variant=variant, version="1.0.0", keys=None, bootstrapped=True)["user-data"]
    native = yaml.safe_load(text)
    guest = yaml.safe_load(render(keys, variant)["user-data"])
    assert guest["users"][0].pop("ssh_authorized_keys")
    assert native.pop("ssh_genkeytypes") == ["ed25519"]
    # What announces the end of a boot, and what needs a kernel that runs for the image.
    assert native.pop("runcmd") == [["systemctl", "enable", "vexfs.service"]]
    for name in ("ssh_keys", "runcmd"):
        del guest[name]
    assert native == guest


def test_other_user_data_are_another_instance(keys: Path) -> None:
    ids = {
        yaml.safe_load(render(keys, variant, version=version)["meta-data"])["instance-id"]
        for variant in VARIANTS
        for version in ("1.0.0", "1.0.1")
    }
    assert len(ids) == 6
    assert render(keys, "minimal") == render(keys, "minimal")


def test_the_way_in_is_public_only(keys: Path) -> None:
    files = render(keys, "minimal")
    assert b"SECRET" not in b"".join(files.values())
    (user,) = yaml.safe_load(files["user-data"])["users"]
    assert user["ssh_authorized_keys"] == ["ssh-ed25519 AAAAuser vmbake user key"]


def test_cloud_init_installs_what_the_base_lacks(keys: Path) -> None:
    debian = yaml.safe_load(render(keys, "production")["user-data"])
    assert not {"packages", "package_update"} & set(debian)
    ubuntu = yaml.safe_load(render(keys, "production", base="ubuntu-24.04")["user-data"])
    assert ubuntu["packages"] == list(cloudconfig.packages_of(CLOUD_INIT, "production"))
    assert ubuntu["package_update"] is True
    words: dict[str, Any] = {"more_packages": ("clang", "bc"), "renamed": {"clang": "clang-18"}}
    more = yaml.safe_load(render(keys, "minimal", **words)["user-data"])
    assert more["packages"] == ["bc", "clang-18"]


def test_keys_are_new_and_private(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "log")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        seed.make_keys(tmp_path / name, runner)
    made = tmp_path / "one"
    assert {path.name for path in made.iterdir()} == {
        *("user_key", "user_key.pub", "host_key", "host_key.pub"),
    }
    for name in ("user_key", "host_key"):
        assert (made / name).stat().st_mode & 0o777 == 0o600
        assert (made / name).read_text() != (tmp_path / "two" / name).read_text()
    assert (made / "user_key").read_text() not in runner.log.read_text()
    files = seed.render(variant="minimal", version="1", keys=made)
    private = yaml.safe_load(files["user-data"])["ssh_keys"]["ed25519_private"]
    assert private.strip() == (made / "host_key").read_text().strip()


def read(path: Path) -> tuple[str, dict[str, tuple[int, bytes]]]:
    """Label, and mode and content by name, as both file systems of the volume give them."""
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    label = iso.pvd.volume_identifier.decode().strip()
    found = {}
    for child in iso.list_children(rr_path="/"):
        if child.is_file():
            name = child.rock_ridge.name().decode()
            content, joliet = BytesIO(), BytesIO()
            iso.get_file_from_iso_fp(content, rr_path=f"/{name}")
            iso.get_file_from_iso_fp(joliet, joliet_path=f"/{name}")
            assert content.getvalue() == joliet.getvalue()
            found[name] = child.rock_ridge.get_file_mode(), content.getvalue()
    iso.close()
    return label, found


def test_the_iso_is_a_nocloud_seed(keys: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    files = render(keys, "production")
    seed.write(out, files)
    label, found = read(out / "seed.iso")
    assert label.lower() == "cidata"
    assert found == {name: (0o100600, content) for name, content in files.items()}
    assert {path.name for path in out.iterdir()} == {"seed.iso", *NAMES}
    for path in out.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    for name in NAMES:
        assert (out / name).read_bytes() == files[name]


def test_same_content_same_iso(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = render(keys, "minimal")
    write_seed(tmp_path / "first.iso", files)
    # Another day, another summer time, another place, another order.
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 200 * 86400)
    monkeypatch.setenv("TZ", "Pacific/Chatham")
    time.tzset()
    try:
        write_seed(tmp_path / "second.iso", dict(reversed(files.items())))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (tmp_path / "first.iso").read_bytes() == (tmp_path / "second.iso").read_bytes()
    write_seed(tmp_path / "third.iso", files | {"user-data": b"#cloud-config\n"})
    assert (tmp_path / "first.iso").read_bytes() != (tmp_path / "third.iso").read_bytes()


def test_another_process_makes_the_same(keys: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tasks.vexfs import bases, seed\n"
        "keys, out = map(Path, sys.argv[1:])\n"
        "seed.write(out, seed.render(variant='development', version='1.0.0', keys=keys,\n"
        "    bootstrapped=True))"
    )
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        folder.mkdir()
    seed.write(mine, render(keys, "development"))
    subprocess.run(
        [sys.executable, "-c", script, keys, other],
        cwd=ROOT,
        env={**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "LANG": "tr_TR.UTF-8"},
        check=True,
    )
    assert (mine / "seed.iso").read_bytes() == (other / "seed.iso").read_bytes()
