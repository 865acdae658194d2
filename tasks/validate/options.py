"""The options of the validation. Their defaults are in invoke.yaml."""

from __future__ import annotations

from typing import Any

from tasks.core.options import Option, Options, within

SMALLEST_MEMORY_MB = 256


def option(name: str, help: str, **words: Any) -> Option:  # noqa: A002 - the field's name
    """An option of this room: its key and variable follow from its name."""
    key, variable = f"validate.{name}", f"VALIDATE_{name.upper()}"
    return Option(name=name, help=help, key=key, env=variable, matters=False, **words)


OPTIONS = Options(
    [
        option("images", "Image file or URL; several may follow the task's name"),
        option("accel", "How QEMU runs guests", choices=("auto", "kvm", "tcg")),
        option("firmware", "What the guests boot by", choices=("bios", "uefi")),
        option(
            "memory", "Memory of the guest in MiB", kind=int,
            check=within(SMALLEST_MEMORY_MB, 1 << 20),
        ),
        option("boot_timeout", "Seconds until the first boot must be done", kind=int,
               check=within(1, 86400)),
        option("ssh_timeout", "Seconds until SSH must answer after that", kind=int,
               check=within(1, 86400)),
        option("quick", "One boot only: no reboot, no second clone", kind=bool),
        option("verbose", "Show each check, also those that passed", kind=bool),
    ]
)  # fmt: skip
