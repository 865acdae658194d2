"""What the stages say that they take, and the variants of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from invoke.config import Config
from invoke.tasks import Call

from tasks.core.capacity import Capacity, Cost
from tasks.core.executor import site_of
from tasks.core.graph import Node, build, distinctions
from tasks.core.plan import Plan
from tasks.core.stage import Site
from tasks.core.store import Store
from tasks.qemu import accel
from tasks.qemu.cost import guest_cost
from tasks.vdsm import commands as vdsm
from tasks.vexfs import commands as vexfs
from tasks.vexfs import engines
from tests.unit.test_tasks_file import ROOT

GIB = 1 << 30


@pytest.fixture
def config() -> Config:
    found = Config(project_location=ROOT, lazy=True)
    found.load_project()
    # What `auto` means is found out by starting a guest.
    found.load_overrides({"vexfs": {"engine": "vm"}})
    return found


@pytest.fixture
def natively(config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The settings for the native engine, whatever this host can do."""
    native = engines.Engine(name="native", reason="a test")
    monkeypatch.setattr("tasks.vexfs.engines.require_native", lambda *_, **__: native)
    config.load_overrides({"vexfs": {"engine": "native"}})
    return config


@pytest.fixture(params=["config", "natively"])
def either(request: pytest.FixtureRequest) -> Any:
    """The settings for each of the engines."""
    return request.getfixturevalue(request.param)


def nodes(config: Config, task: Any, **given: Any) -> dict[str, Node]:
    graph = build([Call(task, kwargs=given)], config, site_of(config))
    assert graph.problems == []
    return {graph.labels()[node]: node for node in graph.nodes}


def cost(config: Config, node: Node) -> Cost:
    hook = node.stage.cost
    return hook(site_of(config), **node.arguments) if hook else Cost()


def test_a_core_of_a_guest_is_a_core_without_kvm_and_less_with_it() -> None:
    tcg = guest_cost("tcg", memory_mb=2048, cpus=4)
    kvm = guest_cost("kvm", memory_mb=2048, cpus=4)
    assert (tcg.cores, tcg.kvm_guests) == (4, 0)
    assert (kvm.cores, kvm.kvm_guests) == (2, 1)
    assert tcg.memory_bytes > 2 * GIB
    assert tcg.holds == frozenset()
    assert guest_cost("tcg", memory_mb=1, cpus=1, port=22).holds == {"port 22"}


def test_stages_with_a_guest_count_it(config: Config) -> None:
    found = nodes(config, vexfs.image, accel="tcg", cpus=3, memory=4096, ssh_port=2222)
    for name in ("vexfs.boot", "vexfs.compile-vexfs", "vexfs.seal"):
        taken = cost(config, found[name])
        assert taken.cores == 3
        assert taken.holds == {"port 2222"}
        assert taken.memory_bytes > 4 * GIB
    compilers, toolchain = (cost(config, found[f"vexfs.{n}"]) for n in ("compilers", "toolchain"))
    assert compilers == toolchain
    assert toolchain.memory_bytes < GIB
    ubuntu = nodes(config, vexfs.toolchain, accel="tcg", cpus=3, base="ubuntu-24.04")
    assert cost(config, ubuntu["vexfs.toolchain"]).cores == 3


@pytest.mark.parametrize(
    "beside",
    [
        ("build-cloudimg", "compilers"),
        ("packages", "toolchain"),
        ("fill", "compile-vexfs"),
        ("compress", "compress"),
        ("compress", "seal"),
    ],
)
def test_natively_two_cores_and_four_gib_have_work_for_two(
    natively: Config, beside: tuple[str, str]
) -> None:
    found = nodes(natively, vexfs.image)
    one, other = (cost(natively, found[f"vexfs.{name}"]) for name in beside)
    small = Capacity(stages=2, cores=2, memory_bytes=3 * GIB, kvm_guests=2)
    assert small.has_room([one], other)


def test_more_cores_are_no_room_for_as_many_that_use_all(natively: Config) -> None:
    found = nodes(natively, vexfs.image)
    compiling, packing = (
        cost(natively, found[f"vexfs.{n}"]) for n in ("compile-vexfs", "compress")
    )
    large = Capacity(stages=16, cores=16, memory_bytes=99 * GIB, kvm_guests=16)
    assert large.has_room([compiling], compiling)
    assert not large.has_room([compiling, compiling], Cost())
    assert large.has_room([packing] * 3, packing)
    assert not large.has_room([packing] * 4, Cost())


def test_compressing_and_compiling_count_a_share_of_memory_for_each_core(
    natively: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = nodes(natively, vexfs.image)

    def taken(cores: int) -> list[int]:
        monkeypatch.setattr("tasks.core.capacity.core_count", lambda: cores)
        names = ("vexfs.compress", "vexfs.compile-vexfs")
        return [cost(natively, found[name]).memory_bytes >> 20 for name in names]

    assert taken(2) == [200, 768]
    assert taken(10) == [200 + 8 * 64, 768 + 8 * 128]


def test_a_session_counts_its_guest(config: Config) -> None:
    found = nodes(config, vexfs.session, accel="tcg", cpus=3)
    assert cost(config, found["vexfs.shell"]) == guest_cost("tcg", memory_mb=2048, cpus=3)


def test_what_a_guest_takes_makes_no_result_stale(config: Config) -> None:
    def meaning(**given: Any) -> dict[str, str]:
        found = nodes(config, vexfs.image, **given)
        return found["vexfs.seal"].meaningful | found["vexfs.compile-vexfs"].meaningful

    assert meaning(cpus=1, memory=1024) == meaning(cpus=2, memory=2048)


def test_dsm_counts_as_the_machine_that_it_is(config: Config) -> None:
    found = nodes(config, vdsm.tcg, cpus=3, port=5000)
    for name in ("vdsm.boot", "vdsm.provision", "vdsm.smoke-test"):
        assert cost(config, found[name]) == guest_cost("tcg", memory_mb=2048, cpus=3, port=5000)
    # It stands on boot, whose machine is counted already.
    assert found["vdsm.commit"].stage.cost is None


def test_each_variant_has_its_own_image_and_shares_the_rest(config: Config) -> None:
    found = nodes(config, vexfs.images, variants="minimal,production", version="2.0")
    assert {name for name in found if name.startswith("vexfs.image")} == {
        "vexfs.image (minimal)",
        "vexfs.image (production)",
    }
    assert "vexfs.ssh-key" in found
    assert {name for name in found if name.startswith("vexfs.compile-")} == {
        "vexfs.compile-vexfs (minimal)",
        "vexfs.compile-vexfs (production)",
    }
    versions = {node.params["version"] for node in found.values() if "version" in node.params}
    assert versions == {"2.0"}


def test_what_tells_stages_from_each_other_is_their_label() -> None:
    rye, wheat = {"kind": "rye", "salt": "5"}, {"kind": "wheat", "salt": "5"}
    assert distinctions([rye, wheat]) == ["rye", "wheat"]
    assert distinctions([rye, wheat, {**rye, "salt": "9"}]) == ["rye, 5", "wheat, 5", "rye, 9"]
    assert distinctions([rye, rye, wheat]) == ["rye 1", "rye 2", "wheat"]
    assert distinctions([{}, {}]) == ["1", "2"]
    assert distinctions([rye, {"salt": "5"}]) == ["rye", "2"]


def test_natively_variants_share_base_toolchain_and_module(
    natively: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.core.plan.version_of", lambda tool, _: f"{tool} 1.0")
    site = Site(root=ROOT, state=tmp_path, output=tmp_path)
    given = {"variants": "minimal,production", "accel": "tcg"}
    graph = build([Call(vexfs.images, kwargs=given)], natively, site)
    Plan(graph=graph, site=site, store=Store(tmp_path)).observe()
    shared = {"build-cloudimg", "compilers", "toolchain", "compile-vexfs", "packages"}
    each = {"fill", "seal", "compress", "checksum", "image"}
    assert set(graph.labels().values()) == {
        *(f"vexfs.{name}" for name in shared),
        *(f"vexfs.{name} ({mark})" for name in each for mark in ("minimal", "production")),
    }


@pytest.mark.parametrize(
    ("task", "values", "problem"),
    [
        (
            vexfs.images,
            {"variants": "minimal,big"},
            "--variants is 'minimal,big': 'big' is none of development, minimal, production.",
        ),
        (
            vexfs.images,
            {"variants": " ,"},
            "--variants is ' ,': it names none of development, minimal, production.",
        ),
        (
            vexfs.image,
            {"variant": "big"},
            "--variant is 'big'; it can be development, minimal or production.",
        ),
    ],
)
def test_a_variant_that_is_none_is_named(
    either: Config, task: Any, values: dict[str, str], problem: str
) -> None:
    graph = build([Call(task, kwargs=values)], either, site_of(either))
    assert graph.problems == [problem]


def test_blanks_between_variants_are_nothing(either: Config) -> None:
    found = nodes(either, vexfs.images, variants="minimal, production,minimal")
    images = [node.params["variant"] for node in found.values() if node.name == "vexfs.image"]
    assert images == ["minimal", "production"]


def test_the_accelerator_that_auto_means_decides(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = accel.Accel(name="kvm", cpu="host", reason="a test")
    monkeypatch.setattr("tasks.vexfs.inputs.choose_accel", lambda *_: chosen)
    found = nodes(config, vexfs.boot, cpus=4)
    assert cost(config, found["vexfs.boot"]).cores == 2
