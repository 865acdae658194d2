"""Which stages a Virtual-DSM build has, and what makes them stale."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from invoke.config import Config
from invoke.tasks import Call

from tasks.core import code
from tasks.core.code import Symbol
from tasks.core.errors import BadInput, CannotRun, NoRoom, VmbakeError
from tasks.core.graph import Node, build
from tasks.core.options import Value
from tasks.core.stage import Site
from tasks.docker.engine import EngineFacts
from tasks.vdsm import commands, inputs, kept, provisioning, pushing
from tasks.vdsm.variant import checkpoint_reference, machine_of

ROOT = Path(__file__).parents[2]
SITE = Site(root=ROOT, state=ROOT / ".vmbake", output=ROOT / "output")
MACHINE: dict[str, Value] = {
    "accel": "tcg",
    "network": "auto",
    "memory": 2048,
    "cpus": 2,
    "disk_size": 16,
    "mac": "02:11:32:aa:bb:cc",
}


def nodes(task: Any = commands.tcg, **given: Value) -> dict[str, Node]:
    defaults = yaml.safe_load((ROOT / "invoke.yaml").read_text())
    graph = build([Call(task, kwargs=given)], Config(overrides=defaults), SITE)
    assert graph.problems == []
    return {node.name: node for node in graph.nodes}


def parents(node: Node) -> set[str]:
    return {parent.name for parent in node.parents}


def test_a_build_makes_the_first_and_the_last_checkpoint() -> None:
    found = nodes()
    assert list(found) == [
        *("vdsm.fetch-pat", "vdsm.base-image", "vdsm.boot", "vdsm.savevm", "vdsm.commit"),
        *("vdsm.provision", "vdsm.flatten", "vdsm.smoke-test", "build.tcg"),
    ]
    assert parents(found["vdsm.provision"]) == {"vdsm.commit"}


def test_each_step_has_a_checkpoint_if_asked_for() -> None:
    found = nodes(checkpoints="all")
    assert parents(found["vdsm.provision"]) == {"vdsm.post-wizard"}
    assert parents(found["vdsm.post-wizard"]) == {"vdsm.configure-admin"}
    assert parents(found["vdsm.configure-admin"]) == {"vdsm.commit"}


@pytest.mark.parametrize("name", ["post-wizard", "ckpt-post-wizard"])
def test_a_named_checkpoint_has_its_stage(name: str) -> None:
    found = nodes(from_checkpoint=name)
    assert parents(found["vdsm.provision"]) == {"vdsm.post-wizard"}
    assert parents(found["vdsm.post-wizard"]) == {"vdsm.commit"}


def test_exploring_builds_nothing() -> None:
    for task, accel in ((commands.tcg, "tcg"), (commands.kvm, "kvm")):
        (node,) = nodes(task, explore=True, from_checkpoint="start-ready").values()
        assert (node.name, node.params["accel"]) == ("vdsm.explore", accel)


def test_a_variant_reaches_every_stage() -> None:
    for task, accel in ((commands.tcg, "tcg"), (commands.kvm, "kvm")):
        accels = {node.params["accel"] for node in nodes(task).values() if "accel" in node.params}
        assert accels == {accel}


def test_the_password_reaches_the_steps_and_no_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSM_ADMIN_PASS", "Tell.Nobody7")
    node = nodes()["vdsm.provision"]
    assert provisioning.environment(node.params)["DSM_ADMIN_PASS"] == "Tell.Nobody7"
    assert "Tell.Nobody7" not in f"{node.told} {node.meaningful}"
    flags = [argument.name for argument in commands.tcg.get_arguments()]
    assert "admin_user" in flags
    assert "admin_pass" not in flags


def test_names_and_ports_make_nothing_stale() -> None:
    before, after = nodes(), nodes(image_name="other", port=5000, keep=True, slow=9)
    for name in ("vdsm.boot", "vdsm.commit", "vdsm.provision", "vdsm.flatten", "vdsm.smoke-test"):
        assert after[name].meaningful == before[name].meaningful
    assert after["build.tcg"].meaningful != before["build.tcg"].meaningful


def test_a_step_of_the_wizard_counts_only_where_it_is_run() -> None:
    def inputs_of(node: Node) -> set[str]:
        assert node.stage.depends is not None
        return {
            name.rpartition(" ")[2]
            for name in node.stage.depends(SITE, **node.arguments)
            if name.startswith("code scripts/provision_dsm.py")
        }

    ends, every = nodes(), nodes(checkpoints="all")
    assert inputs_of(ends["vdsm.boot"]) == {"wait-for-boot"}
    assert inputs_of(ends["vdsm.provision"]) == set(provisioning.STEPS)
    assert inputs_of(every["vdsm.configure-admin"]) == {"configure-admin"}
    assert inputs_of(every["vdsm.post-wizard"]) == {"post-wizard"}
    assert inputs_of(every["vdsm.provision"]) == {"configure-system"}


def test_what_auto_means_for_the_network_is_what_counts() -> None:
    auto = inputs.machine(SITE, **MACHINE)
    assert auto == inputs.machine(SITE, **{**MACHINE, "network": "user"})
    assert auto != inputs.machine(SITE, **{**MACHINE, "network": "nat"})
    assert machine_of(**{**MACHINE, "accel": "kvm"}).network == "nat"


def test_a_broken_kvm_names_the_other_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CannotRun("KVM does not work here.", hint="Switch it on.")

    monkeypatch.setattr("tasks.qemu.accel.choose", refuse)
    (error,) = inputs.kvm_problems(SITE)
    assert isinstance(error, CannotRun)
    assert "inv build.tcg" in error.hint


@pytest.mark.parametrize("checkpoint", ["start-ready", "final"])
def test_an_unknown_checkpoint_is_told_by_whichever_stage_comes_first(
    monkeypatch: pytest.MonkeyPatch, checkpoint: str
) -> None:
    monkeypatch.setattr(kept, "connect", contextlib.nullcontext)
    monkeypatch.setattr(kept, "all_of", lambda *_: [labelled("start-ready"), labelled("final")])
    given = kept.chosen(checkpoint)
    assert given(SITE, image_name="dsm", from_checkpoint="", **MACHINE) is None
    assert given(SITE, image_name="dsm", from_checkpoint="ckpt-post-wizard", **MACHINE) is None
    with pytest.raises(BadInput, match="no checkpoint 'finale' of dsm-tcg") as caught:
        given(SITE, image_name="dsm", from_checkpoint="ckpt-finale", **MACHINE)
    assert caught.value.hint == "There are: start-ready, final."


def labelled(checkpoint: str) -> SimpleNamespace:
    return SimpleNamespace(labels={kept.CHECKPOINT: checkpoint})


@pytest.mark.parametrize(
    ("facts", "kind", "words"),
    [
        ({"free_bytes": 14 * 10**9}, NoRoom, "needs 15.0 GB in the Docker engine's folder /var"),
        ({"cores": 1}, None, "has 1, and upstream would silently take fewer"),
        ({"memory_bytes": 10**9}, None, "machine has 953 MiB"),
    ],
)
def test_what_an_engine_lacks_is_told_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, int], kind: type | None, words: str
) -> None:
    def found(**changed: int | None) -> list[str | VmbakeError]:
        whole = EngineFacts(
            version="28", cores=4, memory_bytes=8 << 30, root="/var", free_bytes=20 * 10**9,
            architecture="amd64",
        )  # fmt: skip
        engine = SimpleNamespace(facts=replace(whole, **cast("Any", changed)))
        monkeypatch.setattr(inputs, "connect", lambda: contextlib.nullcontext(engine))
        return list(inputs.machine_problems(SITE, **cast("Any", MACHINE)))

    assert found() == []
    # The engine is on another machine: nobody can know.
    assert found(free_bytes=None) == []
    (problem,) = found(**facts)
    assert words in str(problem)
    assert kind is None or isinstance(problem, kind)


def test_nothing_is_pushed_unless_the_user_says_that_it_may_be() -> None:
    def problems(**given: Any) -> list[str]:
        given = {"accel": "tcg", "accept_eula": True, "architectures": "", **given}
        return [str(problem) for problem in pushing.problems(SITE, **cast("Any", given))]

    assert problems() == []
    assert "EULA" in problems(accept_eula=False)[0]
    assert "amd64 only" in problems(accel="kvm", architectures="amd64,arm64")[0]
    assert problems(architectures="amd64, arm64") == []
    assert problems(architectures="../x") != []


def test_names() -> None:
    name = checkpoint_reference("reg.example/team/vdsm-ci", "tcg", "start-ready")
    assert name == "reg.example/team/vdsm-ci-tcg:ckpt-start-ready"


def test_what_the_steps_share_counts_for_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("wait-for-boot", *provisioning.STEPS)
    found = {step: code.digests_from(Symbol("scripts.provision_dsm", step.replace("-", "_")))
             for step in steps}  # fmt: skip
    assert all("scripts.dsm.connection" in modules for modules in found.values())
    before = provisioning.code_of(steps, replace(SITE, state=tmp_path / "before"))
    shared_machinery = dict.fromkeys(found["wait-for-boot"], "changed")
    monkeypatch.setattr(code, "digests_from", lambda _: shared_machinery)
    after = provisioning.code_of(steps, replace(SITE, state=tmp_path / "after"))
    assert all(after[name] != before[name] for name in before)
