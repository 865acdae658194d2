"""A guest of 512 bytes that tells within half a second whether an accelerator really runs guests.

It does what a stock kernel does between the firmware and its first line of output.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.core.process import Runner, printable
from tasks.qemu.kvm import text_of

QEMU = "qemu-system-x86_64"

# The guest: machine code, where it came from, and why. Loaded at 0x7c00 by the BIOS.
# Memory: 0x1000 PML4, 0x2000 PDPT, 0x3000 PD, 0x4000 IDT; the stack grows down from 0x7c00.
# After each step it writes a letter to port 0xe9 (STEPS); the host reads how far it came.
LISTING = """
                                 | .code16
66 31 c0                         |        xor   eax, eax
8e d8                            |        mov   ds, ax
8e c0                            |        mov   es, ax
8e d0                            |        mov   ss, ax
bc 00 7c                         |        mov   sp, 0x7c00
fc                               |        cld
b0 72                            |        mov   al, 'r'
e6 e9                            |        out   0xe9, al
b4 41                            |        mov   ah, 0x41          ; EDD, as a kernel probes it: are
bb aa 55                         |        mov   bx, 0x55aa        ; there extensions for disk 0x80?
b2 80                            |        mov   dl, 0x80
cd 13                            |        int   0x13
b0 65                            |        mov   al, 'e'
e6 e9                            |        out   0xe9, al
fa                               |        cli
66 31 c0                         |        xor   eax, eax          ; clear 16 KiB for the tables
bf 00 10                         |        mov   di, 0x1000
b9 00 10                         |        mov   cx, 0x1000
66 f3 ab                         |        rep   stosd
c7 06 00 10 03 20                |        mov   word [0x1000], 0x2003     ; present, writable
c7 06 00 20 03 30                |        mov   word [0x2000], 0x3003
c6 06 00 30 83                   |        mov   byte [0x3000], 0x83       ; a 2 MiB page at 0
66 c7 06 08 30 83 00 20 00       |        mov   dword [0x3008], 0x200083  ; and one at 2 MiB
0f 01 16 17 7d                   |        lgdt  [gdtr]
0f 20 c0                         |        mov   eax, cr0
0c 01                            |        or    al, 1             ; CR0.PE
0f 22 c0                         |        mov   cr0, eax
ea 57 7c 08 00                   |        jmp   0x08:prot
                                 | .code32
b8 18 00 00 00                   | prot:  mov   eax, 0x18
8e d8                            |        mov   ds, eax
8e c0                            |        mov   es, eax
8e d0                            |        mov   ss, eax
b0 70                            |        mov   al, 'p'
e6 e9                            |        out   0xe9, al
0f 20 e0                         |        mov   eax, cr4
0c 20                            |        or    al, 0x20          ; CR4.PAE
0f 22 e0                         |        mov   cr4, eax
b8 00 10 00 00                   |        mov   eax, 0x1000
0f 22 d8                         |        mov   cr3, eax
b9 80 00 00 c0                   |        mov   ecx, 0xc0000080   ; MSR EFER
0f 32                            |        rdmsr
80 cc 01                         |        or    ah, 1             ; EFER.LME
0f 30                            |        wrmsr
0f 20 c0                         |        mov   eax, cr0
0f ba e8 1f                      |        bts   eax, 31           ; CR0.PG: long mode from here
0f 22 c0                         |        mov   cr0, eax
ea 93 7c 00 00 10 00             |        jmp   0x10:long
                                 | .code64
b0 6c                            | long:  mov   al, 'l'
e6 e9                            |        out   0xe9, al
31 c0                            |        xor   eax, eax
0f a2                            |        cpuid
be 00 00 10 00                   |        mov   esi, 0x100000     ; move 1 MiB, as unpacking a
bf 00 00 20 00                   |        mov   edi, 0x200000     ; kernel does all the time
89 f1                            |        mov   ecx, esi
f3 a4                            |        rep   movsb
b0 6d                            |        mov   al, 'm'
e6 e9                            |        out   0xe9, al
c7 04 25 80 40 00 00 ef 7c 10 00 |        mov   dword [0x4080], 0x100000 + tick
66 c7 04 25 84 40 00 00 00 8e    |        mov   word [0x4084], 0x8e00   ; IDT entry 8: there the
0f 01 1c 25 1d 7d 00 00          |        lidt  [idtr]                  ; BIOS left the timer
b0 fe                            |        mov   al, 0xfe          ; no other interrupt
e6 21                            |        out   0x21, al
31 db                            |        xor   ebx, ebx
fb                               |        sti
f4                               | wait:  hlt
85 db                            |        test  ebx, ebx
74 fb                            |        jz    wait
fa                               |        cli
b0 74                            |        mov   al, 't'
e6 e9                            |        out   0xe9, al
b9 80 f0 fa 02                   |        mov   ecx, 50000000
ff c9                            | count: dec   ecx
75 fc                            |        jnz   count
b0 6e                            |        mov   al, 'n'
e6 e9                            |        out   0xe9, al
b0 10                            |        mov   al, 16            ; QEMU ends with 2 * 16 + 1
e6 f4                            |        out   0xf4, al
f4                               | stop:  hlt
eb fd                            |        jmp   stop
ff c3                            | tick:  inc   ebx
b0 20                            |        mov   al, 0x20          ; end of interrupt
e6 20                            |        out   0x20, al
48 cf                            |        iretq
00 00 00 00 00 00 00 00          | gdt:   dq    0
ff ff 00 00 00 9a cf 00          |        dq    0x00cf9a000000ffff  ; 0x08: code, 32 bits
ff ff 00 00 00 9a af 00          |        dq    0x00af9a000000ffff  ; 0x10: code, 64 bits
ff ff 00 00 00 92 cf 00          |        dq    0x00cf92000000ffff  ; 0x18: data
1f 00 f7 7c 00 00                | gdtr:  dw    31      dd 0x7c00 + gdt
8f 00 00 40 00 00 00 00 00 00    | idtr:  dw    0x8f    dq 0x4000
"""
CODE = bytes.fromhex("".join(line.partition("|")[0] for line in LISTING.splitlines()))
BOOT_SECTOR = CODE.ljust(510, b"\0") + b"\x55\xaa"
# SeaBIOS does not boot from a virtio disk of a single sector.
DISK_BYTES = 1 << 20
EXIT_STATUS = 33

# How far a guest has come when this is the last letter it wrote.
STEPS = {
    "": "the firmware",
    "r": "the boot sector in real mode",
    "e": "the BIOS disk call (EDD)",
    "p": "protected mode",
    "l": "long mode",
    "m": "CPUID and moving memory in long mode",
    "t": "the timer interrupt in long mode",
    "n": "counting in long mode",
}


class Verdict(StrEnum):
    """What came of an accelerator on this host."""

    WORKS = "works"
    ABSENT = "absent"  # no /dev/kvm
    FORBIDDEN = "forbidden"  # no permission to open it
    BUSY = "busy"  # another hypervisor holds the processor's virtualization
    UNSUPPORTED = "unsupported"  # not with this QEMU, or not on this kind of machine
    ABORTS = "aborts"  # QEMU ended by itself
    CRASHES = "crashes"  # the guest reset
    STALLS = "stalls"  # the guest did not get through in time


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One guest that was started.

    Args:
        accel: the accelerator, in QEMU's words.
        reached: how far the guest came.
        said: QEMU's first error, "" if it said nothing.
        duration_s: from its start to its end, or to the moment it was given up.
    """

    accel: str
    cpu: str
    verdict: Verdict
    reached: str
    said: str
    duration_s: float


# How QEMU words its failures with KVM (accel/kvm/kvm-all.c, accel/accel-softmmu.c).
TELLING = (
    ("permission denied", Verdict.FORBIDDEN),
    ("operation not permitted", Verdict.FORBIDDEN),
    ("device or resource busy", Verdict.BUSY),
    ("no such file or directory", Verdict.ABSENT),
    ("no such device", Verdict.ABSENT),
    ("invalid accelerator", Verdict.UNSUPPORTED),
    ("not supported", Verdict.UNSUPPORTED),
)


def try_guest(runner: Runner, accel: str, cpu: str, *, limit_s: float) -> Attempt:
    """Start the guest under `accel` and wait for its end, `limit_s` seconds at most.

    Raises:
        MissingTool: QEMU is not installed.
    """
    with TemporaryDirectory(prefix="vmbake-probe-") as folder:
        scratch = Path(folder)
        disk, steps, log = scratch / "disk.raw", scratch / "steps", scratch / "qemu.log"
        write_disk(disk)
        # A log of its own: the verdict comes from the words of this QEMU alone.
        aside = Runner(log, env=runner.env)
        began = time.monotonic()
        with aside.start(command_line(accel, cpu, disk, steps)) as process:
            status = process.wait(limit_s)
            duration_s = time.monotonic() - began
            if status is None:
                process.stop(grace_s=1)  # it has nothing to save
        words = [printable(line) for line in text_of(log).splitlines() if not line.startswith("# ")]
        attempt = Attempt(
            accel=accel,
            cpu=cpu,
            verdict=judge(status, words),
            reached=STEPS.get(text_of(steps)[-1:], STEPS[""]),
            said=first_error(words),
            duration_s=round(duration_s, 2),
        )
    runner.note(
        f"probe guest under {accel}, -cpu {cpu}: {attempt.verdict} after {attempt.duration_s} s, "
        f"reached {attempt.reached}. {attempt.said}"
    )
    return attempt


def write_disk(path: Path) -> None:
    """Write a sparse disk with the guest in its first sector."""
    with path.open("wb") as disk:
        disk.write(BOOT_SECTOR)
        disk.truncate(DISK_BYTES)


def command_line(accel: str, cpu: str, disk: Path, steps: Path) -> tuple[str, ...]:
    """The command that runs the guest and writes the letters of its steps to a file."""
    return (
        QEMU,
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-machine", "q35"),
        *("-accel", accel),
        *("-cpu", cpu),
        *("-m", "16"),
        *("-display", "none"),
        *("-drive", f"if=none,id=disk,format=raw,readonly=on,file={escaped(disk)}"),
        *("-device", "virtio-blk-pci,drive=disk"),
        *("-chardev", f"file,id=steps,path={escaped(steps)}"),
        *("-device", "isa-debugcon,iobase=0xe9,chardev=steps"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
    )


def escaped(path: Path) -> str:
    """A path as a value in QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


def judge(status: int | None, words: list[str]) -> Verdict:
    """The verdict from QEMU's exit status (None: it had to be stopped) and its words."""
    if status is None:
        return Verdict.STALLS
    if status == EXIT_STATUS:
        return Verdict.WORKS
    if status == 0:
        # With -no-reboot a reset of the guest, say by a triple fault, is a peaceful end.
        return Verdict.CRASHES
    about_kvm = [line.lower() for line in words if "kvm" in line.lower()]
    for text, verdict in TELLING:
        if any(text in line for line in about_kvm):
            return verdict
    return Verdict.ABORTS


def first_error(words: list[str]) -> str:
    """The first line that is no warning: what comes after it only follows from it."""
    harmless = (": warning: ", ": terminating on signal ")
    errors = [line for line in words if line and not any(text in line for text in harmless)]
    return errors[0].removeprefix(f"{QEMU}: ") if errors else ""
