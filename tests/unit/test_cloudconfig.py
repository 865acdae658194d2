"""The templates in cloud-init/: what each variant has and hasn't, and what a mistake gets."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core.errors import BadInput
from tasks.guest import cloudconfig
from tasks.guest.cloudconfig import Variant, merge, packages_of, render_file, render_variant
from tasks.vexfs.options import CLOUD_INIT, OPTIONS

VALUES = {
    "variant": "minimal",
    "version": "1.2.3",
    "hostname": "vexfs",
    "instance_id": "vexfs-1",
    "public_key": "ssh-ed25519 AAAA user",
    "host_key": "first line\nsecond line\n",
    "host_key_public": "ssh-ed25519 AAAA host",
    "full_disk": "yes",
    "in_guest": "yes",
}
VARIANTS = ("minimal", "development", "production")
TEMPLATES = sorted(
    path.relative_to(CLOUD_INIT)
    for path in CLOUD_INIT.rglob("*")
    if path.is_file() and path.name != "README.md"
)
# Files that only one variant has.
OWN_FILES = {
    "minimal": set[str](),
    "development": {"/etc/sysctl.d/90-vexfs-development.conf"},
    "production": {
        "/etc/apt/apt.conf.d/20auto-upgrades",
        "/etc/logrotate.d/vexfs",
        "/etc/ssh/sshd_config.d/10-vexfs-hardening.conf",
        "/etc/sysctl.d/90-vexfs-hardening.conf",
    },
}
OWN_PACKAGES = {
    "minimal": set[str](),
    "development": {"build-essential", "cargo", "rustc", "vim", "gdb", "strace", "htop", "tree"},
    "production": {"rsyslog", "logrotate", "unattended-upgrades"},
}


@functools.cache
def rendered(variant: str) -> Variant:
    return render_variant(CLOUD_INIT, variant, VALUES | {"variant": variant})


def files(variant: str) -> dict[str, dict[str, Any]]:
    return {entry["path"]: entry for entry in rendered(variant).config["write_files"]}


def settings(variant: str, path: str, separator: str) -> dict[str, str]:
    """The `key separator value` lines of a file."""
    lines = files(variant)[path]["content"].splitlines()
    pairs = (line.split(separator, 1) for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def test_the_variants_are_the_option_s_choices() -> None:
    assert sorted(VARIANTS) == sorted(OPTIONS["variant"].choices)
    assert cloudconfig.variants(CLOUD_INIT) == tuple(sorted(VARIANTS))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_has_its_own_and_nothing_of_another(variant: str) -> None:
    packages, paths = set(rendered(variant).packages), set(files(variant))
    assert OWN_PACKAGES[variant] <= packages
    assert OWN_FILES[variant] <= paths
    for other in set(VARIANTS) - {variant}:
        assert not OWN_PACKAGES[other] & packages
        assert not OWN_FILES[other] & paths
        assert other not in yaml.safe_dump(rendered(variant).config["write_files"])
    assert f"VexFS 1.2.3 ({variant})" in files(variant)["/etc/vexfs/vexfs.conf"]["content"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_what_the_image_needs(variant: str) -> None:
    found = files(variant)
    for path in (
        *("/etc/vexfs/vexfs.conf", "/etc/modules-load.d/vexfs.conf"),
        *("/etc/systemd/system/vexfs.service", "/etc/tmpfiles.d/vexfs.conf"),
    ):
        assert found[path]["permissions"] == "0644"
    assert found["/usr/local/bin/vexfs-mount-helper"]["permissions"] == "0755"
    assert "/var/log/vexfs.log" in found["/etc/tmpfiles.d/vexfs.conf"]["content"]
    config = rendered(variant).config
    assert config["runcmd"][0] == ["systemctl", "enable", "vexfs.service"]
    assert config["disable_root"] is True
    sshd = settings(variant, "/etc/ssh/sshd_config.d/10-vexfs.conf", " ")
    assert sshd == {"PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no"}
    assert [user["name"] for user in config["users"]] == ["vmbake"]
    assert config["users"][0]["lock_passwd"] is True
    assert config["ssh_keys"]["ed25519_private"] == VALUES["host_key"]
    assert "packages" not in config


def test_production_is_hardened() -> None:
    sshd = settings("production", "/etc/ssh/sshd_config.d/10-vexfs-hardening.conf", " ")
    for setting in ("PermitRootLogin", "PermitEmptyPasswords", "X11Forwarding"):
        assert sshd[setting] == "no"
    kernel = settings("production", "/etc/sysctl.d/90-vexfs-hardening.conf", "=")
    assert kernel["kernel.kptr_restrict"] == "2"
    assert kernel["kernel.dmesg_restrict"] == "1"
    assert kernel["fs.protected_symlinks"] == "1"
    assert kernel["net.ipv4.conf.all.accept_redirects"] == "0"
    assert kernel["net.ipv4.tcp_syncookies"] == "1"
    apt = settings("production", "/etc/apt/apt.conf.d/20auto-upgrades", " ")
    assert apt["APT::Periodic::Unattended-Upgrade"] == '"1";'
    assert "/var/log/vexfs.log {" in files("production")["/etc/logrotate.d/vexfs"]["content"]
    assert ["sysctl", "--system"] in rendered("production").config["runcmd"]


def test_development_logs_more() -> None:
    conf = "/etc/vexfs/vexfs.conf"
    levels = {variant: settings(variant, conf, "=")["LOG_LEVEL"] for variant in VARIANTS}
    assert levels == {"minimal": "info", "development": "debug", "production": "info"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_text_reads_back_as_the_config(variant: str) -> None:
    config = rendered(variant).config
    text = cloudconfig.user_data(config)
    assert text.startswith("#cloud-config\n")
    assert yaml.safe_load(text) == config
    assert text.count("content: |") == len(config["write_files"]), "files are to be readable"


@pytest.mark.parametrize("variant", VARIANTS)
def test_shell_files_are_valid(variant: str) -> None:
    for path, entry in files(variant).items():
        if entry["content"].startswith("#!/bin/sh"):
            subprocess.run(["sh", "-n"], input=entry["content"], text=True, check=True)
        if entry["content"].startswith("#!/usr/bin/python3"):
            compile(entry["content"], path, "exec")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CLOUD_INIT, tmp_path / "cloud-init"))


def render_all(folder: Path, part: str) -> None:
    """Render a variant, or what all have, or one file."""
    if (folder / part).is_file():
        render_file(folder / part, VALUES)
    else:
        render_variant(folder, "minimal" if part == cloudconfig.COMMON else part, VALUES)


@pytest.mark.parametrize("template", TEMPLATES, ids=str)
def test_an_unknown_value_names_file_and_value(copy: Path, template: Path) -> None:
    path = copy / template
    path.write_text(path.read_text() + "# {{ colour }}\n")
    with pytest.raises(BadInput) as caught:
        render_all(copy, template.parts[0])
    assert str(path) in caught.value.what
    assert "'colour' is undefined" in caught.value.what
    assert "host_key_public" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("packages: [", "is not YAML"),
        ("- a\n- b\n", "a map of keys was expected"),
        ("{% if %}", "can't be rendered"),
        ("x: {{ version", "can't be rendered"),
    ],
)
def test_a_broken_template_is_bad_input(copy: Path, text: str, said: str) -> None:
    path = copy / "minimal" / "user-data.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=said) as caught:
        render_variant(copy, "minimal", VALUES)
    assert str(path) in caught.value.what


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("packages:\n  - vim\n  # why\n\n  - gdb\nother: {{ version }}\n", ("gdb", "vim")),
        ("a: 1\npackages:\n- vim\n- gdb\nruncmd:\n- x\n", ("gdb", "vim")),
        ("packages: [vim, gdb, vim]\n", ("gdb", "vim")),
        ("packages: []\n", ()),
        ("packages:\n", ()),
        ("runcmd:\n  - packages\n", ()),
    ],
)
def test_packages_are_read_without_rendering(copy: Path, text: str, names: tuple[str, ...]) -> None:
    (copy / "minimal" / "user-data.yaml").write_text(text)
    assert packages_of(copy, "minimal") == names


def test_maps_merge_lists_append_values_replace() -> None:
    under = {"map": {"a": 1, "b": [1]}, "list": [1], "value": 1, "left": 0}
    over = {"map": {"b": [2], "c": 3}, "list": [2], "value": [2]}
    assert merge(under, over) == {
        "map": {"a": 1, "b": [1, 2], "c": 3},
        "list": [1, 2],
        "value": [2],
        "left": 0,
    }
    assert under["list"] == [1]


def test_a_variant_s_file_replaces_the_common_one(copy: Path) -> None:
    own = copy / "minimal" / "files" / "etc" / "vexfs" / "vexfs.conf"
    own.parent.mkdir(parents=True)
    own.write_text("own {{ version }}\n")
    own.chmod(0o755)
    config = render_variant(copy, "minimal", VALUES).config
    paths = [entry["path"] for entry in config["write_files"]]
    assert paths == sorted(set(paths))
    (entry,) = (e for e in config["write_files"] if e["path"] == "/etc/vexfs/vexfs.conf")
    assert (entry["content"], entry["permissions"]) == ("own 1.2.3\n", "0755")
    assert os.access(CLOUD_INIT / "common/files/usr/local/bin/vexfs-mount-helper", os.X_OK)
