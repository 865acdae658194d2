"""scripts/in-container bakes natively in a container, as on this host, and leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.dsm_house import checkout
from tests.e2e.test_engines import inside, sealed
from tests.e2e.test_minimal_image import ROOT, inv
from tests.standins import debian_container, trees
from tests.standins.processes import wait_until
from tests.standins.traces import daemons, descendants, left_of, read

pytest_plugins = ("tests.standins.engine",)
pytestmark = pytest.mark.e2e

UID = 54321
LABEL = "org.vmbake.in-container"
TOOLS = "vmbake-tools"
# What takes longest, and is the same here and there.
SHARED = ("vexfs.build-cloudimg", "vexfs.compilers", "vexfs.toolchain")
FILL = ("inv", "vexfs.fill", "--engine", "native", "--variant", "minimal")


@dataclass(frozen=True, kw_only=True)
class House:
    """A checkout that belongs to somebody else, and the base of its containers."""

    root: Path
    base: str

    @property
    def results(self) -> Path:
        return self.root / ".vmbake" / "results"

    def start(self, *words: str) -> subprocess.Popen[str]:
        # Whether this machine's firewall lets containers out by a bridge is not our matter.
        options = ("--network", "host", "--base", self.base)
        return subprocess.Popen(
            [sys.executable, self.root / "scripts" / "in-container", *options, *words],
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, status: int = 0) -> tuple[str, str]:
        process = self.start(*words)
        out, err = process.communicate()
        assert process.returncode == status, f"status {process.returncode}\n{out}\n{err}"
        return out, err

    def left(self) -> list[str]:
        """What there is of containers, and of what work in them leaves on the host."""
        return [*docker("ps", "--all", "--quiet", f"--filter=label={LABEL}"), *left_of(self.root)]


def docker(*words: str) -> list[str]:
    done = subprocess.run(["docker", *words], check=True, capture_output=True, text=True)
    return done.stdout.split()


@pytest.fixture(scope="module")
def house(docker_engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """With a base image and a toolchain that were made on the host."""
    known = set(docker("image", "ls", "--quiet", TOOLS))
    root = checkout(tmp_path_factory.mktemp("house"))
    own = House(root=root, base=debian_container.import_image())
    for result in shared_results():
        (root / result).parent.mkdir(parents=True)
        subprocess.run(["cp", "-a", "--reflink=auto", ROOT / result, root / result], check=True)
    subprocess.run(["chown", "-R", f"{UID}:{UID}", root], check=True)
    yield own
    for image in {*docker("image", "ls", "--quiet", TOOLS)} - known:
        docker("image", "rm", "--force", image)
    docker("image", "rm", own.base)


def shared_results() -> Iterator[Path]:
    """The folders of SHARED in this checkout, from its root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VEXFS_ENGINE", "native")
        for stage in SHARED:
            out, _ = inv(stage)
            found = Path(*Path(out.split()[0]).parts[:4])
            assert found.parts[-2] == stage
            yield found


def test_an_image_baked_in_a_container_is_the_host_s(house: House, tmp_path: Path) -> None:
    out, err = house.run("inv", "vexfs.image", "--engine", "native", "--variant", "minimal")
    assert "engine native: asked for" in err
    image = next(house.root / name for name in out.split() if name.endswith(".qcow2"))
    subprocess.run(["sha256sum", "-c", f"{image.name}.sha256"], cwd=image.parent, check=True)
    (disk,) = house.results.glob("vexfs.seal/*/machine.qcow2")
    there, here = inside(disk, tmp_path / "there"), inside(sealed("native"), tmp_path / "here")
    assert there["packages"] == here["packages"]
    assert there["units"] == here["units"]
    assert trees.compare(there["tree"], here["tree"], []).different == {}
    strangers = [path for path in house.root.rglob("*") if path.lstat().st_uid != UID]
    assert strangers == []
    assert house.left() == []
    # The tools are kept, and so is what they made.
    _, err = house.run("inv", "vexfs.image", "--engine", "native", "--variant", "minimal")
    assert "Making the image" not in err
    assert "up to date" in err


def client_of(process: subprocess.Popen[str]) -> int:
    """Docker's client, which the script waits for."""
    found = [
        pid for pid in descendants(process.pid) if read(Path(f"/proc/{pid}/comm")) == "docker\n"
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda process: process.send_signal(signal.SIGINT), 130),
        (lambda process: process.send_signal(signal.SIGTERM), 143),
        (lambda process: process.kill(), -signal.SIGKILL),
        (lambda process: os.kill(client_of(process), signal.SIGKILL), 137),
    ],
    ids=["Ctrl-C", "terminated", "killed", "client killed"],
)
def test_the_container_ends_with_its_caller(
    house: House, end: Callable[[subprocess.Popen[str]], None], status: int
) -> None:
    shutil.rmtree(house.results / "vexfs.fill", ignore_errors=True)
    process = house.start(*FILL)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("vexfs.fill: applying"):
            break
    wait_until(lambda: daemons(house.root) != [], "no disk is open")
    end(process)
    process.communicate()
    assert process.returncode == status
    wait_until(lambda: house.left() == [], f"left: {house.left()}")
    house.run(*FILL)
    assert list((house.root / ".vmbake" / "work").iterdir()) == []
