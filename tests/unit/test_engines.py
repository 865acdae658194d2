"""Which engine fills an image, and what the chain looks like under each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from invoke.config import Config
from invoke.tasks import Call

from tasks.core import tools
from tasks.core.errors import CannotRun, MissingTool
from tasks.core.graph import Node, build
from tasks.core.options import Value
from tasks.core.stage import Site
from tasks.guest import native
from tasks.qemu import accel
from tasks.qemu.accel import Accel
from tasks.vexfs import commands, guest_steps, inputs, natively
from tasks.vexfs.engines import choose
from tasks.vexfs.options import SCRIPTS

ROOT = Path(__file__).parents[2]
SITE = Site(root=ROOT, state=ROOT / ".vmbake", output=ROOT / "output")
TCG = Accel(name="tcg", cpu="max", reason="/dev/kvm does not exist")
KVM = Accel(name="kvm", cpu="host", reason="a guest ran under it")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say what this machine can do."""

    def set_up(
        accelerator: Accel | Exception = TCG, missing: tuple[str, ...] = (), *, docker: bool = False
    ) -> None:
        def find(*_: Any) -> Accel:
            if isinstance(accelerator, Exception):
                raise accelerator
            return accelerator

        monkeypatch.setattr(accel, "choose", find)
        monkeypatch.setattr(native, "obstacles", lambda: list(missing))
        monkeypatch.setattr(tools, "find_tool", lambda name: Path(name) if docker else None)

    set_up()
    return set_up


def chosen(engine: str = "auto", accel: str = "auto") -> str:
    return str(choose(SITE, engine=engine, accel=accel))


def test_auto_takes_a_guest_where_kvm_works(here: Any) -> None:
    here(KVM)
    assert chosen() == "engine vm: KVM works: a guest ran under it"
    assert chosen(accel="tcg").startswith("engine native: ")


def test_auto_is_native_where_a_guest_would_be_emulated(here: Any) -> None:
    here(TCG)
    assert chosen() == "engine native: faster than a guest without KVM (/dev/kvm does not exist)"
    here(MissingTool("The program qemu-system-x86_64 is not installed."))
    assert "qemu-system-x86_64 is not installed" in chosen()


def test_auto_says_what_native_would_need(here: Any) -> None:
    here(TCG, missing=("root", "/dev/fuse"))
    assert chosen() == "engine vm: native would be faster, but needs root, /dev/fuse"
    here(TCG, missing=("root",), docker=True)
    assert chosen().endswith("needs root (scripts/in-container has it)")
    with pytest.raises(CannotRun) as caught:
        chosen("native")
    assert "run the command by scripts/in-container" in caught.value.hint
    here(MissingTool("no QEMU"), missing=("root",))
    with pytest.raises(MissingTool):
        chosen()


def test_what_is_asked_for_is_taken_or_an_error(here: Any) -> None:
    here(KVM)
    assert chosen("native") == "engine native: asked for"
    assert chosen("vm") == "engine vm: asked for"
    assert chosen(accel="kvm").startswith("engine vm: ")
    here(KVM, missing=("/dev/fuse",))
    with pytest.raises(CannotRun, match="needs /dev/fuse"):
        chosen("native")


def nodes(task: Any = commands.image, **given: Value) -> dict[str, Node]:
    defaults = yaml.safe_load((ROOT / "invoke.yaml").read_text())
    graph = build([Call(task, kwargs=given)], Config(overrides=defaults), SITE)
    assert graph.problems == []
    return {node.name.removeprefix("vexfs."): node for node in graph.nodes}


def parents(node: Node) -> set[str]:
    return {parent.name.removeprefix("vexfs.") for parent in node.parents}


@pytest.mark.usefixtures("here")
def test_the_chain_without_a_guest() -> None:
    found = nodes(engine="native", variant="production")
    assert list(found) == [
        *("build-cloudimg", "packages", "fill", "compilers", "toolchain", "compile-vexfs"),
        *("seal", "compress", "checksum", "image"),
    ]
    # So that they can be unpacked while the base is made.
    assert parents(found["compilers"]) == set()
    assert parents(found["fill"]) == {"packages"}
    # Packages to compile with are on a branch of which only the results are taken over.
    assert parents(found["compile-vexfs"]) == {"build-cloudimg", "toolchain"}
    assert parents(found["seal"]) == {"build-cloudimg", "fill", "compile-vexfs"}


@pytest.mark.usefixtures("here")
def test_a_variant_without_packages_is_filled_over_the_base() -> None:
    found = nodes(engine="native", variant="minimal")
    assert "packages" not in found
    assert parents(found["fill"]) == {"build-cloudimg"}


FOREIGN = ("ubuntu-24.04", "file:disk.img")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("base", FOREIGN)
@pytest.mark.parametrize("engine", ["native", "auto"])
def test_the_chain_over_a_disk_that_is_not_ours(base: str, engine: str) -> None:
    found = nodes(engine=engine, variant="production", base=base)
    assert list(found) == [
        *("build-cloudimg", "packages", "fill", "toolchain", "compile-vexfs"),
        *("seal", "compress", "checksum", "image"),
    ]
    assert found["build-cloudimg"].stage is commands.adopt_natively
    assert found["toolchain"].stage is commands.toolchain_natively
    # What is only for compiling is installed beside the image, never under it.
    assert parents(found["toolchain"]) == {"build-cloudimg"}
    assert parents(found["packages"]) == {"build-cloudimg"}
    assert parents(found["seal"]) == {"build-cloudimg", "fill", "compile-vexfs"}


@pytest.mark.parametrize("base", FOREIGN)
def test_a_guest_fills_a_disk_that_is_not_ours(base: str) -> None:
    found = nodes(engine="vm", variant="production", base=base)
    assert found["build-cloudimg"].stage is commands.build_cloudimg
    assert found["toolchain"].stage is commands.toolchain
    assert "compilers" not in found


@pytest.mark.usefixtures("here")
def test_a_disk_that_was_looked_into_is_no_disk_for_a_guest() -> None:
    for name in ("build-cloudimg", "toolchain"):
        by_host, by_guest = (
            nodes(engine=engine, base="ubuntu-24.04")[name] for engine in ("native", "vm")
        )
        depends = by_host.stage.depends
        assert depends
        assert depends(SITE, **by_host.arguments)["engine"] == "native"
        others = by_guest.stage.depends
        assert not others or "engine" not in others(SITE, **by_guest.arguments)


def test_the_chain_with_a_guest() -> None:
    found = nodes(engine="vm", variant="production")
    assert list(found) == [
        *("build-cloudimg", "ssh-key", "seed-iso", "boot", "savevm", "compilers", "toolchain"),
        *("compile-vexfs", "seal", "compress", "checksum", "image"),
    ]
    assert {"savevm", "seed-iso"} <= parents(found["image"])


@pytest.mark.usefixtures("here")
def test_all_variants_share_the_base_natively() -> None:
    words = {"base": "debian-13", "image_release": "", "image_mirror": "", "accel": "auto"}
    found = {
        (engine, variant): inputs.base_packages(SITE, engine=engine, variant=variant, **words)
        for engine in ("vm", "native")
        for variant in ("minimal", "production")
    }
    assert found["native", "production"] == found["native", "minimal"] == found["vm", "minimal"]
    assert "rsyslog" in found["vm", "production"]["packages"]


def test_engines_are_never_taken_for_each_other() -> None:
    engines = {
        engine: {
            name: node.stage.depends(SITE, **node.arguments)["engine"]
            for name, node in nodes(engine=engine).items()
            if name in ("compile-vexfs", "seal") and node.stage.depends
        }
        for engine in ("vm", "native")
    }
    assert engines == {
        engine: {"compile-vexfs": engine, "seal": engine} for engine in ("vm", "native")
    }


def test_nothing_that_is_for_a_guests_kernel_runs_on_the_host() -> None:
    names = {path.name for path in inputs.native_seal_scripts()}
    assert not names & {"freeze.sh", "try.sh", "plug-in.sh"}
    for path in [*inputs.native_seal_scripts(), SCRIPTS / "compile.sh", *native.SCRIPTS.iterdir()]:
        for word in ("swapoff", "modprobe", "/proc/sysrq-trigger", "fstrim"):
            assert word not in path.read_text(), (path, word)
    assert "swapoff" in guest_steps.script("freeze.sh", {})


def test_packages_are_not_downloaded_offline() -> None:
    nothing: Any = None
    with pytest.raises(CannotRun, match=r"rsyslog.*--offline forbids"):
        natively.install_packages(nothing, nothing, ("rsyslog",), offline=True)
