"""QEMU's own snapshots (RAM, devices and disks under one tag), saved and loaded over QMP.

The jobs are `snapshot-save`, `-load` and `-delete`; unlike `savevm` on the human monitor they
say when they have ended and why they failed (QMP reference, "Snapshot").
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.core.errors import BadInput, MachineFailed, NoRoom, VmbakeError
from tasks.qemu.disk import FULL_BYTES
from tasks.qemu.qmp import Qmp
from tasks.qemu.watch import Watch

# QEMU also takes a snapshot's number for its name, so a tag must not look like one.
TAG = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


class Snapshots:
    """The snapshots of one running machine.

    Args:
        nodes: its writable disks, all qcow2; the first one holds the RAM.
        folder: where the first one lies.
    """

    def __init__(self, qmp: Qmp, watch: Watch, nodes: Sequence[str], folder: Path) -> None:
        self._qmp = qmp
        self._watch = watch
        self._nodes = tuple(nodes)
        self._folder = folder

    def save(self, tag: str, *, timeout_s: float) -> None:
        """Save RAM, devices and disks; the guest stands still meanwhile and then goes on.

        Raises:
            BadInput: the tag can't be one, or is taken.
            NoRoom: the disk is full.
            MachineFailed: QEMU could not save it, or saved less than it should have.
            TimedOut: it took longer than `timeout_s` seconds.
        """
        if not TAG.fullmatch(tag):
            raise BadInput(
                f"{tag!r} can't be the tag of a snapshot.",
                hint="Begin with a letter; then letters, digits, dots, dashes and underscores.",
            )
        holders = [node for node, found in self._by_node().items() if tag in found]
        if holders:
            raise BadInput(f"There is a snapshot {tag} already, on {', '.join(holders)}.")
        self._job("save", tag, timeout_s, {"vmstate": self._first()})
        self._check(tag)

    def load(self, tag: str, *, timeout_s: float) -> None:
        """Put the machine back to where it was; it stays paused if it was.

        Raises:
            MachineFailed: there is no such snapshot, or it does not fit this machine.
            TimedOut: it took longer than `timeout_s` seconds.
        """
        self._job("load", tag, timeout_s, {"vmstate": self._first()})

    def delete(self, tag: str, *, timeout_s: float) -> None:
        """Remove a snapshot from all disks.

        Raises: as `load`.
        """
        self._job("delete", tag, timeout_s, {})

    def tags(self) -> tuple[str, ...]:
        """The snapshots that can be loaded: complete, with RAM on the first disk."""
        found = self._by_node()
        saved = found.get(self._first(), {})
        return tuple(
            tag
            for tag, vm_state_bytes in saved.items()
            if vm_state_bytes > 0 and all(tag in found.get(node, {}) for node in self._nodes)
        )

    def _first(self) -> str:
        if not self._nodes:
            raise MachineFailed("A machine without a writable disk has no snapshots.")
        return self._nodes[0]

    def _check(self, tag: str) -> None:
        """A job that ended well may still have passed a disk by: then no -loadvm would work."""
        if tag not in self.tags():
            found = self._by_node()
            missing = [node for node in self._nodes if tag not in found.get(node, {})]
            where = f"it is missing on {', '.join(missing)}" if missing else "it holds no RAM"
            raise MachineFailed(f"QEMU did not save the snapshot {tag} completely: {where}.")

    def _by_node(self) -> dict[str, dict[str, int]]:
        """Disk to its snapshots: tag to the bytes of machine state (0: the disk only)."""
        nodes: list[dict[str, Any]] = self._qmp.execute("query-named-block-nodes", {"flat": True})
        return {
            node["node-name"]: {
                snapshot["name"]: snapshot["vm-state-size"]
                for snapshot in node["image"].get("snapshots", ())
            }
            for node in nodes
            if node["node-name"] in self._nodes
        }

    def _job(self, verb: str, tag: str, timeout_s: float, more: Mapping[str, object]) -> None:
        job = f"{verb}-{tag}"
        arguments = {"job-id": job, "tag": tag, "devices": self._nodes, **more}
        since = self._watch.mark()
        self._qmp.execute(f"snapshot-{verb}", arguments)
        self._watch.wait_event(
            "JOB_STATUS_CHANGE",
            since=since,
            timeout_s=timeout_s,
            what=f"{verb} the snapshot {tag}",
            even_after_end=True,
            id=job,
            status="concluded",
        )
        jobs: list[Mapping[str, Any]] = self._qmp.execute("query-jobs")
        # The reason of a failure is in the job only, which is kept until it is dismissed.
        error = next((entry.get("error") for entry in jobs if entry["id"] == job), None)
        self._qmp.execute("job-dismiss", {"id": job})
        if error is not None:
            raise self._failure(verb, f"QEMU could not {verb} the snapshot {tag}: {error}.", error)

    def _failure(self, verb: str, what: str, error: str) -> VmbakeError:
        # Of a state that could not be written, QEMU 7.2 says "Input/output error" only.
        free_bytes = shutil.disk_usage(self._folder).free
        if "No space left" in error or (verb == "save" and free_bytes < FULL_BYTES):
            hint = "Make room there, and run it again."
            return NoRoom(f"The disk of {self._folder} is full: {what}", hint=hint)
        return MachineFailed(what)
