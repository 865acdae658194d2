"""The gate: every trait in which a saved state and a machine can differ is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tasks.qemu.accel import TCG_CPU, Accel
from tasks.qemu.gate import Traits, cpu_model, refusal
from tasks.qemu.spec import DirectKernel, Disk, MachineSpec, devices

TRAITS = Traits(
    qemu="7.2.22 Debian",
    machine_type="pc-q35-7.2",
    board="q35,sata=off",
    accelerator="kvm",
    cpu_model="host",
    cpu_features={"avx": True, "avx2": True, "model-id": "One"},
    memory_mb=2048,
    cores=2,
    devices=("pvpanic-pci", "virtio-rng-pci", "virtio-serial-pci"),
    firmware="aa11",
)
OTHER: dict[str, tuple[Any, str]] = {
    "qemu": ("9.0.0", "qemu was 7.2.22 Debian and is 9.0.0"),
    "machine_type": ("pc-q35-9.0", "machine type was pc-q35-7.2 and is pc-q35-9.0"),
    "board": ("q35", "board was q35,sata=off and is q35"),
    "accelerator": ("tcg", "accelerator was kvm and is tcg"),
    "cpu_model": ("max", "cpu model was host and is max"),
    "cpu_features": (
        {"avx": True, "avx2": False, "model-id": "One", "xss": True},
        "cpu features was avx2=True and is avx2=False, xss=True",
    ),
    "memory_mb": (1024, "memory mb was 2048 and is 1024"),
    "cores": (4, "cores was 2 and is 4"),
    "devices": (TRAITS.devices[:2], "devices was virtio-serial-pci and is 2 in this order"),
    "firmware": ("bb22", "firmware was aa11 and is bb22"),
}


def test_the_same_fits() -> None:
    assert refusal(TRAITS, dataclasses.replace(TRAITS)) == ""


def test_every_trait_is_tried_here() -> None:
    assert set(OTHER) == {field.name for field in dataclasses.fields(Traits)}


@pytest.mark.parametrize("name", OTHER)
def test_what_differs_is_named_with_both_values(name: str) -> None:
    other, why = OTHER[name]
    assert refusal(TRAITS, dataclasses.replace(TRAITS, **{name: other})) == why


def test_the_order_of_devices_counts() -> None:
    turned = dataclasses.replace(TRAITS, devices=TRAITS.devices[::-1])
    assert refusal(TRAITS, turned).startswith("devices was ")


def test_traits_survive_a_file() -> None:
    assert Traits.from_json(json.loads(json.dumps(TRAITS.to_json()))) == TRAITS


def test_the_words_of_the_command_line_become_properties() -> None:
    assert cpu_model(TCG_CPU) == {
        "name": "max",
        "props": {"erms": False, "fsrm": False, "la57": False},
    }
    assert cpu_model("EPYC,+avx512f,family=25") == {
        "name": "EPYC",
        "props": {"avx512f": True, "family": "25"},
    }


def test_devices_are_the_same_wherever_files_and_ports_are() -> None:
    def spec(root: str, port: int | None) -> MachineSpec:
        return MachineSpec(
            name=root,
            accel=Accel(name="tcg", cpu="max", reason=""),
            memory_mb=64,
            cpus=1,
            disks=(Disk(id="root", path=Path(root), format="qcow2"),),
            direct=DirectKernel(kernel=Path(root), cmdline=root),
            ssh_port=port,
        )

    found = devices(spec("/a", None))
    assert found == devices(spec("/b", 2222))
    assert "driver=virtio-blk-pci,id=root-device,drive=root,serial=root,bootindex=1" in found
