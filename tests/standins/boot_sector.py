"""Disks of one sector that say something on the serial line and stop."""

from __future__ import annotations

from pathlib import Path

DISK_BYTES = 1 << 20
# Real mode at 0x7C00: DS = 0, then each byte of the message to COM1, then halt for ever.
PRINTING = bytes.fromhex("FC 31C0 8ED8 BE167C AC 84C0 7406 BAF803 EE EBF5 F4 EBFD")


def write(path: Path, message: str = "") -> Path:
    """A raw disk that prints `message` when it is booted by BIOS."""
    code = PRINTING + message.encode() + b"\0"
    assert len(code) <= 510
    path.write_bytes((code.ljust(510, b"\0") + b"\x55\xaa").ljust(DISK_BYTES, b"\0"))
    return path
