"""The native engine's layer: what it asks for, and how its failures are told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tasks.core.errors import CommandFailed, MachineFailed, NoRoom
from tasks.core.process import Runner
from tasks.guest import mounter, native
from tasks.guest.native import DAEMON_DIED, Inside, obstacles, run_in_disk, run_with_toolchain

ROOT_STATUS = "Name:\tpython\nCapEff:\t000001ffffffffff\n"
WEAK_STATUS = "Name:\tpython\nCapEff:\t00000000a80425fb\n"


@pytest.fixture
def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(native, "find_tool", lambda name: Path("/bin") / name)
    path = tmp_path / "status"
    path.write_text(ROOT_STATUS)
    return path


def test_nothing_is_missing(status: Path) -> None:
    assert obstacles(devices=(Path("/dev/null"),), status=status) == []


def test_what_is_missing_is_named(status: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "find_tool", lambda name: None)
    found = obstacles(devices=(Path("/dev/no-fuse"),), status=status)
    assert found == ["/dev/no-fuse", *(f"the program {tool}" for tool in mounter.KERNEL.tools)]
    assert obstacles(platform="darwin") == ["Linux"]


def test_root_of_a_container_may_lack_the_right_to_mount(
    status: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ["the right to mount (root with CAP_SYS_ADMIN)"]
    status.write_text(WEAK_STATUS)
    assert obstacles(devices=(), status=status) == wanted
    status.unlink()
    assert obstacles(devices=(), status=status) == wanted


@pytest.fixture
def ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the subordinate IDs of somebody."""
    monkeypatch.setattr(mounter, "user_name", lambda: "somebody")
    monkeypatch.setattr(mounter, "namespace_refusal", lambda: "")
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("somebody:100000:65536\n")
    return tmp_path


def test_an_ordinary_user_needs_subordinate_ids(ids: Path) -> None:
    none = ids / "status"
    assert mounter.missing_rights(mounter.FUSE2FS, none, ids) == []
    (ids / "subgid").write_text("other:100000:65536\n")
    (missing,) = mounter.missing_rights(mounter.FUSE2FS, none, ids)
    assert "for somebody in" in missing
    assert "subgid" in missing
    assert "sudo usermod --add-subuids 165536-231071" in missing


def test_an_ordinary_user_needs_user_namespaces(ids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounter, "namespace_refusal", lambda: "unshare: not here")
    found = mounter.missing_rights(mounter.FUSE2FS, ids / "status", ids)
    assert found == ["user namespaces (unshare: not here)"]


def test_the_way_goes_with_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert mounter.choose() is mounter.KERNEL
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert mounter.choose() is mounter.FUSE2FS


class FakeRunner:
    """Takes one command and fails as told."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.argv: list[str] = []
        self.env: dict[str, str] = {}

    def run(
        self,
        argv: list[Any],
        *,
        env: dict[str, str] | None = None,
        timeout_s: float,
        on_line: Callable[[str], None],
    ) -> None:
        self.argv, self.env = [str(word) for word in argv], env or {}
        if self.status:
            raise CommandFailed("unshare failed.", status=self.status, tail=("last words",))


def run(tmp_path: Path, runner: FakeRunner, **words: Any) -> None:
    share = tmp_path / "share"
    share.mkdir()
    inside = Inside(script="true", share=share, hostname="box", cmdline="a=b", **words)
    run_in_disk(
        tmp_path / "disk.qcow2",
        inside,
        tmp_path,
        runner=cast("Runner", runner),
        timeout_s=5,
        on_line=lambda line: None,
    )


def test_the_container_is_described_in_the_shared_folder(tmp_path: Path) -> None:
    runner = FakeRunner()
    run(tmp_path, runner, env={"X": "y"})
    share = tmp_path / "share"
    assert {path.name: path.read_text() for path in share.iterdir()} == {
        "inside.sh": "true",
        "hostname": "box\n",
        "cmdline": "a=b\n",
    }
    assert runner.argv[-5:-1] == [
        *(str(tmp_path / "disk.qcow2"), str(tmp_path / "native"), "no", str(share)),
    ]
    assert runner.argv[-1] == mounter.choose().name
    # Whoever is killed takes all of it along.
    assert runner.argv[:3] == ["setpriv", "--pdeathsig", "KILL"]
    assert "--kill-child" in runner.argv
    assert runner.env["X"] == "y"


def test_network_is_given_only_if_asked_for(tmp_path: Path) -> None:
    runner = FakeRunner()
    run(tmp_path, runner, network=True)
    assert runner.argv[-3] == "yes"


def test_the_death_of_the_daemon_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed, match="daemon") as caught:
        run(tmp_path, FakeRunner(DAEMON_DIED))
    assert caught.value.tail == ("last words",)


def test_whatever_fails_on_a_full_disk_fails_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "FULL_BYTES", 1 << 62)
    with pytest.raises(NoRoom, match="The disk filled up") as caught:
        run(tmp_path, FakeRunner(1))
    assert caught.value.tail == ("last words",)


def test_a_failed_script_is_a_failed_command(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        run(tmp_path, FakeRunner(1))
    assert caught.value.status == 1


def test_whoever_compiles_gets_copies_of_what_is_cached(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("objects")
    runner = FakeRunner()
    results = run_with_toolchain(
        tmp_path / "toolchain.squashfs",
        tmp_path / "source",
        "true",
        tmp_path,
        cached={"objects.tar.zst": tmp_path / "kept"},
        runner=cast("Runner", runner),
        timeout_s=5,
        on_line=lambda line: None,
    )
    room = Path(runner.argv[-3])
    copy = room / "tmp" / "cache" / "objects.tar.zst"
    assert (copy.read_text(), results) == ("objects", room / "results")
    assert not copy.samefile(tmp_path / "kept")
