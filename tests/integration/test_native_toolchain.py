"""A toolchain's image opened on this host, for root and for an ordinary user, and what goes wrong.

The kernel mounts it for root, squashfuse in a user namespace for anybody else. These need root and
its right to mount all the same: to be that user.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.core.errors import CommandFailed, MachineFailed, TimedOut
from tasks.core.process import Runner
from tasks.guest import mounter
from tasks.guest.native import run_with_toolchain
from tasks.vexfs.guest_steps import blaming_the_source
from tests.standins import ordinary_user, tiny_root
from tests.standins.processes import wait_until
from tests.standins.traces import daemons, left_of

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LIMIT_S = 60
BUILDER = 65534  # nobody, as in compile.sh
TOOLCHAIN = "/run/vmbake/toolchain"
# In the toolchain's root, as compile.sh enters it.
ENTERED = f"chroot --userspec={BUILDER}:{BUILDER} {TOOLCHAIN} /bin/sh -euc"
BUSY = f"""
{ENTERED} 'echo started; while :; do ls -R / > /dev/null; done'
"""
WORK = """
import sys
from pathlib import Path
from tasks.core.process import Runner
from tasks.guest import mounter
from tasks.guest.native import run_with_toolchain
from tests.standins import ordinary_user
folder = Path(sys.argv[1])
if sys.argv[3] == "fuse2fs":
    ordinary = ordinary_user.mounter_of(folder)
    mounter.choose = lambda: ordinary
run_with_toolchain(folder / "toolchain.squashfs", folder / "source", sys.argv[2], folder, cached={},
                   runner=Runner(folder / "log"), timeout_s=600,
                   on_line=lambda line: (folder / line.strip()).touch())
"""


@pytest.fixture(scope="module")
def pristine() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vmbake-toolchain-") as name:
        yield tiny_root.make_squashfs(Path(name))


@pytest.fixture
def folder(pristine: Path) -> Iterator[Path]:
    """A working place that everybody can enter, unlike pytest's own; nothing stays behind."""
    with tempfile.TemporaryDirectory(prefix="vmbake-toolchain-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.link(pristine, folder / pristine.name)
        (folder / "source").mkdir()
        (folder / "source" / "code.c").write_text("int main;\n")
        (folder / "kept").write_text("objects")
        yield folder
        wait_until(lambda: left_of(folder) == [], "something was left")


@pytest.fixture(params=["kernel", "fuse2fs"])
def way(folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who mounts: the kernel for root, or squashfuse for an ordinary user."""
    if request.param == "fuse2fs":
        become_ordinary(folder, monkeypatch)
    return str(request.param)


def become_ordinary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = ordinary_user.mounter_of(folder)
    monkeypatch.setattr(mounter, "choose", lambda: ordinary)


def build(
    folder: Path,
    script: str,
    on_line: Callable[[str], None] = lambda line: None,
    timeout_s: float = LIMIT_S,
) -> Path:
    """What a script leaves that has the toolchain and the source."""
    return run_with_toolchain(
        folder / "toolchain.squashfs",
        folder / "source",
        f"set -eu\n{script}",
        folder,
        cached={"objects.tar.zst": folder / "kept"},
        runner=Runner(folder / "log"),
        timeout_s=timeout_s,
        on_line=on_line,
    )


def test_a_script_has_toolchain_source_and_cache_and_leaves_results(folder: Path, way: str) -> None:
    lines: list[str] = []
    script = f"""
        chmod 1777 {TOOLCHAIN}/tmp
        cp -R /run/vmbake/source {TOOLCHAIN}/tmp/source
        {ENTERED} 'cat /tmp/source/code.c /tmp/cache/*; id -u; ls /dev'
        {ENTERED} 'echo module > /bin/new' || echo read-only
        {ENTERED} 'echo x > /dev/full' || echo full
        {ENTERED} 'echo module > /tmp/module; cat /tmp/module' > /run/vmbake/results/module.ko
    """
    results = build(folder, script, lines.append)
    assert (results / "module.ko").read_text() == "module\n"
    said = " ".join("".join(lines).split())
    assert said.startswith(f"int main; objects{BUILDER} fd full null random urandom zero")
    assert "read-only" in said
    assert said.endswith("full")
    if way == "fuse2fs":
        assert (results / "module.ko").stat().st_uid == ordinary_user.UID
        # Nothing of the builder's, which only a subordinate ID could remove.
        assert not (results.parent / "tmp" / "source").exists()


def test_a_failed_script_is_a_failed_command(folder: Path, way: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        build(folder, f"{ENTERED} 'echo wrong; exit 3'")
    assert caught.value.status == 3
    assert left_of(folder) == []


def test_a_time_limit_ends_all_of_it(folder: Path, way: str) -> None:
    with pytest.raises(TimedOut):
        build(folder, f"{ENTERED} 'sleep 600'", timeout_s=1)
    assert left_of(folder) == []


# Also a compiler that does not look at its files any more is ended.
@pytest.mark.parametrize("script", [BUSY, "echo started; sleep 600"], ids=["busy", "asleep"])
def test_the_death_of_squashfuse_is_no_fault_of_the_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    def strike(line: str) -> None:
        if line == "started\n":
            (daemon,) = daemons(folder, "squashfuse")
            os.kill(daemon, signal.SIGKILL)

    become_ordinary(folder, monkeypatch)
    dying = pytest.raises(MachineFailed, match="daemon")
    with dying as caught, blaming_the_source([], more_room=""):
        build(folder, script, strike)
    assert caught.value.tail[-1] == "vmbake: squashfuse ended before its time"


def test_an_image_that_squashfuse_cannot_open_is_no_fault_of_the_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = folder / "toolchain.squashfs"
    image.unlink()
    image.write_bytes(b"no squashfs" * 4096)
    become_ordinary(folder, monkeypatch)
    with pytest.raises(MachineFailed), blaming_the_source([], more_room=""):
        build(folder, "echo never")


def test_a_killed_build_leaves_nothing(folder: Path, way: str) -> None:
    with subprocess.Popen([sys.executable, "-c", WORK, folder, BUSY, way], cwd=ROOT) as process:
        try:
            wait_until((folder / "started").exists, "the script never ran")
        finally:
            # Only the outermost process; it has no chance to clean up.
            process.kill()
    wait_until(lambda: left_of(folder) == [], "something was left")
