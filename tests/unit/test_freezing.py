"""Freezing a running DSM: what QEMU is told, and what is not taken for frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tasks.core.errors import BadInput, MachineFailed, NoRoom
from tasks.docker.images import image_from
from tasks.vdsm import dsm, flattening, freezing, kept
from tasks.vdsm.variant import machine_of

MACHINE = machine_of(
    accel="tcg", network="auto", memory=512, cpus=1, disk_size=16, mac="02:11:32:aa:bb:cc"
)
STATE_BYTES = 1 << 20


@dataclass(kw_only=True)
class FakeQemu:
    """The monitor of a QEMU with three disks.

    Args:
        formats: of the disks, by name.
        complaint: what it answers to savevm, which it then does not do.
        forgets: the disk on which it saves nothing.
        state_bytes: the size of the machine's state.
    """

    formats: dict[str, str] = field(
        default_factory=lambda: dict.fromkeys(("data1", "data2", "data3"), "qcow2")
    )
    complaint: str = ""
    forgets: str = ""
    state_bytes: int = STATE_BYTES
    tags: dict[str, dict[str, int]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def execute(self, command: str, arguments: Any = None, *, timeout_s: float = 0) -> Any:
        if command == "query-block":
            return [self.drive(name) for name in self.formats]
        if command == "human-monitor-command":
            return self.monitor(arguments["command-line"])
        self.told.append(command)
        return {}

    def monitor(self, line: str) -> str:
        self.told.append(line)
        verb, tag = line.split()
        if verb == "savevm" and self.complaint:
            return self.complaint
        for number, name in enumerate(self.formats):
            snapshots = self.tags.setdefault(name, {})
            if verb == "delvm":
                snapshots.pop(tag, None)
            elif name != self.forgets:
                snapshots[tag] = 0 if number else self.state_bytes
        return ""

    def drive(self, name: str) -> dict[str, Any]:
        snapshots = [
            {"name": tag, "vm-state-size": size} for tag, size in self.tags.get(name, {}).items()
        ]
        image = {"format": self.formats[name], "snapshots": snapshots}
        return {"device": name, "inserted": {"ro": False, "image": image}}


def running(qemu: FakeQemu) -> dsm.Dsm:
    container = SimpleNamespace(
        exec=lambda argv: qemu.told.append(argv[-1]), wait_end=lambda timeout_s: None
    )
    return dsm.Dsm(container=cast("Any", container), machine=MACHINE, qmp=cast("Any", qemu))


def freeze(qemu: FakeQemu) -> int:
    step = SimpleNamespace(say=lambda text: None)
    return freezing.freeze(cast("Any", step), running(qemu), "final")


def test_it_is_stopped_saved_and_ended_in_this_order() -> None:
    qemu = FakeQemu(tags={name: {"start-ready": 0} for name in ("data1", "data2", "data3")})
    assert freeze(qemu) == STATE_BYTES
    assert qemu.told == [
        *("stop", "delvm start-ready", "savevm final", "rm -f /dsm/*.pat", "quit"),
    ]


@pytest.mark.parametrize(
    ("qemu", "kind", "words"),
    [
        (FakeQemu(complaint="Error: No space left on device"), NoRoom, "No space left"),
        (FakeQemu(complaint="Error: Device 'data2' is read-only"), MachineFailed, "'data2'"),
        (FakeQemu(forgets="data2"), MachineFailed, "missing on data2"),
        (FakeQemu(formats={}), MachineFailed, "missing on every disk"),
        (FakeQemu(state_bytes=0), MachineFailed, "without the machine's memory"),
    ],
)
def test_what_was_not_saved_is_no_checkpoint(
    qemu: FakeQemu, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        freeze(qemu)
    assert "quit" not in qemu.told


def test_a_raw_disk_is_refused_before_anything_is_done() -> None:
    dsm.prove_disks(running(FakeQemu()))
    with pytest.raises(MachineFailed, match="data2 is raw"):
        dsm.prove_disks(running(FakeQemu(formats={"data1": "qcow2", "data2": "raw"})))
    with pytest.raises(MachineFailed, match="there is none"):
        dsm.prove_disks(running(FakeQemu(formats={})))


def test_disks_are_put_only_onto_the_base_image_that_they_were_saved_in() -> None:
    def image(upstream: str) -> Any:
        return image_from(
            {
                "Id": "sha256:1",
                "Size": 1,
                "RootFS": {},
                "Created": datetime.now(UTC).isoformat(),
                "Architecture": "amd64",
                "Config": {"Labels": {kept.UPSTREAM: upstream}},
            }
        )

    flattening.require_same_upstream(image("sha256:a"), image("sha256:a"))
    with pytest.raises(BadInput, match="saved in another base image"):
        flattening.require_same_upstream(image("sha256:a"), image("sha256:b"))
