from __future__ import annotations

import io
import struct
import tarfile
import uuid
from pathlib import Path

import pytest

from tasks.core.errors import (
    BadInput,
    CannotRun,
    CommandFailed,
    DownloadFailed,
    NoRoom,
    VerificationFailed,
    VmbakeError,
)
from tasks.core.events import Silent
from tasks.core.process import Runner
from tasks.guest.bootstrap import (
    bootstrap,
    explain,
    missing_sub_ids,
    mmdebstrap_argv,
    source_lines,
    sub_ids_fix,
)
from tasks.guest.debian import DebianSpec, base_call, check_spec, installed_packages
from tasks.guest.partition import (
    MIB,
    SECTOR_BYTES,
    derive_ids,
    patch_boot_sector,
    patch_core,
    plan_layout,
    sfdisk_script,
)
from tasks.guest.rootfs import Boot, fstab, grub_cfg, pack, root_files, search_cfg
from tasks.guest.scratch import LOCK, PREFIX, choose_place, scratch
from tasks.guest.toolchain import toolchain_call

IDS = derive_ids("test")


def boot_img() -> bytes:
    """A boot sector of recognisable bytes."""
    return bytes(index % 251 for index in range(SECTOR_BYTES - 2)) + b"\x55\xaa"


def core_img(sectors: int, tail: int = 0, *, segment: int = 0x820, length: int = -1) -> bytes:
    """A core.img as grub-mkimage leaves it."""
    first = bytes(500) + struct.pack("<QHH", 2, sectors if length < 0 else length, segment)
    return first + b"\xaa" * (sectors * SECTOR_BYTES - tail)


class TestLayout:
    def test_root_is_last_and_all_is_aligned(self) -> None:
        layout = plan_layout(10 << 30)
        extents = [layout.bios, layout.esp, layout.root]
        ends = [extent.start_bytes + extent.size_bytes for extent in extents]
        assert [extent.start_bytes % MIB for extent in extents] == [0, 0, 0]
        assert extents[0].start_bytes == MIB
        assert ends[:2] == [layout.esp.start_bytes, layout.root.start_bytes]
        assert ends[2] == layout.disk_bytes - MIB

    @pytest.mark.parametrize("size_bytes", [0, 511 * MIB, (10 << 30) + 1, -MIB])
    def test_impossible_sizes(self, size_bytes: int) -> None:
        with pytest.raises(BadInput, match="whole MiB"):
            plan_layout(size_bytes)

    def test_sfdisk_script(self) -> None:
        assert sfdisk_script(plan_layout(1 << 30), IDS) == (
            "label: gpt\n"
            "label-id: 4c7f40ab-e34b-530b-91b7-7daac1da2773\n"
            "unit: sectors\n"
            "first-lba: 2048\n"
            "1 : start=135168, size=1959936, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, "
            f'uuid={IDS.root}, name="root"\n'
            "14 : start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, "
            f'uuid={IDS.bios}, name="bios"\n'
            "15 : start=4096, size=131072, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, "
            f'uuid={IDS.esp}, name="esp"\n'
        )


class TestIds:
    def test_same_seed_same_ids(self) -> None:
        assert derive_ids("test") == IDS

    def test_all_differ(self) -> None:
        values = set(vars(IDS).values())
        assert len(values) == len(vars(IDS))
        assert not values & set(vars(derive_ids("other")).values())

    def test_forms(self) -> None:
        assert uuid.UUID(IDS.root_fs).version == 5
        assert len(IDS.esp_fs) == 8
        assert IDS.esp_uuid == f"{IDS.esp_fs[:4]}-{IDS.esp_fs[4:]}".upper()


class TestBootSector:
    def test_changes_only_where_core_lies_and_the_drive_check(self) -> None:
        before = boot_img()
        after = patch_boot_sector(before, 0x1122334455)
        assert len(after) == 440
        assert after[0x5C:0x64] == bytes.fromhex("5544332211000000")
        assert after[0x66:0x68] == b"\x90\x90"
        assert after[:0x5C] == before[:0x5C]
        assert after[0x64:0x66] == before[0x64:0x66]
        assert after[0x68:] == before[0x68:440]

    @pytest.mark.parametrize("image", [b"", boot_img()[:-1], bytes(512), boot_img() * 2])
    def test_refuses_anything_else(self, image: bytes) -> None:
        with pytest.raises(BadInput, match=r"boot\.img"):
            patch_boot_sector(image, 2048)


class TestCore:
    @pytest.mark.parametrize("tail", [0, 1, 511])
    def test_the_rest_follows_the_first_sector(self, tail: int) -> None:
        before = core_img(7, tail)
        after = patch_core(before, 2048, MIB)
        assert struct.unpack_from("<QHH", after, 500) == (2049, 7, 0x820)
        assert after[:500] == before[:500]
        assert after[512:] == before[512:]

    @pytest.mark.parametrize(
        "image",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(bytes(512), id="one sector"),
            pytest.param(core_img(7, segment=0x1000), id="another segment"),
            pytest.param(core_img(7, length=6), id="another length"),
            pytest.param(core_img(2048), id="larger than the partition"),
        ],
    )
    def test_refuses_anything_else(self, image: bytes) -> None:
        with pytest.raises(BadInput, match=r"core\.img"):
            patch_core(image, 2048, MIB)


class TestRootFiles:
    def test_fstab_names_uuids_only(self) -> None:
        assert fstab(IDS).splitlines() == [
            f"UUID={IDS.root_fs} / ext4 errors=remount-ro,discard 0 1",
            f"UUID={IDS.esp_uuid} /boot/efi vfat umask=0077,nofail 0 0",
        ]

    def test_grub_finds_root_by_its_uuid(self) -> None:
        assert search_cfg(IDS).startswith(f"search.fs_uuid {IDS.root_fs} root\n")
        text = grub_cfg(IDS)
        assert f"linux /boot/vmlinuz-@RELEASE@ root=UUID={IDS.root_fs} ro " in text
        assert "console=ttyS0,115200" in text
        assert "set timeout=0\n" in text

    def test_archive_is_roots_and_always_the_same(self) -> None:
        files = root_files(Boot(hostname="test", ids=IDS))
        data = pack(files)
        assert data == pack(dict(reversed(files.items())))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = {member.name: member for member in archive}
            assert set(members) == set(files)
            assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {
                (0, 0, 0)
            }
            fd = archive.extractfile("etc/hostname")
            assert fd is not None
            assert fd.read() == b"test\n"


class TestCommandLine:
    def test_base(self) -> None:
        spec = DebianSpec(release="trixie", packages=("rsyslog",))
        included = (
            "linux-image-cloud-amd64,initramfs-tools,zstd,systemd-sysv,"
            "systemd-resolved,systemd-timesyncd,udev,dbus,cloud-init,cloud-guest-utils,"
            "openssh-server,sudo,iproute2,netbase,ca-certificates,e2fsprogs,grub-cloud-amd64,"
            "rsyslog"
        )
        both = 'sh /w/save-headers "$1" & chroot "$1" sh /tmp/vmbake/customize && wait "$!"'
        argv = mmdebstrap_argv(base_call(spec, Path("/w"), "unshare"), Path("/w/root"))
        assert argv == (
            "mmdebstrap",
            "--verbose",
            "--mode=unshare",
            "--variant=apt",
            "--format=directory",
            "--architectures=amd64",
            '--aptopt=APT::Install-Recommends "false"',
            '--aptopt=Acquire::Languages "none"',
            '--aptopt=Acquire::Retries "3"',
            '--setup-hook=sh /w/merge-usr "$1"',
            "--setup-hook=tar-in /w/setup.tar /",
            '--setup-hook=ln -s ../bin/true "$1/usr/sbin/update-ca-certificates"',
            "--customize-hook=tar-in /w/files.tar /",
            f"--customize-hook={both}",
            '--customize-hook=tar -C "$1/tmp/vmbake" -cf /w/out.tar out',
            f"--include={included}",
            "trixie",
            "/w/root",
        )

    def test_toolchain_only_unpacks(self) -> None:
        call = toolchain_call("bookworm", ["gcc", "make", "gcc"], None, Path("/w"), "root")
        argv = mmdebstrap_argv(call, Path("/w/root"))
        assert "--variant=custom" in argv
        assert not [word for word in argv if word.startswith("--include")]
        # Only root needs help to have its mounts and processes end with it.
        assert argv[:6] == ("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount")
        hooks = [word for word in argv if word.startswith("--customize-hook")]
        assert hooks == [
            '--customize-hook=bash /w/unpack "$1" /w/headers gcc make',
            '--customize-hook=sh /w/finish "$1"',
        ]

    def test_what_is_left_of_it_goes_with_its_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program, work = tmp_path / "bin" / "mmdebstrap", tmp_path / "work"
        program.parent.mkdir()
        work.mkdir()
        program.write_text("#!/bin/sh\nmktemp -t mmdebstrap.XXXX\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        call = toolchain_call("trixie", ["gcc"], None, work, "unshare")
        bootstrap(call, work / "root", runner=Runner(tmp_path / "log"), reporter=Silent())
        assert len(list(work.glob("mmdebstrap.*"))) == 1

    def test_mirror_brings_updates_and_security(self) -> None:
        mirror = "http://mirror.test/debian/"
        assert source_lines("bookworm", mirror) == [
            "deb http://mirror.test/debian bookworm main",
            "deb http://mirror.test/debian bookworm-updates main",
            "deb http://mirror.test/debian-security bookworm-security main",
        ]
        spec = DebianSpec(release="bookworm", mirror=mirror)
        argv = mmdebstrap_argv(base_call(spec, Path("/w"), "root"), Path("/w/root"))
        assert argv[-5:-3] == ("bookworm", "/w/root")


class TestSpec:
    @pytest.mark.parametrize(
        ("spec", "kind", "says"),
        [
            (DebianSpec(release="sid"), BadInput, "bookworm, trixie"),
            (DebianSpec(release="trixie", packages=("vim", "-oX=y")), BadInput, "'-oX=y'"),
            (DebianSpec(release="trixie", packages=("a,b",)), BadInput, "'a,b'"),
            (DebianSpec(release="trixie", hostname="a b"), BadInput, "'a b'"),
            (DebianSpec(release="trixie", size_bytes=1), BadInput, "whole MiB"),
            (DebianSpec(release="trixie", offline=True), CannotRun, "--offline"),
        ],
    )
    def test_refused_before_anything_runs(
        self, spec: DebianSpec, kind: type[VmbakeError], says: str
    ) -> None:
        with pytest.raises(kind, match=says):
            check_spec(spec)


class TestExplain:
    @pytest.mark.parametrize(
        ("line", "kind"),
        [
            ("E: Failed to fetch x  Temporary failure resolving 'm'\n", DownloadFailed),
            ("Err:1 http://m trixie InRelease\n  Could not connect to m:80\n", DownloadFailed),
            ("E: The repository 'x' does not have a Release file.\n", DownloadFailed),
            ("W: GPG error: x: NO_PUBKEY 6ED0E7B82643E131\n", VerificationFailed),
            ("E: The repository 'x' is not signed.\n", VerificationFailed),
            ("E: Unable to locate package nonsuch\n", BadInput),
            ("tar: a: Cannot write: No space left on device\n", NoRoom),
            ("E: setup failed: E: something\n", CommandFailed),
        ],
    )
    def test_names_the_cause(self, line: str, kind: type[VmbakeError], tmp_path: Path) -> None:
        error = CommandFailed("mmdebstrap failed.", log=tmp_path / "log", tail=("last",))
        told = explain(error, ["I: running apt-get update...\n", line])
        assert type(told) is kind
        assert (told.log, told.tail) == (error.log, error.tail)

    def test_a_missing_signature_is_no_network_failure(self) -> None:
        lines = ["W: GPG error: x: NO_PUBKEY 6E\n", "E: Failed to fetch y\n"]
        assert type(explain(CommandFailed("x"), lines)) is VerificationFailed


class TestSubIds:
    def test_has_them_by_name_or_number(self, tmp_path: Path) -> None:
        (tmp_path / "subuid").write_text("ann:100000:65536\n")
        (tmp_path / "subgid").write_text("1000:100000:65536\n")
        assert missing_sub_ids("ann", 1000, tmp_path) == []
        assert missing_sub_ids("ann", 1001, tmp_path) == [str(tmp_path / "subgid")]

    def test_too_few_or_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "subuid").write_text("ann:100000:1000\n")
        assert len(missing_sub_ids("ann", 1000, tmp_path)) == 2

    def test_the_fix_takes_a_free_range(self, tmp_path: Path) -> None:
        assert sub_ids_fix("bob", tmp_path) == (
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 bob"
        )
        (tmp_path / "subuid").write_text("ann:100000:65536\nbroken\n")
        assert sub_ids_fix("bob", tmp_path) == (
            "sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 bob"
        )


class TestPackages:
    def test_only_what_is_installed(self) -> None:
        status = (
            "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nDescription: x\n y: z\n\n"
            "Package: b\nStatus: deinstall ok config-files\nVersion: 1\n"
        )
        assert installed_packages(status) == {"a": "1:2-3"}


class TestScratch:
    def test_prefers_memory_and_goes_away(self, tmp_path: Path) -> None:
        memory, disk = tmp_path / "memory", tmp_path / "disk"
        memory.mkdir()
        disk.mkdir()
        with scratch(1, disk, memory=memory) as path:
            (path / "file").write_text("x")
            assert path.parent == memory
            assert path.stat().st_mode & 0o777 == 0o711
        assert list(memory.iterdir()) == []

    def test_disk_without_memory(self, tmp_path: Path) -> None:
        assert choose_place(1, tmp_path, tmp_path / "none") == tmp_path

    def test_no_room(self, tmp_path: Path) -> None:
        with pytest.raises(NoRoom, match="MiB are needed"):
            choose_place(1 << 60, tmp_path, tmp_path)

    def test_failed_removal_does_not_hide_the_error(self, tmp_path: Path) -> None:
        def fail(path: Path) -> None:
            raise PermissionError(path)

        with (
            pytest.raises(KeyError),
            scratch(1, tmp_path, memory=tmp_path, remove=fail),
        ):
            raise KeyError
        with pytest.raises(PermissionError), scratch(1, tmp_path, memory=tmp_path, remove=fail):
            pass

    def test_sweeps_the_dead_and_spares_the_living(self, tmp_path: Path) -> None:
        with scratch(1, tmp_path, memory=tmp_path) as living:
            dead = tmp_path / f"{PREFIX}{living.stat().st_uid}-dead"
            dead.mkdir()
            (dead / LOCK).touch()
            with scratch(1, tmp_path, memory=tmp_path):
                assert living.exists()
                assert not dead.exists()
