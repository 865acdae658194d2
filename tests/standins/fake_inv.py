"""Stands in for `inv` of a checkout: doctor, check, vexfs.image and validate.image.

It runs in the folder of a small checkout and does what `script.json` there says; whatever it is
called with is added to `calls.jsonl`. What it makes is small and of the real form.

    {"doctor": "broken" | "crash" | "noisy",
     "unrecognised": [VARIANT…],     `check` ends with 2
     "build": {VARIANT: "fail" | "crash" | "silent" | "killed"},
     "validate": "fail" | "crash" | "crash after one" | "wrong digest"}
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tasks.artifacts.checks import Check, Validation, write

GROUPS = (("boot", "SSH answers"), ("module", "modprobe loads it"))
STAGES = ("build-cloudimg", "compile-vexfs", "seal", "compress")


def main(words: list[str]) -> int:
    script = json.loads(Path("script.json").read_text())
    with Path("calls.jsonl").open("a") as calls:
        calls.write(json.dumps({"words": words, "env": dict(os.environ)}) + "\n")
    match words[0]:
        case "doctor":
            return doctor(script.get("doctor", ""))
        case "check":
            return check(words, script)
        case "vexfs.image":
            return image(words, script.get("build", {}).get(flag(words, "--variant"), ""))
        case "validate.image":
            return validate(words, script.get("validate", ""))
    raise SystemExit(f"no such task: {words}")


def flag(words: list[str], name: str, default: str = "") -> str:
    return words[words.index(name) + 1] if name in words else default


def doctor(how: str) -> int:
    if how == "crash":
        sys.stderr.write("Traceback (most recent call last):\nKeyError: 'cpu'\n")
        return 1
    rows = [
        row("python", "ok", "3.11.2", ""),
        row("accelerator", "warning", "tcg, which is slower", "modprobe kvm"),
        row("disk", "broken" if how == "broken" else "ok", "1 GB free", "Free some."),
    ]
    sys.stderr.write("{a warning of some library}\n" if how == "noisy" else "")
    print(json.dumps({"ok": how != "broken", "checks": rows}, indent=1))
    return 12 if how == "broken" else 0


def row(name: str, outcome: str, detail: str, fix: str) -> dict[str, str]:
    return {"name": name, "needs": name, "outcome": outcome, "detail": detail, "fix": fix}


def check(words: list[str], script: dict[str, Any]) -> int:
    if flag(words, "--variant") in script.get("unrecognised", ()):
        sys.stderr.write("error: The source tree has no layout that is known.\n")
        return 2
    print("Nothing is in the way.")
    return 0


def image(words: list[str], how: str) -> int:
    variant, version = flag(words, "--variant"), flag(words, "--version", "1.0.0")
    sys.stderr.write("vexfs.seal: started\nvexfs.seal: restoring\n")
    match how:
        case "fail":
            sys.stderr.write("vexfs.seal: failed after 2.5 s\nerror: The source did not compile.\n")
            sys.stderr.write("  | vexfs.c:7: no_such_name\nMend it.\n")
            return 11
        case "crash":
            sys.stderr.write("Traceback (most recent call last):\nKeyError: 'x'\n")
            return 1
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "silent":
            return 0
    print(f"output/{publish(variant, version)}")
    return 0


def publish(variant: str, version: str) -> str:
    """A whole image; returns the name of its manifest."""
    stem = f"vexfs-{variant}-{version}"
    output = Path("output")
    output.mkdir(exist_ok=True)
    artifacts = {}
    disk = hashlib.sha256(stem.encode()).digest() * 128
    for name, data in ((f"{stem}.qcow2", disk), (f"{stem}.qcow2.zst", packed(disk))):
        aside = output / f"{name}.part"
        aside.write_bytes(data)
        aside.replace(output / name)
        sha256 = hashlib.sha256(data).hexdigest()
        artifacts[name] = {"sha256": sha256, "size_bytes": len(data)}
        (output / f"{name}.sha256").write_text(f"{sha256}  {name}\n")
    stages = {name: record(name, f"{variant}{version}") for name in STAGES}
    document = {
        "format": 1,
        "name": "vexfs",
        "variant": variant,
        "version": version,
        "base": {"name": "debian-13", "made_by": "mmdebstrap", "sha256": "ab" * 32},
        "engine": "native",
        "kernel": "6.12.1",
        "module": {"file": "vexfs.ko", "sha256": "cd" * 32, "vermagic": "6.12.1 SMP"},
        "tool": {"file": "vexctl", "sha256": "ef" * 32, "version": "vexctl 1.0.0"},
        "source": {"files": 1, "layout": "vm-build", "sha256": "12" * 32},
        "packages": {"bash": "5.2.37-2"},
        "artifacts": artifacts,
        "virtual_size_bytes": 1 << 30,
        "stages": stages,
        "tools": {"qemu-img": "7.2"},
    }
    (output / f"{stem}.manifest.json").write_text(json.dumps(document))
    return f"{stem}.manifest.json"


def packed(data: bytes) -> bytes:
    """A frame of Zstandard with one raw block (RFC 8878); it runs without any package."""
    size_in_two_bytes, last = 0b0110_0000, 1
    header = b"\x28\xb5\x2f\xfd" + bytes([size_in_two_bytes])
    size = (len(data) - 256).to_bytes(2, "little")
    return header + size + (last | len(data) << 3).to_bytes(3, "little") + data


def record(stage: str, seed: str) -> dict[str, Any]:
    """A record in the store, with its log; returns what a manifest says of it."""
    key = hashlib.sha256(f"{stage}{seed}".encode()).hexdigest()
    folder = Path(".vmbake", "results", f"vexfs.{stage}", key)
    timing = {"seconds": 1.5, "finished": datetime.now(UTC).isoformat()}
    if not folder.exists():
        log = Path(".vmbake", "logs", "run", f"vexfs.{stage}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"# $ {stage}\n")
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(
            json.dumps(
                {
                    "format": 1,
                    "stage": f"vexfs.{stage}",
                    "key": key,
                    "inputs": {},
                    "facts": {},
                    "outputs": {"disk": {"sha256": "00", "size_bytes": 7}},
                    "published": [],
                    "log": str(log.relative_to(".vmbake")),
                    **timing,
                }
            )
        )
        if stage == "seal":
            (folder / "dpkg-status").write_text(DPKG_STATUS)
    known = json.loads((folder / "record.json").read_text())
    return {
        "seconds": known["seconds"],
        "finished": known["finished"],
        "fingerprint": key,
    }


DPKG_STATUS = """Package: bash
Status: install ok installed
Version: 5.2.37-2
Architecture: amd64
Maintainer: Nobody <nobody@example.org>
Description: a shell

"""


def validate(words: list[str], how: str) -> int:
    folder = Path("output", "validation")
    folder.mkdir(parents=True, exist_ok=True)
    for number, disk in enumerate(word for word in words[1:] if word.endswith(".qcow2")):
        path = Path(disk)
        if how == "crash" or (how == "crash after one" and number):
            sys.stderr.write("error: QEMU can't be started.\n")
            return 8
        print(f"looking at {path.name}")
        found = examined(path, how)
        stem = f"{path.name}.{found.accel}.bios"
        write(found, folder / f"{stem}.json")
        (folder / f"{stem}.console.log").write_text("login:\n")
    return 14 if how == "fail" else 0


def examined(path: Path, how: str) -> Validation:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Validation(
        image=path.name,
        sha256="0" * 64 if how == "wrong digest" else sha256,
        size_bytes=path.stat().st_size,
        variant=path.name.split("-")[1],
        version="1.0.0",
        accel="tcg",
        firmware="bios",
        started=datetime.now(UTC).isoformat(),
        seconds=3.0,
        checks=tuple(
            Check(
                group=group,
                name=name,
                command="true",
                expected="It does.",
                outcome="failed" if how == "fail" and group == "module" else "passed",
                reason="Exec format error" if how == "fail" and group == "module" else "",
            )
            for group, name in GROUPS
        ),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
