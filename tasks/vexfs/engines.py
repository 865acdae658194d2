"""What fills an image: a guest of its own (vm), or this host, in the image's root (native)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks.core import errors, process, tools
from tasks.guest import mounter, native
from tasks.qemu import accel as accelerators

if TYPE_CHECKING:
    from invoke.tasks import Call, Task

    from tasks.core.stage import Site

Name = Literal["vm", "native"]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The engine of a build, and why this one and not the other."""

    name: Name
    reason: str

    def __str__(self) -> str:
        return f"engine {self.name}: {self.reason}"


def choose(site: Site, *, engine: Any, accel: Any, **_: Any) -> Engine:
    """The engine that a build gets; `auto` takes the fastest that works here.

    Raises:
        CannotRun: native is wanted, and something for it is missing here.
        MissingTool, MachineFailed: neither works.
    """
    if engine == "native":
        return require_native()
    if engine == "vm":
        return Engine(name="vm", reason="asked for")
    if accel == "kvm":
        return Engine(name="vm", reason="--accel kvm is asked for")
    missing = native.obstacles()
    kvm_works, finding = kvm(site, accel, needed=bool(missing))
    if kvm_works:
        return Engine(name="vm", reason=f"KVM works: {finding}")
    if missing:
        reason = f"native would be faster, but needs {', '.join(missing)}"
        return Engine(name="vm", reason=reason + with_docker(" (scripts/in-container has it)"))
    return Engine(name="native", reason=told(f"faster than a guest without KVM ({finding})"))


def told(reason: str) -> str:
    """The reason for native, with the way in which it opens disks for this user."""
    how = mounter.choose().how
    return f"{reason}; {how}" if how else reason


def require_native() -> Engine:
    """The native engine, because it is asked for.

    Raises:
        CannotRun: as `choose`.
    """
    if missing := native.obstacles():
        raise errors.CannotRun(
            f"The native engine needs {', '.join(missing)}.",
            hint="Give it that (scripts/bootstrap installs the packages; root needs no subordinate"
            f" IDs){with_docker(', run the command by scripts/in-container, which has it')},"
            " or use --engine vm, which is slower.",
        )
    return Engine(name="native", reason=told("asked for"))


def with_docker(text: str) -> str:
    """A way out that is one where Docker is; "" elsewhere."""
    return text if tools.find_tool("docker") else ""


def kvm(site: Site, accel: Any, *, needed: bool) -> tuple[bool, str]:
    """Whether a guest runs under KVM here, and what was found.

    Args:
        needed: without a guest nothing can be built.

    Raises:
        MissingTool, MachineFailed: no guest runs at all, and one is needed.
    """
    if accel == "tcg":
        return False, "--accel tcg is asked for"
    try:
        found = accelerators.choose("auto", process.Runner(site.cache / "accel.log"), site.cache)
    except errors.VmbakeError as error:
        if needed:
            raise
        return False, error.what
    return found.name == "kvm", found.reason


def either(
    *,
    vm: Iterable[Task[Any] | Call] | None = None,
    native: Iterable[Task[Any] | Call] | None = None,
) -> Callable[..., Iterable[Task[Any] | Call] | None]:
    """A hook: what takes the stage's place under each engine; None: it stays."""

    def instead(site: Site, **params: Any) -> Iterable[Task[Any] | Call] | None:
        return native if choose(site, **params).name == "native" else vm

    return instead


def inputs(site: Site, **params: Any) -> dict[str, str]:
    """The engine as an input of a stage."""
    return {"engine": choose(site, **params).name}
