"""Checks that are no single question: times, digests, clocks, two clones compared."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tasks.artifacts.checks import Check, Mark, Outcome
from tasks.guest.shell import Shell
from tasks.validate.catalogue import Spec
from tasks.validate.checking import check_of
from tasks.validate.clone import FirstBoot
from tasks.validate.subject import Subject

# Monotonic times in microseconds after the kernel's start, 0 if it did not happen
# (org.freedesktop.systemd1(5)).
TIMES = (
    "systemctl show -p UserspaceTimestampMonotonic --value; "
    "systemctl show -p ActiveEnterTimestampMonotonic --value ssh.service; "
    "systemctl show -p ActiveEnterTimestampMonotonic --value sshd.service"
)
QUESTION_TIMEOUT_S = 30.0
MOST_DRIFT_S = 60


TWO_CLONES = tuple(
    Spec(group="seal", name=f"two clones differ: {what}", command=command, expected=expected)
    for what, command, expected in (
        ("machine-id", "cat /etc/machine-id", "two different ones"),
        ("host keys", "cat /etc/ssh/ssh_host_*_key.pub", "no key in common"),
    )
)


def whole(group: str, name: str, expected: str, reason: str = "", *, command: str,
          output: str = "", seconds: float = 0.0, skipped: str = "") -> Check:  # fmt: skip
    """The record of such a check; it failed if there is a reason."""
    outcome: Outcome = "skipped" if skipped else "failed" if reason else "passed"
    return Check(
        group=group,
        name=name,
        command=command,
        expected=expected,
        outcome=outcome,
        reason=reason or skipped,
        output=output,
        seconds=round(seconds, 3),
    )


def bytes_are_the_manifests(subject: Subject) -> Check:
    """The artifact's digest against the one in its manifest."""
    name, expected = "bytes equal the manifest", "size and SHA256 that the manifest has for it"
    command = f"sha256sum {subject.path.name}"
    if subject.manifest is None:
        reason = "The image has no manifest that says what it should be."
        return whole("seal", name, expected, command=command, skipped=reason)
    promised = subject.manifest["artifacts"].get(subject.path.name)
    if promised is None:
        reason = f"The manifest does not know {subject.path.name}."
    elif (promised["sha256"], promised["size_bytes"]) != (subject.sha256, subject.size_bytes):
        reason = (
            f"It has {subject.size_bytes} bytes with SHA256 {subject.sha256}; the manifest says "
            f"{promised['size_bytes']} and {promised['sha256']}."
        )
    else:
        reason = ""
    return whole("seal", name, expected, reason, command=command, output=subject.sha256)


def marks(boot: FirstBoot, shell: Shell) -> tuple[Mark, ...]:
    """The moments of the first boot, in seconds after QEMU was started."""
    said = shell.run(TIMES, timeout_s=QUESTION_TIMEOUT_S).stdout.split()
    micros = [int(word) for word in said if word.isdigit()]
    userspace_s, ssh_s = (micros[:1] or [0])[0] / 1e6, max(micros[1:], default=0) / 1e6
    moments = {
        "kernel": boot.kernel_s,
        "userspace": boot.kernel_s + userspace_s if userspace_s else 0,
        "SSH": boot.kernel_s + ssh_s if ssh_s else 0,
        "cloud-init done": boot.done_s,
    }
    return tuple(Mark(name=n, seconds=round(at, 2)) for n, at in moments.items() if at)


def boot_checks(found: tuple[Mark, ...], ssh_s: float, limit_s: float) -> Iterator[Check]:
    """That the moments came, as checks: whoever got so far has passed them."""
    at = {mark.name: mark.seconds for mark in found}
    expected = f"within {limit_s:g} s"
    told = "(the guest's uptime when it told that cloud-init was done)"
    yield whole("boot", "kernel starts", expected, command=told, seconds=at["kernel"])
    yield whole(
        *("boot", "first boot is done", expected),
        command="(told by the seed's runcmd)",
        seconds=at["cloud-init done"],
    )
    yield whole("boot", "SSH answers", expected, command="ssh", seconds=at.get("SSH", ssh_s))


def clock(shell: Shell) -> Check:
    """The guest's clock against the host's."""
    command = "date +%s"
    answer = shell.run(command, timeout_s=QUESTION_TIMEOUT_S)
    now = time.time()
    said = answer.stdout.strip()
    drift_s = abs(now - float(said)) if said.isdigit() else float("inf")
    reason = (
        f"The guest's clock differs from the host's by {drift_s:.0f} s."
        if drift_s > MOST_DRIFT_S
        else ""
    )
    expected = f"the host's time, give or take {MOST_DRIFT_S} s"
    return whole("system", "time is right", expected, reason, command=command,
                 output=said, seconds=answer.seconds)  # fmt: skip


def clones_differ(one: FirstBoot, other: FirstBoot) -> Iterator[Check]:
    """Two first boots of the same image must become two machines."""
    machine_id, host_keys = TWO_CLONES
    reason = ""
    if not one.machine_id or one.machine_id == other.machine_id:
        reason = f"Both clones have the machine-id {one.machine_id or '(none)'}."
    said = f"{one.machine_id}\n{other.machine_id}"
    yield check_of(machine_id, "failed" if reason else "passed", reason=reason, output=said)
    shared = sorted(set(one.host_keys) & set(other.host_keys))
    reason = f"Both clones have the host key {shared[0]}." if shared else ""
    said = "\n".join((*one.host_keys, *other.host_keys))
    yield check_of(host_keys, "failed" if reason else "passed", reason=reason, output=said)
