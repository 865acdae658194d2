"""A qemu-system-x86_64 without a guest: speaks QMP on its inherited socket and does as told.

FAKE_QEMU says how it behaves (see `main`); FAKE_QEMU_ARGV names the file for its arguments, and
FAKE_QEMU_DATA the directory for its firmware.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

USERNET = (
    "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port\r\n"
    "  TCP[HOST_FORWARD]  10       127.0.0.1 40021       10.0.2.15    22     0     0\r\n"
)
DISKS = [
    {
        "node-name": "root",
        "image": {"snapshots": [{"name": "half", "vm-state-size": 0}]},
    }
]

# More than a pipe holds, and nothing that compresses well.
STATE = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(20_000))
ANSWERS = {
    "human-monitor-command": USERNET,
    "query-named-block-nodes": DISKS,
    "query-version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": "(fake)"},
    "qom-get": "pc-q35-7.2-machine",
    "query-cpu-model-expansion": {"model": {"name": "max", "props": {"avx": True, "erms": False}}},
    "query-migrate": {"status": "failed", "error-desc": "a device can't be saved"},
}

# What the guest says, by behaviour.
CONSOLE = {
    "dies": b"all is well\r\n",
    "panics": b"[    1.5] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n"
    b"[    1.6] Call Trace:\r\n"
    b"[    1.7] ---[ end Kernel panic - not syncing: VFS ]---\r\n",
    "oopses": b"[    9.1] BUG: kernel NULL pointer dereference, address: 0000000000000008\r\n"
    b"[    9.2] Oops: 0002 [#1] PREEMPT SMP\r\n"
    b"[    9.3] ---[ end trace 0 ]---\r\n",
    "emergency": b"You are in emergency mode. After logging in, type ...\r\n",
}
READY = {
    "ready": b'{"progress": "configuring"}\n{"facts": {"kernel": "6.1"}}\n'
    b'{"ready": true}\nnot json\n{"facts": {"arch": "amd64"}}\n',
    "gives-up": b'{"failed": "apt has no network"}\n',
}


def channel(name: str) -> socket.socket:
    """The socket that -chardev socket,fd=N,…,id=NAME hands us."""
    for word in sys.argv:
        settings = dict(part.split("=", 1) for part in word.split(",") if "=" in part)
        if settings.get("id") == name and "fd" in settings:
            return socket.socket(fileno=int(settings["fd"]))
    raise SystemExit(f"no chardev {name}")


class Fake:
    """The state of the machine that isn't there."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.qmp = channel("qmp")
        self.console = channel("console")
        self.ready = channel("ready")
        self.job: dict[str, str] = {}
        self.descriptors: list[int] = []

    def send(self, message: object) -> None:
        self.qmp.sendall(json.dumps(message).encode() + b"\n")

    def event(self, name: str, **data: object) -> None:
        stamp = {"seconds": int(time.time()), "microseconds": 0}
        self.send({"event": name, "data": data, "timestamp": stamp})

    def serve(self) -> None:
        version = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}
        self.send({"QMP": {"version": version, "capabilities": []}})
        for request in self.requests():
            name, arguments = request["execute"], request.get("arguments", {})
            reply = self.answer(name, arguments)
            self.send({**{key: request[key] for key in request if key == "id"}, **reply})
            self.after(name)

    def requests(self) -> Iterator[dict[str, Any]]:
        """JSON objects as they come; QMP needs nothing between them."""
        decoder, text = json.JSONDecoder(), ""
        while data := self.receive():
            text = (text + data.decode()).lstrip()
            while text:
                try:
                    request, end = decoder.raw_decode(text)
                except ValueError:
                    break
                text = text[end:].lstrip()
                yield request

    def receive(self) -> bytes:
        """What was sent, and keeps the descriptors that came with it."""
        data, descriptors, _, _ = socket.recv_fds(self.qmp, 65536, 1)
        self.descriptors += descriptors
        return data

    def answer(self, name: str, arguments: dict[str, str]) -> dict[str, object]:
        result: object = ANSWERS.get(name, {})
        match name:
            case "migrate" if self.behaviour == "migration-refused":
                return {"error": {"class": "GenericError", "desc": "State blocked by 9p"}}
            case "closefd":
                os.close(self.descriptors.pop())
            case "snapshot-save" | "snapshot-load":
                self.job = {"id": arguments["job-id"], "status": "concluded", "type": name}
                if self.behaviour == "job-error":
                    self.job["error"] = "No space left on device"
            case "query-jobs":
                result = [self.job]
            case "device_add" if self.behaviour == "no-device":
                return {"error": {"class": "GenericError", "desc": "Bus 'hotplug0' not found"}}
            case "quit" if self.behaviour == "stubborn":
                return {"error": {"class": "GenericError", "desc": "I'd rather not"}}
            case "query-status" if self.behaviour == "hang-up":
                os._exit(0)
        return {"return": result}

    def after(self, name: str) -> None:
        match name:
            case "migrate" if self.behaviour != "migration-refused":
                self.save(self.descriptors.pop())
            case "migrate-incoming":
                self.load(self.descriptors.pop())
            case "quit" if self.behaviour != "stubborn":
                self.event("SHUTDOWN", guest=False, reason="host-qmp-quit")
                raise SystemExit(0)
            case "snapshot-save" | "snapshot-load":
                self.event("JOB_STATUS_CHANGE", id=self.job["id"], status="running")
                self.event("JOB_STATUS_CHANGE", id=self.job["id"], status="concluded")
            case "device_del":
                self.event("DEVICE_DELETED", device="other-device", path="/")
                if self.behaviour != "holds-on":
                    self.event("DEVICE_DELETED", device="source-device", path="/")
            case "system_powerdown":
                reason = "guest-reset" if self.behaviour == "resets" else "guest-shutdown"
                self.event("SHUTDOWN", guest=True, reason=reason)
                raise SystemExit(3 if self.behaviour == "fails-at-end" else 0)
            # The last thing that a machine's start asks.
            case "human-monitor-command":
                self.live()

    def save(self, descriptor: int) -> None:
        self.event("MIGRATION", status="active")
        status = "failed" if self.behaviour == "migration-fails" else "completed"
        try:
            with open(descriptor, "wb") as pipe:
                pipe.write(STATE[: len(STATE) // 2])
                if self.behaviour == "dies-saving":
                    os.kill(os.getpid(), signal.SIGKILL)
                pipe.write(STATE[len(STATE) // 2 :])
        except BrokenPipeError:
            status = "failed"
        self.event("MIGRATION", status=status)

    def load(self, descriptor: int) -> None:
        self.event("MIGRATION", status="active")
        with open(descriptor, "rb") as pipe:
            whole = pipe.read() == STATE
        if not whole or self.behaviour == "refuses-state":
            sys.stderr.write("qemu-system-x86_64: load of migration failed: Invalid argument\n")
            self.event("MIGRATION", status="failed")
            raise SystemExit(1)
        self.event("MIGRATION", status="completed")

    def live(self) -> None:
        """What the guest does once it was started."""
        self.console.sendall(b"\x1b[2J\x1b[31mbooting\x1b[0m\r\n")
        self.console.sendall(CONSOLE.get(self.behaviour, b""))
        self.ready.sendall(READY.get(self.behaviour, b""))
        match self.behaviour:
            case "dies":
                sys.stderr.write("qemu-system-x86_64: Guest memory is gone\n")
                raise SystemExit(3)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "panic-event":
                self.event("GUEST_PANICKED", action="pause")
                self.console.close()
                self.ready.close()
            case "disk-full":
                disk = {"device": "", "node-name": "root", "operation": "write", "action": "stop"}
                self.event("BLOCK_IO_ERROR", **disk, nospace=True, reason="No space left on device")
            case "powers-off":
                self.event("SHUTDOWN", guest=True, reason="guest-shutdown")
                raise SystemExit(0)


def main() -> None:
    if sys.argv[1:] == ["-L", "help"]:
        print(os.environ["FAKE_QEMU_DATA"])
        return
    behaviour = os.environ["FAKE_QEMU"]
    Path(os.environ["FAKE_QEMU_ARGV"]).write_text(json.dumps(sys.argv[1:]))
    match behaviour:
        case "dies-at-once":
            sys.stderr.write("qemu-system-x86_64: -machine q36: unsupported machine type\n")
            raise SystemExit(1)
        case "port-busy":
            sys.stderr.write("qemu-system-x86_64: -netdev user: Could not set up host forwarding")
            sys.stderr.write(" rule 'tcp:127.0.0.1:2222-:22'\n")
            raise SystemExit(1)
        case "no-kvm":
            sys.stderr.write("Could not access KVM kernel module: Permission denied\n")
            raise SystemExit(1)
        case "dumb":
            time.sleep(600)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Fake(behaviour).serve()
    if behaviour == "stubborn":
        time.sleep(600)


if __name__ == "__main__":
    main()
