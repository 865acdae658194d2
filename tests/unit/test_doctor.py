"""The doctor's checks, each on a host that lacks just that thing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from tasks.core.capacity import memory_of_host
from tasks.core.process import Runner
from tasks.core.tools import catalog
from tasks.guest import native
from tasks.host import doctor, rights, room
from tasks.host.doctor import Needs, Report, examine
from tasks.host.finding import Outcome
from tasks.host.rights import bootstrap_rights, docker_engine
from tasks.host.room import disk_rooms, memory_room
from tasks.qemu.kvm import KvmHost

GIB = room.GIB


@dataclass(frozen=True, kw_only=True)
class Clinic:
    """A host that can do the job, until a test takes something away."""

    root: Path
    bin: Path
    needs: Needs
    runner: Runner

    def examine(self) -> Report:
        host = KvmHost(root=self.root, machine="x86_64", uid=0, groups=frozenset())
        return examine(self.needs, self.runner, host=host)

    def write(self, path: str, text: str = "") -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name in catalog():
        (fakes / name).write_text("#!/bin/sh\nexit 33\n")
        (fakes / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{fakes}:/usr/bin:/bin")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(doctor, "find_tool", lambda name: found_in(fakes, name))
    made = Clinic(
        root=tmp_path / "host",
        bin=fakes,
        needs=Needs(
            store=tmp_path / "work/store",
            output=tmp_path / "work/output",
            cache_dir=tmp_path / "cache",
            store_bytes=2 << 20,
            output_bytes=1 << 20,
        ),
        runner=Runner(tmp_path / "log"),
    )
    made.write("dev/kvm")
    made.write("proc/sys/kernel/random/boot_id", "a-boot\n")
    made.write("proc/meminfo", meminfo(8 * GIB, 6 * GIB))
    for table in doctor.file_tables().values():
        made.write(table["path"].lstrip("/"))
    return made


def found_in(folder: Path, name: str) -> Path | None:
    program = folder / name
    return program if program.exists() else None


def meminfo(total: int, available: int) -> str:
    return f"MemTotal: {total >> 10} kB\nMemFree: 1 kB\nMemAvailable: {available >> 10} kB\n"


def outcome(report: Report, name: str) -> tuple[Outcome, str, str]:
    [row] = [row for row in report.rows if row.name == name]
    return row.outcome, row.detail, row.fix


def test_a_fit_host_is_fit(clinic: Clinic) -> None:
    report = clinic.examine()
    assert report.ok
    assert [row.name for row in report.rows if row.outcome is Outcome.BROKEN] == []
    assert "kvm: a guest ran under it" in outcome(report, "accelerator")[1]
    assert report.lines()[-1] == "This machine can run the main job (vexfs.image)."
    assert not (clinic.root.parent / "work").exists()  # it looks and changes nothing


def test_the_report_is_json_with_a_schema(clinic: Clinic) -> None:
    data = json.loads(json.dumps(clinic.examine().to_json()))
    assert (data["schema"], data["job"], data["ok"]) == (1, "vexfs.image", True)
    assert {"name", "needs", "outcome", "detail", "fix"} == set(data["checks"][0])
    assert [attempt["verdict"] for attempt in data["accel"]["attempts"]] == ["works", "works"]
    assert data["accel"]["best"]["name"] == "kvm"


@pytest.mark.parametrize("tool", ["qemu-img", "mmdebstrap", "ssh"])
def test_a_missing_tool_is_named_with_its_package(clinic: Clinic, tool: str) -> None:
    (clinic.bin / tool).unlink()
    report = clinic.examine()
    state, _, fix = outcome(report, tool)
    assert not report.ok
    assert state is Outcome.BROKEN
    assert catalog()[tool]["debian"] in fix
    assert report.lines()[-1] == "This machine cannot run the main job (vexfs.image)."


def test_what_only_the_other_product_needs_is_a_warning(clinic: Clinic) -> None:
    (clinic.bin / "ffmpeg").unlink()
    report = clinic.examine()
    assert outcome(report, "ffmpeg")[0] is Outcome.WARNING
    assert report.ok


def test_missing_firmware_is_broken(clinic: Clinic) -> None:
    (clinic.root / doctor.file_tables()["ovmf"]["path"].lstrip("/")).unlink()
    report = clinic.examine()
    state, _, fix = outcome(report, "ovmf")
    assert state is Outcome.BROKEN
    assert "ovmf" in fix
    assert not report.ok


def test_tcg_is_a_warning_with_its_reason(clinic: Clinic) -> None:
    (clinic.root / "dev/kvm").unlink()
    clinic.write("proc/cpuinfo", "flags : svm AuthenticAMD")
    report = clinic.examine()
    state, detail, fix = outcome(report, "accelerator")
    assert report.ok
    assert state is Outcome.WARNING
    assert "tcg" in detail
    assert "kvm_amd is not loaded" in detail
    assert fix == "sudo modprobe kvm_amd"
    assert "fix: sudo modprobe kvm_amd" in "\n".join(report.lines())


def test_a_qemu_that_runs_no_guest_is_broken(clinic: Clinic) -> None:
    (clinic.bin / "qemu-system-x86_64").write_text("#!/bin/sh\necho no firmware >&2; exit 1\n")
    report = clinic.examine()
    state, detail, _ = outcome(report, "accelerator")
    assert state is Outcome.BROKEN
    assert "no firmware" in detail
    assert report.to_json()["accel"] is None


# ── room ─────────────────────────────────────────────────────────────────────────────────────


def test_folders_on_one_disk_share_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9 * GIB, 2 * GIB, 7 * GIB))
    fits = {"store": (tmp_path / "s", 5 * GIB), "output": (tmp_path / "o/p", 2 * GIB)}
    [finding] = disk_rooms(fits)
    assert finding.outcome is Outcome.OK
    [finding] = disk_rooms({**fits, "output": (tmp_path / "o/p", 3 * GIB)})
    assert finding.outcome is Outcome.BROKEN
    assert finding.detail == f"7.0 GiB free under {tmp_path}, 8.0 GiB needed"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    [finding] = disk_rooms({"store": (tmp_path / "s", 1)})
    assert finding.outcome is Outcome.BROKEN
    assert "not writable" in finding.detail


@pytest.mark.parametrize(
    ("total", "free", "state"),
    [(1, 1, Outcome.BROKEN), (4, 1, Outcome.WARNING), (4, 3, Outcome.OK)],
)
def test_memory(tmp_path: Path, total: int, free: int, state: Outcome) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(meminfo(total * GIB, free * GIB))
    assert memory_room(tmp_path, 2 * GIB).outcome is state


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(meminfo(64 * GIB, 60 * GIB))
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{GIB}\n")
    (group / "memory.current").write_text(f"{GIB}\n")
    half = f"active_file {GIB // 4}\nfile {GIB}\ninactive_file {GIB // 4}\nslab_reclaimable 0\n"
    (group / "memory.stat").write_text(half)
    assert memory_of_host(tmp_path) == (GIB, GIB // 2)
    (group / "memory.max").write_text("max\n")
    assert memory_of_host(tmp_path) == (64 * GIB, 60 * GIB)


# ── rights ───────────────────────────────────────────────────────────────────────────────────

RIGHTS = {
    "proc/sys/user/max_user_namespaces": "96365",
    "proc/sys/kernel/unprivileged_userns_clone": "1",
    "etc/subuid": "12345:100000:65536",
    "etc/subgid": "12345:100000:65536",
}


def rights_with(root: Path, **changed: str) -> tuple[Outcome, str]:
    for path, text in {
        **RIGHTS,
        **{key.replace("__", "/"): v for key, v in changed.items()},
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    found = bootstrap_rights(root, 12345)
    return found.outcome, f"{found.detail} {found.fix}"


def test_user_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "find_tool", lambda name: Path("/usr/bin/newuidmap"))
    assert rights_with(tmp_path / "a")[0] is Outcome.OK
    assert bootstrap_rights(tmp_path, 0).outcome is Outcome.OK

    state, says = rights_with(tmp_path / "b", proc__sys__kernel__unprivileged_userns_clone="0")
    assert state is Outcome.BROKEN
    assert "kernel.unprivileged_userns_clone=1" in says

    state, says = rights_with(tmp_path / "c", etc__subuid="other:100000:65536")
    assert state is Outcome.BROKEN
    assert "--add-subuids" in says

    apparmor = "proc__sys__kernel__apparmor_restrict_unprivileged_userns"
    state, says = rights_with(tmp_path / "d", **{apparmor: "1"})
    assert state is Outcome.BROKEN
    assert "apparmor_restrict_unprivileged_userns=0" in says
    profiled = {apparmor: "1", "etc__apparmor.d__mmdebstrap": "userns,"}
    assert rights_with(tmp_path / "e", **profiled)[0] is Outcome.OK

    monkeypatch.setattr(rights, "find_tool", lambda name: None)
    state, says = rights_with(tmp_path / "f")
    assert state is Outcome.BROKEN
    assert "uidmap" in says


# ── Docker ───────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def engine(server: socket.socket, answer: bytes) -> Iterator[None]:
    """Answer one request."""

    def serve() -> None:
        with contextlib.suppress(OSError), server.accept()[0] as link:
            link.recv(1000)
            link.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join(5)
        server.close()


def unix_server(root: Path) -> tuple[socket.socket, str]:
    path = root / "var/run/docker.sock"
    path.parent.mkdir(parents=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server, ""


def tcp_server(root: Path) -> tuple[socket.socket, str]:
    server = socket.create_server(("127.0.0.1", 0))
    return server, f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("listen", [unix_server, tcp_server])
@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nOK", Outcome.OK),
        (b"HTTP/1.0 500 Internal Server Error\r\n\r\n", Outcome.WARNING),
        (b"", Outcome.WARNING),
    ],
)
def test_an_engine_is_asked(
    tmp_path: Path,
    listen: Callable[[Path], tuple[socket.socket, str]],
    answer: bytes,
    state: Outcome,
) -> None:
    server, address = listen(tmp_path)
    with engine(server, answer):
        assert docker_engine(address, tmp_path, 0).outcome is state


@pytest.mark.parametrize(
    ("address", "says"),
    [("", "no engine"), ("ssh://elsewhere", "not tried"), ("tcp://127.0.0.1:1", "no engine")],
)
def test_no_engine_is_a_warning(tmp_path: Path, address: str, says: str) -> None:
    found = docker_engine(address, tmp_path, 0)
    assert found.outcome is Outcome.WARNING
    assert says in found.detail
    assert found.fix


def test_without_rights_a_container_has_them(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "obstacles", lambda: ["the right to mount"])

    def fix() -> str:
        (row,) = [row for row in clinic.examine().rows if row.name == "native"]
        assert row.outcome is Outcome.WARNING
        return row.fix

    assert "in-container" not in fix()
    (clinic.bin / "docker").write_text("#!/bin/sh\n")
    (clinic.bin / "docker").chmod(0o755)
    assert "scripts/in-container inv vexfs.image" in fix()
